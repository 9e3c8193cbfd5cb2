#!/usr/bin/env bash
# Makes, checks or repairs the environment of genseg_mm. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash tools/setup_env.sh [--active] [--objects] [--help]

Makes .venv at the project root with everything that genseg_mm, its tests and its tools need, and
installs the project into it (editable). A second call only checks, and repairs what is broken.
A .venv that it did not make itself for this project, or a link, is left alone.

  --active   add to the environment of the `python` on PATH instead of making .venv; of what was
             there before, nothing is removed
  --objects  also fetch the pictures of objects for ObjectScenesDataset (15 MB; 120 MB unpacked) and
             MiniLM, which reads sentences about them (83 MB), into the cache; without a network
             this says so in one line, and nothing else needs them

environment variables:
  GENSEG_PYTHON    the Python for a new .venv (3.11 or newer; default: the first on PATH)
  GENSEG_TORCH     what to install for torch instead of the pin in setup.py, options of pip
                   included; kept by later calls. Example:
                   GENSEG_TORCH='torch==2.13.0 --index-url URL-OF-AN-INDEX'
  XDG_CACHE_HOME   keeps the compiled mmcv in genseg_mm/wheels, the objects in genseg_mm/objects and
                   MiniLM in genseg_mm/packages (default: ~/.cache)
  MAX_JOBS         parallel compilers (default: one per core)
  FORCE_CUDA=1     compile mmcv's operators for CUDA on a machine that shows no GPU
TEXT
}

fail() {
    echo "error: $*" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Sets `python` to the first Python of 3.11 or newer that can make environments.
find_python() {
    local candidate path seen=''
    local candidates=(python3 python python3.11 python3.12 python3.13 python3.14)
    [ -z "${GENSEG_PYTHON:-}" ] || candidates=("$GENSEG_PYTHON")
    for candidate in "${candidates[@]}"; do
        path=$(command -v "$candidate") || continue
        if ! new_enough "$path"; then
            seen+="${seen:+, }$path ($("$path" --version 2>&1 || true))"
        elif ! "$path" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            seen+="${seen:+, }$path (without venv; Debian/Ubuntu: apt-get install python3-venv)"
        else
            python=$path
            return
        fi
    done
    fail "genseg_mm needs Python 3.11 or newer, with venv, but found ${seen:-none of ${candidates[*]}};" \
        "install one (Debian/Ubuntu: apt-get install python3.11 python3.11-venv python3.11-dev)" \
        "or set GENSEG_PYTHON=/path/to/python, then call tools/setup_env.sh again"
}

# Fetches the objects with the environment's Python; a machine without a network goes on without them.
get_objects() {
    [ -n "$objects" ] || return 0
    local said
    if said=$("$1" "$root/tools/dataset_tools/prepare_objects.py" --sentence-encoder 2>&1); then
        echo "objects: ${said//$'\n'/; }"
    else
        echo "objects: not whole, scenes of shapes go on without them (${said##*$'\n'})"
    fi
}

active='' objects=''
for argument in "$@"; do
    case $argument in
        --active) active=1 ;;
        --objects) objects=1 ;;
        -h | --help) usage; exit ;;
        *) usage >&2; fail "unknown argument '$argument'" ;;
    esac
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=${here%/*}
# Through a link, the environment of another project would be set up.
called=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
[ "$called" = "$root" ] || fail "$called/tools is a link to $here; call $here/setup_env.sh for the environment of" \
    "$root, or replace the link by a folder"
python=$root/.venv/bin/python
if [ -z "$active" ] && [ -L "$root/.venv" ]; then
    fail "$root/.venv is a link, and set-up works only on a folder of its own, never through a link; remove the" \
        "link (rm $root/.venv), or activate the environment of your choice and call with --active"
fi
if [ -n "$active" ]; then
    python=$(command -v python) || fail '--active needs python on PATH; activate an environment first'
    new_enough "$python" || fail "--active needs Python 3.11 or newer, but $python is $("$python" --version 2>&1)"
fi

start=exec
[ -z "$objects" ] || start=
if [ -x "$python" ] && "$python" -Es "$here/setup_env" --check; then
    echo "environment: ${python%/bin/*} is whole"
elif [ -n "$active" ]; then
    $start "$python" -Es "$here/setup_env" --fill
else
    echo "environment: setting up $root/.venv"
    find_python
    $start "$python" -Es "$here/setup_env" --make
    python=$root/.venv/bin/python
fi
get_objects "$python"
