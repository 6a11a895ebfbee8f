#!/usr/bin/env bash
# Tests on several GPUs of one machine, or of NNODES machines:
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [test.py's options]
set -eu
config=$1 checkpoint=$2 gpus=$3
shift 3
exec python -m torch.distributed.run \
  --nnodes="${NNODES:-1}" \
  --node_rank="${NODE_RANK:-0}" \
  --nproc_per_node="$gpus" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" \
  --master_port="${PORT:-29500}" \
  "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
