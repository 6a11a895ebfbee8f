#!/usr/bin/env bash
# Tests on several GPUs of one machine, or of NNODES machines:
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [test.py's options]
set -eu
config=$1 checkpoint=$2 gpus=$3
shift 3
here=$(dirname "$0")
exec "$here/torchrun.sh" "$gpus" "$here/test.py" "$config" "$checkpoint" "$@"
