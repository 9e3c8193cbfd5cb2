"""Whose an environment is: set-up changes only what it made itself for this project (stdlib only)."""

import json
import shutil
import sysconfig
from pathlib import Path

MARKER = 'genseg_mm.json'  # the stamp of state.py, written before anything else


def refusal(home: Path, root: Path) -> str | None:
    """Why set-up must leave what lies at `home` alone, and what to do; None if it may work there.

    Args:
        home: The place of the environment; nothing there, and an empty folder, are free to use.
        root: The project.
    """
    remedy = 'move it away, or activate the environment of your choice and call with --active'
    if home.is_symlink():
        return (
            f'{home} is a link, and set-up works only on a folder of its own, never through a link; '
            f'remove the link (rm {home}), {remedy.partition(", ")[2]}'
        )
    if not home.exists():
        return None
    if not home.is_dir():
        return f'{home} is a file, but expected a folder or nothing; {remedy}'
    if not any(home.iterdir()):
        return None
    owner = made_for(home)
    if owner is None:
        return f'{home} is {kind_of(home)} that set-up did not make (no {MARKER} in it); {remedy}'
    if owner != str(root):
        return (
            f'{home} was made for the project in {owner}, not for {root}; if it is of no use any '
            f'more (a moved or copied project): rm -r {home}, then call tools/setup_env.sh again'
        )
    return _leads_out(home)


def made_for(home: Path) -> str | None:
    """The project that set-up made this environment for, None if it did not make it."""
    try:
        stamp = json.loads((home / MARKER).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(stamp, dict):
        return None
    wanted = stamp.get('wanted')
    return stamp.get('project') or (wanted.get('project') if isinstance(wanted, dict) else None)


def is_of_another_project(home: Path, root: Path) -> str | None:
    """The other project whose own .venv this is, if it is one."""
    owner = made_for(home)
    if owner in (None, str(root)) or Path(owner, '.venv').resolve() != home.resolve():
        return None
    return owner


def kind_of(home: Path) -> str:
    """What a folder is, for messages."""
    if (home / 'conda-meta').is_dir():
        return 'a conda environment'
    return 'an environment' if (home / 'pyvenv.cfg').exists() else 'a folder'


def clear(home: Path) -> None:
    """Empties an environment of our own, all but its marker, so that it stays ours if killed now."""
    for entry in home.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()


def _leads_out(home: Path) -> str | None:
    """Whether a folder in it, that packages are written to, is a link to somewhere else."""
    site = sysconfig.get_path('purelib', vars={'base': str(home)})
    for place in (home / 'bin', home / 'lib', *home.glob('lib/python*'), Path(site)):
        if place.exists() and not place.resolve().is_relative_to(home.resolve()):
            return (
                f'{place} is a link to {place.resolve()}, outside of the environment; remove '
                f'{home}, then call tools/setup_env.sh again'
            )
    return None
