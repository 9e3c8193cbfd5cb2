# Sourced by dist_*.sh and slurm_*.sh: which Python, how many threads, how to start the processes.

TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# $PYTHON, else the active environment, else the project's .venv, else whatever python there is.
if [ -z "${PYTHON:-}" ]; then
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$TOOLS/../.venv/bin/python" ]; then
        PYTHON="$TOOLS/../.venv/bin/python"
    else
        PYTHON=python
    fi
fi

# How the script was called: a training that is stopped says how to go on.
GENSEG_COMMAND="$(printf '%q ' "$0" "$@")"
export GENSEG_COMMAND

# Prints the comment at the top of the calling script and ends it.
usage() {
    sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

is_count() {
    case "$1" in '' | *[!0-9]* | 0) return 1 ;; esac
}

# Without a GPU the processes share the cores; torchrun would give each a single thread.
share_cores() {
    if [ -z "${OMP_NUM_THREADS:-}" ] && ! { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then
        local cores
        cores="$(getconf _NPROCESSORS_ONLN)"
        export OMP_NUM_THREADS=$((cores > $1 ? cores / $1 : 1))
        export MKL_NUM_THREADS="${MKL_NUM_THREADS:-$OMP_NUM_THREADS}"
    fi
}

# torchrun: GPUS SCRIPT [args]. PORT is needed on several nodes; on one, a free port is taken.
# Several nodes that are to be started again together (MAX_RESTARTS) meet through a store on the first of them.
run_distributed() {
    local gpus="$1"
    shift
    share_cores "$gpus"
    local where=(--standalone) restarts="${MAX_RESTARTS:-0}" rank="${NODE_RANK:-0}"
    # Else the processes of a second start find the addresses of the first ones in the store that they share.
    [ "$restarts" = 0 ] || export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    if [ "${NNODES:-1}" != 1 ] && [ "$restarts" != 0 ]; then
        where=(
            --nnodes="$NNODES" --rdzv_backend=c10d --rdzv_id="${RDZV_ID:-genseg}"
            --rdzv_endpoint="${MASTER_ADDR:?the address of the first node}:${PORT:-29500}"
            --rdzv_conf="is_host=$([ "$rank" = 0 ] && echo 1 || echo 0)" ${LOCAL_ADDR:+--local_addr="$LOCAL_ADDR"}
        )
    elif [ "${NNODES:-1}" != 1 ] || [ -n "${PORT:-}" ]; then
        where=(
            --nnodes="${NNODES:-1}" --node_rank="$rank"
            --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}"
        )
    fi
    exec "$PYTHON" "$TOOLS/torchrun.py" "${where[@]}" --nproc_per_node="$gpus" \
        --max_restarts="$restarts" "$@"
}

# srun: PARTITION JOB_NAME SCRIPT [args].
run_slurm() {
    local gpus="${GPUS:-8}" per_node="${GPUS_PER_NODE:-8}"
    # shellcheck disable=SC2086  # SRUN_ARGS is a list of options
    exec srun -p "$1" --job-name="$2" --gres="gpu:$((gpus < per_node ? gpus : per_node))" \
        --ntasks="$gpus" --ntasks-per-node="$((gpus < per_node ? gpus : per_node))" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "$PYTHON" -u "${@:3}"
}
