#!/usr/bin/env bash
# Builds the documentation. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash tools/build_docs.sh [FOLDER]

Builds the pages of docs/ into FOLDER (default: build/docs); a warning of Sphinx fails it. Needs
`pip install 'genseg_mm[docs]'`, which tools/setup_env.sh has done in .venv; no network.
PYTHON names another Python than that of .venv or, where there is none, of PATH.
TEXT
}

case ${1:-} in
    -h | --help) usage; exit ;;
    -*) usage >&2; echo "error: unknown argument '$1'" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
out=${1:-$root/build/docs}
python=${PYTHON:-$root/.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python
"$python" -c 'import furo, myst_parser, sphinx' 2>/dev/null || {
    echo "error: $python has no Sphinx with MyST and Furo: pip install 'genseg_mm[docs]'" >&2
    exit 2
}
# Everything anew: a page of which only an import has changed is otherwise left as it was.
exec "$python" -m sphinx -b html -W --keep-going -q -E -d "$out/.doctrees" "$root/docs" "$out"
