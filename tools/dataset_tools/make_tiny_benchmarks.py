"""Writes tiny copies of every evaluation dataset into one folder, as configs/_base_/benchmarks/ expect them.

    python tools/dataset_tools/make_tiny_benchmarks.py work_dirs/tiny_data
    python tools/dataset_tools/make_tiny_benchmarks.py work_dirs/tiny_data --folders egohos pidray    # these only
    GENSEG_DATA=work_dirs/tiny_data python tools/dataset_tools/verify_dataset.py configs/_base_/benchmarks/dram.py

coco/ (COCO, RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, captions), ReasonSeg/, DRAM_processed/, egohos/, ishape_dataset/,
pidray/, BSDS500/ and image_text/. The folder appears only when it is complete. One that this tool has written stays as
it is, or is written again where the tools have changed since; any other is left alone, with an error.
"""

import hashlib
import json
import os
import runpy
from collections.abc import Sequence
from pathlib import Path

from genseg_mm.files import read_json
from genseg_mm.files.whole_files import scratch_folder
from genseg_mm.launch import ToolParser, run_tool

# name of the maker -> subfolder that it writes into
MAKERS = dict(
    captions='',  # first: RefCOCO's pictures replace its own of the same name
    grefcoco='coco',  # and RefCOCO
    coco='coco',
    reasonseg='',
    dram='DRAM_processed',
    egohos='egohos',
    ishape='ishape_dataset',
    pidray='pidray',
    bsds500='BSDS500',
)
# folder -> makers that write into it
FOLDERS = {
    'coco': ('captions', 'grefcoco', 'coco'),
    'image_text': ('captions',),
    'ReasonSeg': ('reasonseg',),
    **{folder: (name,) for name, folder in MAKERS.items() if folder not in ('', 'coco')},
}
MARK = 'tiny_benchmarks.json'
_FOLDER = Path(__file__).resolve().parent


def make_tiny_benchmarks(data_root: str | Path, folders: Sequence[str] | None = None) -> bool:
    """Writes tiny evaluation datasets.

    Args:
        data_root: Folder for GENSEG_DATA; made if it does not exist.
        folders: Which of ``FOLDERS`` are needed beside those that are there; all by default.

    Returns:
        Whether anything was written; False if the folder was up to date.

    Raises:
        ValueError: If the folder has something in it that is not from here, or a name is unknown.
    """
    data_root = Path(os.path.abspath(data_root))
    unknown = sorted(set(folders or ()) - set(FOLDERS))
    if unknown:
        raise ValueError(f'folders must be of {", ".join(FOLDERS)}, but got {unknown[0]!r}')
    wanted = {name for folder in folders or FOLDERS for name in FOLDERS[folder]}
    version = _version()
    there = set(_makers(data_root))
    if _written(data_root) == version and wanted <= there:
        return False
    wanted |= there
    if data_root.exists() and not data_root.is_dir():
        raise ValueError(f'expected a folder to write into, but got the file {data_root}')
    if data_root.is_dir() and any(data_root.iterdir()) and _written(data_root) is None:
        raise ValueError(
            f'{data_root} is not empty and was not written by make_tiny_benchmarks.py: nothing is changed there; name '
            'another folder'
        )
    with scratch_folder(data_root) as folder:
        new, old = Path(folder, 'new'), Path(folder, 'old')
        makers = {name: subfolder for name, subfolder in MAKERS.items() if name in wanted}
        for name, subfolder in makers.items():
            maker = runpy.run_path(str(_FOLDER / f'make_tiny_{name}.py'))
            maker[f'make_tiny_{name}'](new / subfolder)
        (new / MARK).write_text(json.dumps(dict(version=version, makers=list(makers))))
        return _put(new, data_root, old)


def _put(new: Path, data_root: Path, old: Path) -> bool:
    """Moves a whole folder to its place; what was there goes to ``old``."""
    if data_root.exists():
        os.rename(data_root, old)
    try:
        os.rename(new, data_root)
    except OSError:
        if _written(data_root) == _written(new):  # another process was faster
            return False
        raise
    return True


def _version() -> str:
    """Changes with the source of any maker."""
    digest = hashlib.sha256()
    for path in sorted([*(_FOLDER / f'make_tiny_{name}.py' for name in MAKERS), Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _written(data_root: Path) -> str | None:
    """Version that a folder was written by, None if not from here."""
    try:
        return read_json(data_root / MARK)['version']
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{data_root / MARK} is damaged ({error}): delete {data_root}') from error


def _makers(data_root: Path) -> list[str]:
    """Makers whose data a folder of this tool holds."""
    if _written(data_root) is None:
        return []
    return json.loads((data_root / MARK).read_text()).get('makers', list(MAKERS))


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA')
    parser.add_argument('--folders', nargs='+', metavar='NAME', help=f'these only, of {", ".join(FOLDERS)}')
    args = parser.parse_args()
    written = make_tiny_benchmarks(args.out, args.folders)
    print(f'wrote {args.out}' if written else f'{args.out} is up to date')


if __name__ == '__main__':
    run_tool(main)
