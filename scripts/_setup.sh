# Sourced by the other scripts: `ensure_environment EXTRAS` makes a virtual environment with this
# project installed, and sets VENV_PYTHON to its interpreter. Fast when nothing has changed.
#
# PYTHON chooses the interpreter: PYTHON=python3.13 scripts/test.sh. Without it, the first one that
# is there and is at least 3.11 is used. Each choice has its own environment: .venv by default,
# .venv-3.13 and so on for an explicit PYTHON.

_fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

_default_python() {
    local candidate
    for candidate in python3.11 python3 python3.12 python3.13; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
}

ensure_environment() {
    local extras=$1 root python venv stamp wanted
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    if [[ -n ${PYTHON:-} ]]; then
        python=$PYTHON
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
            _fail "PYTHON=$python does not run, or is older than the Python 3.11 that is needed."
        venv=$root/.venv-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    else
        venv=$root/.venv
        python=$venv/bin/python
        if [[ ! -x $python ]]; then
            python=$(_default_python)
            [[ -n $python ]] ||
                _fail "No Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python"
        fi
    fi
    VENV_PYTHON=$venv/bin/python
    # Bytecode goes into the environment's folder, also where it is turned off: tests and examples
    # start a hundred processes, each of which would compile the source of JAX for seconds.
    export PYTHONPYCACHEPREFIX=$venv/bytecode
    unset PYTHONDONTWRITEBYTECODE
    if ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
        echo "Creating ${venv#"$root"/} with $("$python" --version) ..." >&2
        "$python" -m venv --clear "$venv" ||
            _fail "The virtual environment could not be made (Debian: apt install python3-venv)."
    fi
    stamp=$venv/.installed-${extras//,/-}
    wanted=$("$VENV_PYTHON" -c 'import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read() + repr(sys.argv[2:]).encode()).hexdigest())' \
        "$root/pyproject.toml" "$root")
    if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
        echo "Installing into ${venv#"$root"/} (the first time takes a few minutes) ..." >&2
        # Python compiles what is imported; all of it would take half a minute more.
        "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check --no-compile \
            -e "$root[$extras]" ||
            _fail "The installation failed; see the message of pip above."
        printf '%s' "$wanted" >"$stamp"
    fi
}
