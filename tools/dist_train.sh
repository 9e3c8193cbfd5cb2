#!/usr/bin/env bash
# Train with several processes on one machine (or on NNODES machines).
#
# usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
#
# GPUS is the number of processes here; without a GPU they run on the CPU.
# Environment: NNODES NODE_RANK MASTER_ADDR PORT (several machines), MAX_RESTARTS (starts again after a failure;
# on several machines LOCAL_ADDR, where the own host name is not known to the others), OMP_NUM_THREADS, PYTHON.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

[ $# -ge 2 ] && is_count "$2" || usage
run_distributed "$2" "$TOOLS/train.py" "$1" --launcher pytorch "${@:3}"
