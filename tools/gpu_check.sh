#!/usr/bin/env bash
# Does this machine train what the configs promise, and how fast? Under 8 minutes on one card; nothing is downloaded.
#
# usage: bash tools/gpu_check.sh [options of tools/analysis_tools/gpu_check.py]
#
# Tests marked gpu, bfloat16 and compile parity, loss kernel, prompting, full-size Wan2.1 1.3B and Stable Diffusion 2
# training steps (random weights), FSDP2 on all cards. A table, and JSON in work_dirs/gpu_check.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

case "${1:-}" in -h) set -- --help "${@:2}" ;; esac
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
exec "$PYTHON" "$TOOLS/analysis_tools/gpu_check.py" "$@"
