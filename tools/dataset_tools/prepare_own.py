"""Looks at a folder of data of one's own, says what it found, and writes a config that trains on it.

    python tools/dataset_tools/prepare_own.py FOLDER
    python tools/dataset_tools/prepare_own.py FOLDER --model gen2seg-sd2 --out my.py --check

Recognised are COCO's and LVIS's json, folders of id maps, YOLO's polygons (with or without data.yaml), tables of
sentences (jsonl, csv, tsv, parquet), and rows of Hugging Face's datasets; docs/tutorials/own_data.md goes through them.
Where there is no split, training and validation are drawn by the names of the pictures. What is taken for granted is
said, and stands in the config. The exit code is 1 if --check finds a bad file.
"""

import argparse
import os
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from genseg_mm.command import as_typed
from genseg_mm.datasets import LoadInstanceMap
from genseg_mm.datasets.instance_folders import IDS
from genseg_mm.datasets.own_folders import KINDS, OwnData, look_at
from genseg_mm.datasets.own_layouts import known_set, sampled
from genseg_mm.datasets.own_splits import DEFAULT_SHARE
from genseg_mm.datasets.row_masks import MASK_VALUES
from genseg_mm.files import check_new_file, write_text
from genseg_mm.files.image_headers import read_header
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.own_config import MODELS, choose_model, own_config

MAPS_READ = 100  # to count instances; --check reads all
HEADERS_READ = 200
FEW = 3  # bad files that are named


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('folder', help='folder of the data')
    names = '; '.join(f'{task}: {", ".join(own)}' for task, own in MODELS.items())
    parser.add_argument('--model', help=f'name of a config, or one of these (default: the first). {names}')
    parser.add_argument('--out', writes='file', help='config to write (default: ./<name of the folder>.py)')
    parser.add_argument('--weights', help="weights to begin with (default: those that come with the model); 'none'")
    parser.add_argument('--kind', choices=KINDS, help='which of several kinds of data in the folder')
    parser.add_argument(
        '--val-share', type=float, default=DEFAULT_SHARE, help='of a split that is drawn (default: 0.2)'
    )
    parser.add_argument('--ids', choices=IDS, help='what the pixels of id maps mean, where it is not to be found out')
    parser.add_argument('--map-suffix', help='what follows the name of a picture in that of its map, such as _mask.png')
    parser.add_argument('--mask-values', choices=MASK_VALUES, help='what mask files of sentences hold, likewise')
    parser.add_argument('--missing', choices=('error', 'skip'), help='pictures without a map or labels')
    parser.add_argument('--check', action='store_true', help='read every file, as verify_dataset.py does')
    parser.add_argument('--force', action='store_true', help='write over a config that is there')
    args = parser.parse_args()
    if not 0 < args.val_share < 1:
        parser.error(f'argument --val-share: expected a share between 0 and 1, but got {args.val_share}')
    return args


def chosen(args: argparse.Namespace) -> OwnData:
    """The data of the folder.

    Raises:
        ValueError: If there is none that is recognised, or several kinds and none was asked for.
    """
    known = known_set(os.path.abspath(args.folder)) if args.kind is None and os.path.isdir(args.folder) else None
    if known is not None:
        raise ValueError(f'{args.folder}: {known}; --kind ({", ".join(KINDS)}) takes it for data of your own')
    said = dict(ids=args.ids, map_suffix=args.map_suffix, mask_values=args.mask_values)
    found, refused = look_at(args.folder, args.val_share, args.kind, **said)
    if not found:
        why = '; '.join(refused) or (
            "expected a json in COCO's format, folders of pictures and id maps, YOLO's labels, or a table of pictures, "
            'masks and sentences'
        )
        raise ValueError(f'{args.folder}: no data that is recognised: {why}')
    for line in refused:
        print(f'not taken: {line}')
    if len(found) > 1:
        kinds = ', '.join(f'{own.kind} ({os.path.relpath(own.path, args.folder)})' for own in found)
        raise ValueError(f'{args.folder} holds several kinds of data: {kinds}; choose one by --kind')
    (own,) = found
    if args.missing and own.kind != 'referring':
        own.train['missing'] = own.val['missing'] = args.missing
    return own


