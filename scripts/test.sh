#!/usr/bin/env bash
# The whole check: makes a virtual environment, installs, lints, type-checks, tests.
#
#   scripts/test.sh                        everything
#   scripts/test.sh tests/solvers -k loo   arguments go to pytest
#   PYTHON=python3.13 scripts/test.sh      another interpreter, in an environment of its own
#   CORES=4 scripts/test.sh                processes of pytest, all cores without it
#
# Without arguments, the documentation is built too, without running its code, which the tests do. A
# small part runs as XLA compiles by default, and all else quickly compiled;
# what is marked `slow` is left out (`scripts/test.sh -m slow`).
# Stops at the first step that fails, with its exit status. pytest's result is the last line.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/_setup.sh
source "$root/scripts/_setup.sh"
cd "$root"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}

step() {
    local name=$1 start=$SECONDS status=0
    shift
    "$@" || status=$?
    if ((status)); then
        printf '%s: failed after %d s (exit status %d)\n' "$name" $((SECONDS - start)) "$status" >&2
        exit "$status"
    fi
    printf '%s: %d s\n' "$name" $((SECONDS - start))
}

step "environment" ensure_environment test
step "ruff check" "$VENV_PYTHON" -m ruff check
step "ruff format" "$VENV_PYTHON" -m ruff format --check
types=("basedpyright" "$VENV_PYTHON" -m basedpyright --pythonpath "$VENV_PYTHON")
# worksteal: a process takes neighbouring tests, which share maps and compiled programs.
tests=("$VENV_PYTHON" -m pytest -n "${CORES:-auto}" --dist worksteal)
if (($#)); then
    step "${types[@]}"
    exec "${tests[@]}" "$@"
fi
# Two checks of one core beside the first tests; what they say follows.
said=$(mktemp)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$said"' EXIT
{
    step "${types[@]}"
    step "documentation" "$VENV_PYTHON" -m sphinx -q -E -W --keep-going -D run_code=0 docs docs/_build/quick
} >"$said" 2>&1 &
# Empty flags are kept by tests/conftest.py: the tests of rounding as XLA compiles for users.
step "pytest, default XLA flags" env XLA_FLAGS= "${tests[@]}" -m "default_flags and not slow"
status=0
wait $! || status=$?
cat "$said"
((status == 0)) || exit "$status"
"${tests[@]}" -m "not default_flags and not slow"
