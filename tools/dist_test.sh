#!/usr/bin/env bash
# Test with several processes on one machine (or on NNODES machines).
#
# usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
#
# GPUS is the number of processes here; without a GPU they run on the CPU.
# Environment: NNODES NODE_RANK MASTER_ADDR PORT (several machines), MAX_RESTARTS (starts again after a failure;
# on several machines LOCAL_ADDR, where the own host name is not known to the others), OMP_NUM_THREADS, PYTHON.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

[ $# -ge 3 ] && is_count "$3" || usage
run_distributed "$3" "$TOOLS/test.py" "$1" "$2" --launcher pytorch "${@:4}"
