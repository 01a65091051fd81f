#!/usr/bin/env bash
# Builds the documentation site: makes a virtual environment, installs, runs the code of pages, draws
# the figures of stored records.
#
#   scripts/docs.sh                  docs/_build/html/index.html, which needs no network
#   scripts/docs.sh -D run_code=0    without running the code of pages; arguments go to Sphinx
#   scripts/docs.sh -b linkcheck     looks at every link, which does need the network
#
# A warning is an error. Every page is made anew, since it depends on records, docstrings and code.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/_setup.sh
source "$root/scripts/_setup.sh"
cd "$root"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
# Pages compile far more than they compute.
export XLA_FLAGS=${XLA_FLAGS---xla_backend_optimization_level=0}

ensure_environment docs
exec "$VENV_PYTHON" -m sphinx -E -W --keep-going "$@" docs docs/_build/html
