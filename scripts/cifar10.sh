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
# glibc gives blocks beyond 32 MiB back after every use, and takes the others in pages of 4 KiB: the
# kernel then clears memory as long as the job computes.
malloc=glibc.malloc
export GLIBC_TUNABLES="$malloc.hugetlb=1:$malloc.mmap_max=0:$malloc.arena_max=1:\
$malloc.trim_threshold=137438953472:$malloc.top_pad=67108864${GLIBC_TUNABLES:+:$GLIBC_TUNABLES}"
exec "$VENV_PYTHON" -P -m experiments.cifar10 "$@"
