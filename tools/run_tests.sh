#!/usr/bin/env bash
# Sets up, lints and tests. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash tools/run_tests.sh [--slow | --all] [--active] [ARGUMENT OF PYTEST ...]

Sets up the environment (tools/setup_env.sh), runs `ruff check .` and `ruff format --diff .`, then pytest.

  --slow     also the tests marked slow (the default where CI=true is set)
  --all      also those marked slow and gpu
  --active   use the environment of the `python` on PATH instead of .venv

Everything else goes to pytest, for example: tests/models -k codec -x
TEXT
}

select='not slow and not gpu'
[ "${CI:-}" != true ] || select='not gpu'
setup=()
pytest=()
for argument in "$@"; do
    case $argument in
        --slow) select='not gpu' ;;
        --all) select='' ;;
        --active) setup=(--active) ;;
        -h | --help) usage; exit ;;
        *) pytest+=("$argument") ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh "${setup[@]}"
python=.venv/bin/python
[ ${#setup[@]} -eq 0 ] || python=python

echo 'lint: ruff check . and ruff format --check .'
"$python" -m ruff check --output-format concise .
"$python" -m ruff format --quiet --diff .

# The tests need no network, and one thread each is faster than all of them fighting for the cores.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
unset PYTHONDONTWRITEBYTECODE  # each of the many processes would compile the package anew
# Arguments that name tests mean a few of them: starting workers would take longer than they do.
if [ ${#pytest[@]} -eq 0 ]; then
    cores=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 1)  # nproc takes OMP_NUM_THREADS for the number of cores
    pytest=(-n "$((cores < 8 ? cores : 8))" --dist worksteal)
fi
echo "tests: pytest -m '$select' ${pytest[*]}"
[ "${CI:-}" != true ] || pytest+=(--durations=40)  # what to make faster
exec "$python" -m pytest -m "$select" "${pytest[@]}"
