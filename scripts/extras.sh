#!/usr/bin/env bash
# What users of one extra get: for each of `sklearn` and `flax` an environment of its own, without any
# other extra, from `pip install ".[EXTRA]"`, in which the examples of the extra's modules run.
#
#   scripts/extras.sh              both
#   scripts/extras.sh flax         one
#
# PYTHON chooses the interpreter. Environments are kept (.venv-extra-EXTRA) and made anew when
# pyproject.toml changes; the package is installed anew each time.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3.11}
export JAX_PLATFORMS=cpu
unset PYTHONPATH
(($#)) || set -- sklearn flax
for extra in "$@"; do
    start=$SECONDS venv=$root/.venv-extra-$extra
    wanted=$(sha256sum <"$root/pyproject.toml")
    if [[ ! -f $venv/.installed || $(<"$venv/.installed") != "$wanted" ]]; then
        echo "Installing into ${venv#"$root"/} (the first time takes a few minutes) ..." >&2
        "$python" -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$root[$extra]"
        printf '%s' "$wanted" >"$venv/.installed"
    else
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
            --force-reinstall "$root"
    fi
    (cd / && "$venv/bin/python" - "$extra" <<'PYTHON')
import doctest, importlib, pkgutil, sys

import ntk_sketch

package = importlib.import_module(f"ntk_sketch.interop.{sys.argv[1]}")
assert "site-packages" in ntk_sketch.__file__, ntk_sketch.__file__
failed = tried = 0
for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
    result = doctest.testmod(importlib.import_module(module.name))
    failed, tried = failed + result.failed, tried + result.attempted
assert tried and not failed, f"{failed} of {tried} lines of examples failed"
print(f"{tried} lines of examples of {package.__name__} ran")
PYTHON
    printf '%s: %d s\n' "$extra" $((SECONDS - start))
done
