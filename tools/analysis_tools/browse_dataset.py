"""Draws the items of the datasets of a config to PNG files, without a display.

    python tools/analysis_tools/browse_dataset.py CONFIG [--split train] [--num 16] [--stage raw]

    python tools/analysis_tools/browse_dataset.py configs/benchmarks/tiny.py --benchmark dram bsds500

Each row shows the image (with point and box prompts, where the item has them), the ground truth over it with outlines,
and the instances in flat colours; below it stand the file, the text and the number of instances. Boundaries of several
annotators are yellow where one has drawn them and red where all have; beside it black on white. ``--stage pipeline``
shows what the model gets, ``--stage raw`` what the files hold. Benchmarks are drawn at their original size: the size
of the input is that of a model.
"""

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from genseg_mm import pictures
from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.datasets.segmentations import decode_segmentation
from genseg_mm.launch import ToolParser, run_tool, user_message
from genseg_mm.launch.config import CfgOptions
from genseg_mm.launch.dataset_parts import SPLITS, RawLoader, dataset_parts

COLUMNS = ('image', 'ground truth', 'instances', 'annotators')
STAGES = ('pipeline', 'raw')


def unpack(data: dict) -> dict:
    """A sample, packed (by PackGenSegInputs, PackSegInputs, PackDetInputs) or not, as numpy arrays.

    Returns:
        ``img`` BGR (H, W, 3) and, where present, ``ids`` (H, W), ``labels`` (H, W), ``masks`` (K, H, W) bool,
        ``boundaries`` (N, H, W) and ``meta``, the other keys.
    """
    if 'inputs' not in data:
        found = dict(img=data['img'], meta=data)
        found.update(ids=data.get('gt_instance_map'), labels=data.get('gt_seg_map'))
        found['boundaries'] = data.get('gt_boundaries')
        masks = data.get('gt_masks')
        ignored = data.get('gt_ignore_flags')
        found['masks'] = None if masks is None else masks.to_ndarray().astype(bool)
        if masks is not None and ignored is not None:
            found['masks'] = found['masks'][~ignored]
        return found
    sample = data['data_samples']
    found = dict(img=data['inputs'].numpy().transpose(1, 2, 0), meta=sample.metainfo)
    for name, key in (('ids', 'gt_instance_map'), ('labels', 'gt_sem_seg')):
        found[name] = sample.get(key).data[0].numpy() if key in sample else None
    found['boundaries'] = None
    if 'gt_boundaries' in sample:
        found['boundaries'] = sample.gt_boundaries.data.numpy()
    masks = sample.gt_instances.get('masks') if 'gt_instances' in sample else None
    found['masks'] = None if masks is None else masks.to_ndarray().astype(bool)
    if all(found[key] is None for key in ('ids', 'labels', 'masks', 'boundaries')):
        found['masks'] = _annotated(found['meta'])
    return found


def _annotated(meta: dict) -> np.ndarray | None:
    """Masks (K, H, W) of the annotations that an item carries for a metric, without those to ignore."""
    own = [one for one in meta.get('instances') or () if one.get('mask')]
    kept = [one['mask'] for one in own if not one.get('ignore_flag')]
    if not own:
        return None
    height, width = meta['ori_shape'][:2]
    masks = [decode_segmentation(one, height, width, meta.get('img_path', '?')) for one in kept]
    return np.stack(masks) if masks else np.zeros((0, height, width), bool)


def draw(found: dict, panel_size: int) -> dict[str, np.ndarray]:
    """Column title -> RGB picture of what :func:`unpack` found; the longer side has ``panel_size`` pixels."""
    image = np.clip(found['img'], 0, 255).astype(np.uint8)[..., ::-1]
    height, width = image.shape[:2]
    scale = panel_size / max(height, width)
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    image = pictures.fit(np.ascontiguousarray(image), size)
    row = {'image': _with_prompts(image, found['meta'], (height, width))}
    if found['ids'] is not None:
        ids = pictures.fit(found['ids'].astype(np.int32), size)
        # Colours by the ids of the whole map: an object lost in a small panel must not shift those of others.
        numbers = {own: place for place, own in enumerate(_instances(found['ids']))}
        masks = [ids == own for own in numbers]
        colors = [pictures.color_of(place) for place in numbers.values()]
        row['ground truth'] = pictures.overlay_masks(image, masks, colors)
        row['instances'] = _flat(masks, colors, size)
    elif found['masks'] is not None:
        masks = [pictures.fit(mask.astype(np.uint8), size) > 0 for mask in found['masks']]
        colors = [pictures.color_of(place) for place in range(len(masks))]
        row['ground truth'] = pictures.overlay_masks(image, masks, colors)
        row['instances'] = _flat(masks, colors, size)
    elif found['labels'] is not None:
        labels = pictures.fit(found['labels'].astype(np.int32), size)
        row['ground truth'] = pictures.overlay_labels(image, labels)
    elif found['boundaries'] is not None:
        row.update(_boundaries(image, found['boundaries']))
    return row


