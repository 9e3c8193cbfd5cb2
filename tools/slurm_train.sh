#!/usr/bin/env bash
# Train through slurm.
#
# usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
#
# Environment: GPUS (8, in all), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS, MASTER_PORT, PYTHON.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

[ $# -ge 3 ] || usage
run_slurm "$1" "$2" "$TOOLS/train.py" "$3" --launcher slurm "${@:4}"