def describe(name: str, dataset: Any) -> tuple[list[str], int]:
    """Lines on what a dataset holds and what was left out, and how many of its files cannot be read."""
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    pictures = list(dict.fromkeys(item['img_path'] for item in items))
    bad: list[str] = []
    text = f'{name}: {len(pictures)} pictures'
    if 'text' in items[0] or 'sentences' in items[0]:
        masks = {(item['img_path'], item['ref_id']): len(item['sentences']) for item in items}
        text += f', {len(masks)} masks, {sum(masks.values())} sentences'
    elif 'instances' in items[0]:
        counts = [sum(not one['ignore_flag'] for one in item['instances']) for item in items]
        text += f', {_few(counts)} instances ({sum(counts)} in all)'
    else:
        some = sampled(items, MAPS_READ)
        counts = _read(some, _num_ids, bad)
        text += f', {_few(counts)} instances' + (f' ({len(some)} maps read)' if len(some) < len(items) else '')
    sizes = _read(sampled(pictures, HEADERS_READ), _size, bad)
    if sizes:
        (_, *small), (_, *large) = min(sizes), max(sizes)
        text += ', ' + ' to '.join(dict.fromkeys(f'{width}x{height}' for width, height in (small, large)))
    lines = [text, *(f'{name}: cannot be read: {line}' for line in bad[:FEW])]
    lines += [f'{name}: {len(bad) - FEW} more cannot be read; --check names them'] * (len(bad) > FEW)
    left = {key: list(value) for key, value in getattr(dataset, 'skipped', {}).items()}
    left |= {key: list(value) for key, value in getattr(dataset, 'left_out', {}).items()}
    lines += [f'{name}: left out {len(names)}: {reason}, such as {names[0]}' for reason, names in left.items()]
    lines += [
        f'{name}: left out {count} annotations: {reason}' for reason, count in getattr(dataset, 'dropped', {}).items()
    ]
    return lines, len(bad)


def _num_ids(item: dict) -> int:
    ids = LoadInstanceMap()(dict(item))['gt_instance_map']
    return len(np.unique(ids[ids > 0]))


def _read(files: list, read: Callable[[Any], Any], bad: list[str]) -> list:
    """What reading files brings; a line for each that cannot be read."""
    found = []
    for file in files:
        try:
            found.append(read(file))
        except (ValueError, OSError) as error:
            bad.append(' '.join(str(error).split()))
    return found


def _few(counts: list[int]) -> str:
    if not counts:
        return 'no'
    return f'{min(counts)} / {np.median(counts):g} / {max(counts)} (fewest / median / most)'


def _size(path: str) -> tuple[int, int, int]:
    """Pixels, width and height."""
    if '://' in path:
        from mmengine import fileio

        header = read_header(fileio.get(path), path)
    else:
        header = read_header(path, path)
    return header.height * header.width, header.width, header.height


def main() -> None:
    args = parse_args()
    data = chosen(args)
    task = 'referring' if data.kind == 'referring' else 'instance'
    model = choose_model(args.model, task)
    name = re.sub(r'\W+', '_', os.path.basename(os.path.abspath(args.folder))) or 'own'  # MMEngine takes no dots
    out = Path(args.out or f'{name}.py')
    if out.suffix != '.py':
        raise ValueError(f'--out: expected the name of a config that ends with .py, but got {out}')
    check_new_file(out, '--out', args.force)
    print(f'{data.kind}: {data.path}')
    print(*data.notes, sep='\n', end='\n' if data.notes else '')
    # What is missing is left to --check, which names it all.
    lenient = dict(missing='skip') if args.check and task == 'instance' else {}
    datasets = [DATASETS.build({**side, **lenient}) for side in (data.train, dict(data.val, test_mode=True))]
    unreadable = 0
    for side, dataset in zip(('train', 'val'), datasets, strict=True):
        lines, bad = describe(side, dataset)
        unreadable += bad
        print(*lines, sep='\n')
    if unreadable and not args.check:  # which ends so itself, after it has read the rest
        raise ValueError(
            f'{args.folder}: {unreadable} of the files that were looked at cannot be read, see above: mend or remove '
            'them; --check reads all of them'
        )
    weights = None if args.weights == 'none' else args.weights or model.weights
    weights = None if weights is None else os.path.abspath(weights)
    if weights is not None and not os.path.isfile(weights):
        raise FileNotFoundError(f'--weights: there is no file {weights}')
    title = f'{model.name} on {name}: {len(datasets[0])} for training, {len(datasets[1])} for validation.'
    write_text(out, own_config(data, model, len(datasets[0]), title, weights))
    print(f'wrote {out}: {model.config}' + (f' from {os.path.basename(weights)}' if weights else ' from the start'))
    commands = as_typed('\n'.join(_next_commands(out, task)))  # before another tool has the command line
    if args.check:
        verify = runpy.run_path(str(Path(__file__).with_name('verify_dataset.py')))
        sys.argv = ['verify_dataset.py', str(out)]
        try:
            verify['main']()
        except SystemExit as end:
            if end.code:
                raise
    print(commands)


def _next_commands(out: Path, task: str) -> list[str]:
    prompt, metric = ("--texts 'WHAT'", 'oIoU') if task == 'referring' else ('--automatic', 'mIoU')
    config, best = shlex.quote(str(out)), f'work_dirs/{shlex.quote(out.stem)}/best_{metric}_iter_*.pth'
    return [
        'next:',
        f'  python tools/train.py {config}',
        f'  python tools/test.py {config} {best}',
        f'  python tools/image_demo.py PICTURE {config} --weights {best} {prompt}',
    ]


if __name__ == '__main__':
    run_tool(main)