def _with_prompts(image: np.ndarray, meta: dict, shape: tuple[int, int]) -> np.ndarray:
    """The picture with the prompts that are in pixels of the original (of ``shape``, if the item has no other)."""
    original = tuple(meta.get('ori_shape', shape))[:2]
    zoom = image.shape[1] / original[1], image.shape[0] / original[0]
    boxes = meta.get('boxes')
    if boxes is not None and len(boxes):
        image = image.copy()
        for number, (x0, y0, x1, y1) in enumerate(np.asarray(boxes, dtype=np.float64)):
            # Right and bottom are exclusive.
            corners = [round(x0 * zoom[0]), round(y0 * zoom[1])]
            corners += [round(x1 * zoom[0]) - 1, round(y1 * zoom[1]) - 1]
            cv2.rectangle(image, corners[:2], corners[2:], pictures.color_of(number), 1)
    points = meta.get('points')
    if points is None or not len(points):
        return image
    points = np.asarray(points, dtype=np.float64).reshape(len(points), -1, 2)
    labels = np.asarray(meta.get('point_labels', np.ones(points.shape[:2])))
    return pictures.draw_points(image, points, labels.reshape(points.shape[:2]), zoom)


def _boundaries(image: np.ndarray, boundaries: np.ndarray) -> dict[str, np.ndarray]:
    """Boundaries (N, H, W) of N annotators over the picture, and alone."""
    height, width = image.shape[:2]
    drawn = []
    for own in boundaries:
        # A line of one pixel must neither vanish from a smaller picture nor spread.
        smaller = own.shape[0] > height
        mode = cv2.INTER_AREA if smaller else cv2.INTER_NEAREST_EXACT
        fitted = cv2.resize(own.astype(np.float32), (width, height), interpolation=mode)
        drawn.append(fitted > (0.5 * height / own.shape[0] if smaller else 0.5))
    share = np.mean(drawn, axis=0)[..., None]  # (H, W, 1)
    color = np.concatenate([np.full_like(share, 255), 230 * (1 - share), 0 * share], axis=2)
    over = np.where(share > 0, color, 0.5 * image).astype(np.uint8)
    alone = np.repeat(255 * (1 - share), 3, axis=2).astype(np.uint8)
    return {'ground truth': over, 'annotators': alone}


def caption(found: dict, index: int) -> str:
    """What stands under a row."""
    meta = found['meta']
    parts = [f'#{index}']
    if isinstance(meta.get('text'), str):
        parts.append(f'"{meta["text"]}"')
    if meta.get('img_path'):
        parts.append(Path(meta['img_path']).name)
    parts.append('x'.join(map(str, found['img'].shape[:2])))
    if found['ids'] is not None:
        parts.append(f'{len(_instances(found["ids"]))} instances, largest id {found["ids"].max()}')
    elif found['masks'] is not None:
        parts.append(f'{len(found["masks"])} masks')
    elif found['labels'] is not None:
        share = np.mean(found['labels'] == 1)
        parts.append(f'{share:.1%} of the pixels' if share else 'no target')
    elif found['boundaries'] is not None:
        parts.append(f'{len(found["boundaries"])} annotators')
    if meta.get('points') is not None:
        parts.append(f'{len(meta["points"])} prompts')
    parts += [str(meta[key]) for key in ('subset', 'kind', 'task') if meta.get(key)]
    return ' · '.join(parts)


def _instances(ids: np.ndarray) -> list[int]:
    return np.unique(ids[ids > 0]).tolist()


