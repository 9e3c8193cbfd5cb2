#!/usr/bin/env bash
# Test through slurm.
#
# usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
#
# Environment: GPUS (8, in all), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS, MASTER_PORT, PYTHON.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

[ $# -ge 4 ] || usage
run_slurm "$1" "$2" "$TOOLS/test.py" "$3" "$4" --launcher slurm "${@:5}"
