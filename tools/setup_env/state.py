"""What the environment must be, what is wrong with the one that is there, and whose it is (stdlib only).

Every version comes from `EXTRAS` in setup.py. A stamp in the environment names what it was made for and which files it
must hold, so that a second set-up only looks, and repairs what is broken; set-up changes only what it made itself for
this project. Functions that take no folder are about the environment whose Python runs them.
"""

import csv
import importlib
import json
import os
import runpy
import shutil
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

MARKER = 'genseg_mm.json'  # the stamp, written before anything else
ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_path('purelib'))
STAMP = Path(sys.prefix) / MARKER


def read_stamp(path: Path | None = None) -> dict:
    try:
        return json.loads((path or STAMP).read_text())
    except (OSError, ValueError):  # never finished, or the disk was full
        return {}


def write_stamp(wanted: dict, files: list[str] | None) -> None:
    """Notes what the environment is made for; `files` is None as long as it is not whole."""
    write_marker(STAMP, {**read_stamp(), 'wanted': wanted, 'files': files})


def write_marker(path: Path, facts: dict) -> None:
    """Writes the stamp at once; with the project's name it tells that set-up made the environment."""
    fresh = path.with_suffix('.new')
    fresh.write_text(json.dumps({**facts, 'project': str(ROOT)}, indent=1))
    fresh.replace(path)


def is_own() -> bool:
    """Whether this is .venv of this project, made by set-up; others' environments are only added to."""
    home = ROOT / '.venv'
    return Path(sys.prefix) == home and home.exists() and refusal(home, ROOT) is None


def note_guests() -> None:
    """Notes, once, what was installed in somebody's environment before: that is not ours to remove."""
    stamp = read_stamp()
    if not is_own() and 'foreign' not in stamp:
        there = metadata.distributions(path=[str(SITE)])
        names = {str(own.name).lower().replace('_', '-') for own in there}
        write_marker(STAMP, {'wanted': {}, 'files': None, **stamp, 'foreign': sorted(names)})


def is_foreign(name: str) -> bool:
    """Whether a distribution was there before set-up."""
    return name in read_stamp().get('foreign', ())


def wanted() -> dict:
    """Everything that, when it changes, makes the environment another one."""
    setup = runpy.run_path(str(ROOT / 'setup.py'), run_name='requirements')
    extras = setup['EXTRAS']
    # An environment made with GENSEG_TORCH keeps that torch when a later call does not name it.
    override = os.environ.get('GENSEG_TORCH') or read_stamp().get('wanted', {}).get('override')
    return {
        'python': sys.version,
        'prefix': sys.prefix,
        'project': str(ROOT),
        'version of genseg_mm': setup['version'](),  # its metadata and the command genseg are written by an install
        'override': override,
        'torch': override or extras['torch'][0],
        'build': extras['build'],
        'mmcv': next(line for line in extras['mm'] if line.startswith('onedl-mmcv')),
        'opencv': next(line for line in extras['mm'] if line.startswith('opencv')),
        'packages': [line for name in setup['TESTED'] for line in extras[name] if 'mmcv' not in line],
    }


def inventory() -> list[str]:
    """The record and the top-level entries of every installed distribution."""
    entries = set()
    for record in SITE.glob('*.dist-info/RECORD'):
        with record.open(newline='') as rows:
            entries |= {row[0].split('/')[0] for row in csv.reader(rows)}
        entries.add(f'{record.parent.name}/RECORD')
    return sorted(entries - {'..', '__pycache__'})


def first_defect() -> str | None:
    """Why this is not the wanted environment, or None. Cheap enough for every call."""
    stamp = read_stamp()
    if not stamp.get('files'):
        return 'no set-up was finished in it'
    for name, value in wanted().items():
        if stamp['wanted'].get(name) != value:
            return f'another {name} is wanted'
    for entry in stamp['files']:
        if not (SITE / entry).exists():
            return f'{entry} is missing'
    if has_second_opencv():
        return 'opencv-python was installed over the headless build'
    return None


def has_second_opencv() -> bool:
    """Whether the build with windows, if it is not the user's own, lies over the headless one."""
    if is_foreign('opencv-python'):
        return False
    return next(SITE.glob('opencv_python-*.dist-info'), None) is not None


def missing(requirements: list[str]) -> list[str]:
    """Those requirements, and those of what they need, that the installed versions do not meet."""
    from pip._vendor.packaging.requirements import InvalidRequirement, Requirement

    importlib.invalidate_caches()
    left, seen, open_ends = [], set(), [(text, '') for text in requirements]
    while open_ends:
        text, extra = open_ends.pop()
        try:
            wish = Requirement(text)
            if wish.name == 'opencv-python':  # the headless build stands in for it
                continue
            if wish.marker and not wish.marker.evaluate({'extra': extra}):
                continue
            found = metadata.distribution(wish.name)
        except (InvalidRequirement, metadata.PackageNotFoundError):
            left.append(text)
            continue
        if not wish.specifier.contains(found.version, prereleases=True):
            left.append(text)
        for wish_extra in {'', *wish.extras}:
            if (wish.name.lower(), wish_extra) not in seen:
                seen.add((wish.name.lower(), wish_extra))
                open_ends += [(line, wish_extra) for line in found.requires or ()]
    return left


def is_complete(folder: Path) -> bool:
    """Whether all files of a distribution, given as its .dist-info folder, have their full size."""
    if not (folder / 'RECORD').is_file():
        return False
    with (folder / 'RECORD').open(newline='') as rows:
        for path, _, size in csv.reader(rows):
            if path.endswith('.pyc'):
                continue
            try:
                found = (folder.parent / path).stat().st_size
            except OSError:
                return False
            if size and int(size) != found:
                return False
    return True


def forget_incomplete() -> list[str]:
    """Removes the metadata of distributions with missing or cut files, so that pip installs them.

    For pip a distribution is installed as soon as its metadata lies there, even if it was killed
    half-way. OpenCV is judged elsewhere: its two builds share their files.
    """
    names = []
    for leftover in SITE.glob('~*'):  # what pip had moved aside when it was killed
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for folder in sorted(SITE.glob('*.dist-info')):
        if not folder.name.startswith('opencv') and not is_complete(folder):
            names.append(folder.name.removesuffix('.dist-info'))
            shutil.rmtree(folder)
    return names


def torch_version() -> str:
    """With the local part, such as 2.13.0+cpu."""
    return metadata.version('torch')


def mmcv_source() -> str:
    """Where the installed mmcv came from: the path of the kept wheel, '' if it is unknown."""
    try:
        facts = metadata.distribution('onedl-mmcv').read_text('direct_url.json')
    except metadata.PackageNotFoundError:
        return ''
    return unquote(json.loads(facts)['url']) if facts else ''


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