def _flat(masks: list[np.ndarray], colors: list[tuple], size: tuple[int, int]) -> np.ndarray:
    result = np.full((*size, 3), pictures.BACKGROUND, np.uint8)
    for mask, color in zip(masks, colors, strict=True):
        result[mask] = color
    return result


def browse(part: str, dataset: Any, args: argparse.Namespace, out_dir: Path) -> tuple[list[Path], int]:
    """Draws items of one dataset.

    Args:
        part: Its name; the files begin with it.
        dataset: The dataset.
        args: The command line.
        out_dir: Folder of the files.

    Returns:
        The files, and how many items could not be read.
    """
    load: Callable[[int], Any] = RawLoader(dataset) if args.stage == 'raw' else dataset.__getitem__
    rows, captions, num_failed = [], [], 0
    for index in _chosen(len(dataset), args):
        # Augmentations: the same pictures each time.
        np.random.seed([args.seed, index])
        random.seed(f'{args.seed} {index}')
        try:
            found = unpack(load(index))
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            print(f'{part} #{index}: {message}', file=sys.stderr)
            num_failed += 1
            continue
        rows.append(draw(found, args.panel_size))
        captions.append(caption(found, index))
    per_page = 1 if args.one_by_one else args.rows
    files = []
    for start in range(0, len(rows), per_page):
        page, lines = rows[start : start + per_page], captions[start : start + per_page]
        titles = [title for title in COLUMNS if any(title in row for row in page)]
        name = f'{part.partition("/")[0].replace(" ", "_")}_{start // per_page + 1:04d}.png'
        files.append(out_dir / name)
        out_dir.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures.compose(titles, page, lines)).save(files[-1])
    return files, num_failed


def _chosen(num_items: int, args: argparse.Namespace) -> list[int]:
    if args.indices:
        wrong = [index for index in args.indices if not 0 <= index < num_items]
        if wrong:
            raise ValueError(f'--indices must be 0 to {num_items - 1}, but got {wrong}')
        return args.indices
    if args.num >= num_items:
        return list(range(num_items))
    return np.linspace(0, num_items - 1, args.num).round().astype(int).tolist()


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument(
        'config', help='config, suite of configs/benchmarks, or one of configs/_base_/{datasets,benchmarks}'
    )
    parser.add_argument('--benchmark', nargs='+', help='only these benchmarks of a suite')
    parser.add_argument('--split', nargs='+', choices=SPLITS, default=SPLITS, help='default: all')
    parser.add_argument(
        '--out-dir', writes='folder', help='folder of the pictures (default: work_dirs/browse/<config>)'
    )
    parser.add_argument('--num', type=int, default=16, help='items per dataset, spread evenly')
    parser.add_argument('--indices', type=int, nargs='+', help='these items instead')
    parser.add_argument(
        '--stage',
        choices=STAGES,
        default='pipeline',
        help='pipeline: what the model gets (default); raw: what the files hold',
    )
    parser.add_argument('--rows', type=int, default=8, help='items per PNG (default: 8)')
    parser.add_argument('--one-by-one', action='store_true', help='one PNG per item')
    parser.add_argument('--panel-size', type=int, default=256, help='longer side of a picture')
    parser.add_argument('--seed', type=int, default=0, help='of the augmentations')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='override settings')
    args = parser.parse_args()
    for name in ('num', 'rows', 'panel_size'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1: {getattr(args, name)}')
    return args


def main() -> None:
    args = parse_args()
    cfg = read_dataset_config(args.config, args.cfg_options)
    out_dir = Path(args.out_dir or Path('work_dirs/browse', Path(args.config).stem))
    num_failed = 0
    for part in dataset_parts(cfg, tuple(args.split), args.benchmark):
        try:
            dataset = part.build()
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            print(f'{part.name}: cannot be built: {message}', file=sys.stderr)
            num_failed += 1
            continue
        files, failed = browse(part.name, dataset, args, out_dir)
        num_failed += failed
        same = f' (and {", ".join(part.same)})' if part.same else ''
        names = ', '.join(map(str, files[:3])) + ', ...' * (len(files) > 3)
        print(f'{part.name}{same}: {len(files)} pictures' + f': {names}' * bool(files))
    if num_failed:
        print(f'{num_failed} items or datasets could not be read', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
