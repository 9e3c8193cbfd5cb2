"""Lets a vision-language model write a refined description for every text of a config's datasets.

    python tools/dataset_tools/write_descriptions.py CONFIG OUT.json [--split val test]

The first stage of GenMask's reasoning segmentation. CONFIG names the model in ``description_writer``, e.g.
``dict(type='genseg_mm.DescriptionWriter', model=dict(...), processor=...)``. The second stage reads OUT.json with the
transform ``dict(type='genseg_mm.UseDescriptions', file='OUT.json')`` before ``TextPrompt``. Run again, it goes on where
it stopped; with another model or template it refuses to mix. Datasets that draw a text at each access are
described with all of them; samples of the task 'image' need no description and are left out.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.utils import ProgressBar

from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.datasets.cached_encodings import with_all_texts
from genseg_mm.datasets.transforms.images import LoadImage
from genseg_mm.datasets.transforms.referring import DescriptionFile, picture_name
from genseg_mm.files.write_lock import WriteLock
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.config import CfgOptions
from genseg_mm.launch.dataset_parts import SPLITS, dataset_parts
from genseg_mm.registry import MODELS

SECONDS_BETWEEN_SAVES = 10


def wanted(dataset: Any, name: str, files: dict[str, str] | None = None) -> tuple[dict[tuple[str, str], int], int]:
    """What a dataset needs descriptions of.

    Args:
        dataset: Of all texts.
        name: Its name.
        files: The file that each picture's name stands for in the datasets before; added to.

    Returns:
        An item's index by (picture, text), and the number of items left out because they generate images.

    Raises:
        ValueError: If an item has no text, or two pictures have one name.
    """
    pairs: dict[tuple[str, str], int] = {}
    files = {} if files is None else files
    num_images = 0
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        if item.get('task', 'mask') == 'image':
            num_images += 1
            continue
        text, picture = item.get('text'), picture_name(item)
        if not isinstance(text, str):
            raise ValueError(
                f"{name}, item {index}: expected a string 'text', but got {text!r}; descriptions are for datasets "
                'of expressions or questions'
            )
        path = os.path.realpath(item.get('img_path') or '')
        if files.setdefault(picture, path) != path:
            raise ValueError(
                f'{name}: {path} and {files[picture]} are two pictures, but the descriptions of both would stand under '
                f'{picture!r}: describe the datasets into files of their own (--split)'
            )
        pairs.setdefault((picture, text), index)
    return pairs, num_images


def pictures(dataset: Any, indices: list[int]) -> Iterator[np.ndarray]:
    """BGR pictures of items, each decoded once where items of one picture follow each other."""
    load, last = LoadImage(), (None, None)
    for index in indices:
        item = dataset.get_data_info(index)
        path = item.get('img_path')
        if 'img' in item:
            yield item['img']
            continue
        if last[0] != path:
            last = path, load(item)['img']
        yield last[1]


def write(dataset: Any, pairs: dict[tuple[str, str], int], writer: Any, file: DescriptionFile) -> None:
    """Writes the missing descriptions of a dataset; what is done stays in the file whatever happens."""
    open_pairs = [(pair, index) for pair, index in pairs.items() if file.get(*pair) is None]
    if not open_pairs:
        return
    shown = pictures(dataset, [index for _, index in open_pairs])
    bar = ProgressBar(len(open_pairs), file=sys.stderr)
    saved = time.monotonic()
    try:
        for start in range(0, len(open_pairs), writer.batch_size):
            keys = [pair for pair, _ in open_pairs[start : start + writer.batch_size]]
            images = [next(shown) for _ in keys]
            descriptions = writer(images, [text for _, text in keys])
            for (picture, text), description in zip(keys, descriptions, strict=True):
                file.add(picture, text, description)
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                file.save()
                saved = time.monotonic()
            bar.update(len(keys))
    finally:
        file.save()
        print(file=sys.stderr)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('config', help='config with description_writer and dataloaders')
    parser.add_argument('out', writes='file', help='file of descriptions, .json')
    parser.add_argument('--split', nargs='+', choices=SPLITS, default=SPLITS, help='default: all')
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where the model runs (default: %(default)s)',
    )
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='override settings')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_dataset_config(args.config, args.cfg_options)
    if cfg.get('description_writer') is None:
        raise ValueError(
            f"{args.config} has no description_writer: expected dict(type='genseg_mm.DescriptionWriter', model=dict("
            "type='transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained', ...), processor=...)"
        )
    parts = dataset_parts(cfg, tuple(args.split))
    advice = 'wait for it, end it, or choose another OUT.json'
    WriteLock(args.out, advice, folder=False, reentrant=True)
    writer = MODELS.build(cfg.description_writer).to(args.device)
    file = DescriptionFile.resume(args.out, writer.settings())
    known = len(file)
    if known:
        print(f'{args.out}: {known} descriptions are there already')
    files: dict[str, str] = {}
    for part in parts:
        # Without its transforms: UseDescriptions may wait there for the very file that is to be written.
        dataset = with_all_texts({**part.cfg, 'pipeline': []})
        pairs, num_images = wanted(dataset, part.name, files)
        missing = sum(file.get(*pair) is None for pair in pairs)
        left_out = f', {num_images} items of the task image left out' if num_images else ''
        print(f'{part.name}: {len(pairs)} texts, {missing} to describe{left_out}')
        write(dataset, pairs, writer, file)
    empty = f'; {writer.num_empty} texts kept: no answer' if writer.num_empty else ''
    print(f'{args.out}: {len(file)} descriptions, {len(file) - known} of them new{empty}')


if __name__ == '__main__':
    run_tool(main)
