#!/usr/bin/env bash
# Checks the Triton kernels on this machine's GPU against float64, then measures them beside batch
# norm and the paper's two lines. Needs torch and Triton alone, and no network:
#
#     benchmarks/gpu.sh [--quick]
#
# PYTHON names the interpreter (python3), RESULTS the folder of the JSON files (benchmarks/results).
# Exit code: 0, or 1 where a check failed, or 2 where there is no GPU or no Triton.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
results=${RESULTS:-benchmarks/results}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

quick=()
measured=(--k 1 3 5 7 --dtype float32 float16 bfloat16 --modes training evaluation --rounds 41 --compiled)
case "${1-}" in
    '') ;;
    --quick)
        quick=(--quick)
        measured=(--only layers --k 5 --dtype float32 float16 --rounds 15)
        ;;
    *)
        echo "usage: $0 [--quick]" >&2
        exit 2
        ;;
esac

name=$("$python" - <<'PYTHON'
import datetime, re, torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'
print(datetime.date.today(), re.sub(r'\W+', '_', gpu.lower()), sep='_')
PYTHON
)
mkdir -p "$results"
export BNET_MM_KERNELS=triton  # they are off where no GPU has run them
status=0
"$python" tests/kernels/checks.py --device cuda --json "$results/${name}_checks.json" "${quick[@]}" || status=$?
[ "$status" -le 1 ] || exit "$status"
"$python" tools/benchmark.py --device cuda "${measured[@]}" --json > "$results/$name.json.part"
mv "$results/$name.json.part" "$results/$name.json"
echo "$results/$name.json"
exit "$status"
