#!/usr/bin/env bash
# Figures of one GPU in one call: matrix rate, CIFAR-10 end to end, the exact kernel against
# features, kernel errors of wide maps. Each part writes its record when it is done.
#
#   scripts/gpu_report.sh --data-dir DIR --out DIR [--budget SECONDS] [--toy]
#
# Runs as it is on a machine with Python, JAX and what the package imports (PYTHON chooses the
# interpreter); installs nothing and needs no network. A part for which too little of the budget is
# left is left out, with a line that says so. --toy: the smallest sizes, for a rehearsal on a CPU.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
data="" out="" budget=540 toy=0
fail() {
    printf '%s\n' "$*" >&2
    exit 2
}
while (($#)); do
    case $1 in
        --data-dir) data=${2:?--data-dir needs a folder}; shift 2 ;;
        --out) out=${2:?--out needs a folder}; shift 2 ;;
        --budget) budget=${2:?--budget needs a number of seconds}; shift 2 ;;
        --toy) toy=1; shift ;;
        *) fail "unknown argument $1; known: --data-dir DIR --out DIR --budget SECONDS --toy" ;;
    esac
done
[[ -d $data ]] || fail "--data-dir ${data:-(not given)} is no folder; needed: one with CIFAR-10"
[[ -n $out ]] || fail "--out is not given; needed: a folder for the records"
[[ $budget =~ ^[0-9]+$ ]] && ((budget >= 30)) ||
    fail "--budget $budget: too small for any part; needed: 30 seconds at least"
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
data=$(cd "$data" && pwd)
cd "$root" || exit 2
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

failed=0
# part NAME SECONDS_NEEDED MODULE ARGUMENTS...: within what is left of the budget
part() {
    local name=$1 needed=$2 start=$SECONDS status=0 left=$((budget - SECONDS))
    shift 2
    if ((left < needed)); then
        printf '%s: left out, %d s of the budget are left and %d s are needed\n' \
            "$name" "$left" "$needed"
        return
    fi
    timeout --signal=INT --kill-after=10 "$left" "${PYTHON:-python3}" -m "$@" --out "$out" ||
        status=$?
    printf '%s: %d s (exit status %d)\n' "$name" $((SECONDS - start)) "$status"
    ((status == 0)) || failed=1
}

if ((toy)); then
    part "matrix rate" 5 benchmarks.matrix_rate --size 64 --repetitions 1
    part "CIFAR-10" 10 experiments.cifar10 --data-dir "$data" --train 60 --test 20 --width 8
    part "exact kernel" 10 benchmarks.exact_time --data-dir "$data" --width 4 --repetitions 1 \
        --blocks 1 --images 4
    part "kernel errors" 10 experiments.kernel_approximation --data-dir "$data" --widths 4 \
        --methods Nystroem --seeds 1 --images 2 --train 40 --sample 4 --batch-sizes 2 --repetitions 1
else
    part "matrix rate" 15 benchmarks.matrix_rate
    part "CIFAR-10" 60 experiments.cifar10 --data-dir "$data"
    part "exact kernel" 60 benchmarks.exact_time --data-dir "$data" --repetitions 3
    part "kernel errors" 90 experiments.kernel_approximation --data-dir "$data" \
        --widths 512 1024 2048 --methods Nystroem Nystroem-half-residual --seeds 1 --repetitions 3
    part "CIFAR-10, wider" 150 experiments.cifar10 --data-dir "$data" --width 512 1536
fi
exit "$failed"
