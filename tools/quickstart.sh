#!/usr/bin/env bash
# Sets up, draws what the shipped tiny models predict, evaluates them on scenes of recognisable objects (on shapes
# where their pictures cannot be fetched), trains GenMask-tiny and gen2seg-tiny anew and evaluates them on held-out
# ones, and prints a table. Writes work_dirs/quickstart/report.json and a picture grid of each. --help: options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh --objects
exec .venv/bin/python tools/quickstart.py "$@"
