#!/usr/bin/env bash
# CIFAR-10 from nothing: makes a virtual environment, installs the project, runs the main job.
# Arguments go to the job: scripts/cifar10.sh --help. PYTHON=python3.13 chooses the interpreter.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/_setup.sh
source "$here/_setup.sh"
ensure_environment "tfds,experiments"
# -P and PYTHONPATH: run from any folder, so that paths among the arguments mean what they say.
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec "$VENV_PYTHON" -P -m experiments.cifar10 "$@"
