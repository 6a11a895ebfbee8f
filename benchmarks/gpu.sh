#!/usr/bin/env bash
# Checks the Triton kernels on this machine's GPU against float64, then measures them beside batch
# norm and the paper's two lines. Needs torch and Triton alone, and no network:
#
#     benchmarks/gpu.sh [--quick | --dry-run]
#
# --dry-run goes through all of it on a CPU, with a map of a few pixels: no figure of it means anything.
# PYTHON names the interpreter (python3), RESULTS the folder of the results, one JSON and one Markdown
# file beside the checks (benchmarks/results). Exit code: 0, or 1 where a check failed, or 2 where there
# is no GPU or no Triton.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
results=${RESULTS:-benchmarks/results}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

quick=()
device=cuda
export BNET_MM_KERNELS=triton  # they are off where no GPU has run them
measured=(--k 1 3 5 7 --dtype float32 float16 bfloat16 --modes training evaluation --rounds 41 --compiled)
case "${1-}" in
    '') ;;
    --quick)
        quick=(--quick)
        measured=(--only layers --k 5 --dtype float32 float16 --rounds 15)
        ;;
    --dry-run)
        device=cpu
        export BNET_MM_KERNELS=auto
        quick=(--quick --k 3)
        measured=(--only layers --k 3 --dtype float32 bfloat16 --modes training evaluation --rounds 2)
        measured+=(--map 2 8 6 5 --formats contiguous --compiled)
        ;;
    *)
        echo "usage: $0 [--quick | --dry-run]" >&2
        exit 2
        ;;
esac

name=$("$python" - "$device" <<'PYTHON'
import datetime, re, sys, torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'
name = gpu if sys.argv[1] == 'cuda' else 'dry run'
print(datetime.date.today(), re.sub(r'\W+', '_', name.lower()), sep='_')
PYTHON
)
mkdir -p "$results"
status=0
"$python" tests/kernels/checks.py --device "$device" --json "$results/${name}_checks.json" "${quick[@]}" || status=$?
[ "$status" -le 1 ] || exit "$status"
"$python" tools/benchmark.py --device "$device" "${measured[@]}" --output "$results/$name"
echo "$results/$name.json and .md"
exit "$status"
