#!/usr/bin/env bash
# Sets up, trains GenMask-tiny and gen2seg-tiny on procedural scenes, evaluates both on held-out scenes, and prints a table.
# Writes work_dirs/quickstart/report.json and a picture grid of each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
exec .venv/bin/python tools/quickstart.py "$@"
