#!/usr/bin/env bash
# Everything of a release but the upload: versions that agree, wheel and sdist, and both installed and
# tried in fresh environments of every Python from 3.11 to 3.13 that is found.
#
#   scripts/release.sh                       all of them; wheel and sdist are left in dist/
#   PYTHONS="python3.12" scripts/release.sh  these alone
#
# The wheel is installed with all that it asks for, the sdist without TensorFlow, as the page
# "Limits and versions" says. Downloads a gigabyte for each Python. Nothing is uploaded or tagged.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

runs() {
    command -v "$1" >/dev/null && "$1" -c 'import venv' 2>/dev/null
}

pythons=()
for candidate in ${PYTHONS:-python3.11 python3.12 python3.13}; do
    if runs "$candidate"; then pythons+=("$candidate"); else echo "$candidate: not found"; fi
done
((${#pythons[@]})) || fail "No Python from 3.11 to 3.13 found; name one: PYTHONS=/path/to/python"

echo "== versions"
version=$("${pythons[0]}" - <<'PYTHON'
import re
import sys
from pathlib import Path


def first(pattern, name):
    found = re.search(pattern, Path(name).read_text("utf-8"), re.MULTILINE)
    return found[1] if found else None


versions = {
    "ntk_sketch/_version.py": first(r'^__version__ = "(.*)"', "ntk_sketch/_version.py"),
    "CHANGELOG.md": first(r"^## \[(\d.*?)\] - ", "CHANGELOG.md"),
    "CITATION.cff": first(r"^version: (.*)$", "CITATION.cff"),
}
if len(set(versions.values())) != 1:
    sys.exit(f"these differ: {versions}; set one version in all of them")
if first(r"^## \[\d.*?\] - (.*)$", "CHANGELOG.md") == "Unreleased":
    print("CHANGELOG.md has no date for it yet", file=sys.stderr)
print(versions["CITATION.cff"])
PYTHON
) || exit 1
echo "$version"
[[ -z $(git status --porcelain) ]] || echo "note: there are changes that are not committed"

echo "== wheel and sdist"
"${pythons[0]}" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet --disable-pip-version-check build
rm -rf dist
"$work/build/bin/python" -m build --outdir dist . >"$work/build.log" 2>&1 ||
    fail "$(cat "$work/build.log")"
wheel=dist/ntk_sketch-$version-py3-none-any.whl
sdist=dist/ntk_sketch-$version.tar.gz
[[ -f $wheel && -f $sdist ]] || fail "dist/ has not $wheel and $sdist: $(ls dist)"
ls -l "$wheel" "$sdist"

cat >"$work/smoke.py" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

import ntk_sketch as ns
from ntk_sketch import stax

import neural_tangents as nt  # behind ntk_sketch

version, root = sys.argv[1:]
assert ns.__version__ == version, ns.__version__
assert not Path(ns.__file__).is_relative_to(root), "this is the checkout, not what was installed"
x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
model = stax.serial(stax.Dense(1, b_std=0.5), stax.Relu(), stax.Dense(1))
sample = x[:24]
feature_map = ns.feature_map(model, sample, ns.Exact(), key=jax.random.key(0))
close, exact = feature_map.kernel_fn(sample, None, "ntk"), model[2](sample, None, "ntk")
assert np.abs(close - exact).max() < 1e-3 * np.abs(exact).max()
solution = ns.ridge(feature_map, x, np.sin(x[:, :1]), diag_reg=[1e-3, 1e-2], select="loo")
with tempfile.TemporaryDirectory() as folder:
    solution.save(Path(folder) / "solution.safetensors")
    again = ns.load(Path(folder) / "solution.safetensors")
assert np.array_equal(again.predict(x), solution.predict(x))
print(f"ntk_sketch {version}, Neural Tangents {nt.__version__}, JAX {jax.__version__}: works")
PYTHON

try_in() { # try_in ENVIRONMENT: the smoke test, away from the checkout
    (cd "$work" && env -u PYTHONPATH JAX_PLATFORMS=cpu "$1/bin/python" smoke.py "$version" "$root")
}

for python in "${pythons[@]}"; do
    environment=$work/environment
    pip=("$environment/bin/python" -m pip install --quiet --disable-pip-version-check)
    echo "== $python, wheel with all that it asks for"
    "$python" -m venv --clear "$environment"
    "${pip[@]}" "$wheel"
    try_in "$environment"
    echo "== $python, sdist without TensorFlow"
    "$python" -m venv --clear "$environment"
    "${pip[@]}" --no-deps neural-tangents==0.6.5 "$sdist"
    "${pip[@]}" jax jaxlib frozendict equinox jaxtyping numpy scipy safetensors tqdm
    try_in "$environment"
done

echo "== done: dist/ holds $version, tried with ${pythons[*]}"
echo "Not uploaded. To do so: date the section in CHANGELOG.md, commit, tag v$version, run this again,"
echo "and hand dist/* to the package index."
