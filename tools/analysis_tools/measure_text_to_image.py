"""Whether the objects that a GenMask draws are known again, by a classifier that has never seen a generated picture.

    python tools/analysis_tools/measure_text_to_image.py CONFIG CHECKPOINT
    python tools/analysis_tools/measure_text_to_image.py CONFIG --fit-only --classifier FILE

The classifier learns the names of the config's text-to-image scenes (ObjectScenesDataset) from drawn pictures of one
object each, and is frozen. What it scores on other such pictures, as they are and after a round trip through the
model's codec, bounds what generated ones can reach. These are of "a <object>", every name equally often. Writes
report.json and generated.png.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from genseg_mm.config_file import find_config, read_config_file
from genseg_mm.files.whole_files import check_writable, whole_file
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.config import CfgOptions, override_config
from genseg_mm.registry import DATASETS


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='of a GenMask that is trained on text_to_image scenes of objects')
    parser.add_argument('checkpoint', nargs='?', help='its weights')
    parser.add_argument('--num', type=int, default=500, help='pictures to generate')
    parser.add_argument('--num-test', type=int, default=1000, help='drawn pictures to test the classifier on')
    parser.add_argument('--updates', type=int, default=1500, help='of the training of the classifier, of 32 pictures')
    parser.add_argument(
        '--classifier', writes='if absent', help='file of the classifier; it is trained and written if not there'
    )
    parser.add_argument('--fit-only', action='store_true', help='train and test the classifier alone')
    parser.add_argument('--num-shown', type=int, default=60, help='pictures in generated.png')
    parser.add_argument('--out-dir', writes='folder', help='default: work_dirs/measure_text_to_image/<config>')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    args = parser.parse_args()
    for name in ('num', 'num_test', 'updates', 'num_shown'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1: {getattr(args, name)}')
    if args.checkpoint is None and not args.fit_only:
        parser.error('CHECKPOINT is missing; without one there is --fit-only')
    find_config(args.config)
    return args


if __name__ == '__main__':
    run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genseg_mm import pictures as drawing
from genseg_mm.dataset_configs import single_datasets
from genseg_mm.datasets import ObjectScenesDataset
from genseg_mm.datasets.object_scenes_dataset import ALONE_SIZE
from genseg_mm.datasets.object_words import with_article
from genseg_mm.inference.build_model import build_model
from genseg_mm.models.picture_classifier import PictureClassifier, top_shares

COLUMNS, BATCH_SIZE = 10, 32


def single_objects(cfg: Config, split: str, num_scenes: int) -> ObjectScenesDataset:
    """Pictures of one object each, as the config's text-to-image scenes have most.

    Raises:
        ValueError: If the config has no such scenes.
    """
    dataloader = cfg.get('train_dataloader') or {}
    for part in single_datasets(dataloader.get('dataset') or {}):
        if str(part.get('type')).endswith('ObjectScenesDataset') and part.get('task') == 'text_to_image':
            alone = dict(num_objects=(1, 1), object_size=ALONE_SIZE, num_scenes=num_scenes, split=split)
            return DATASETS.build({**part, **alone, 'pipeline': [], 'cache': False, 'caption': 'full'})
    raise ValueError(
        f"{cfg.filename}: expected an ObjectScenesDataset with task='text_to_image' in train_dataloader, but got none"
    )


def drawn(dataset: ObjectScenesDataset, names: dict[str, int], first: int, num: int) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, H, W) in [-1, 1] and the numbers of their names (N,)."""
    items = [dataset[index] for index in range(first, first + num)]
    pixels = np.stack([item['img'][..., ::-1] for item in items])
    labels = torch.tensor([names[item['object_names'][0]] for item in items])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1, labels


def batches(dataset: ObjectScenesDataset, names: dict[str, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Training pictures, each once."""
    for first in range(0, len(dataset), BATCH_SIZE):
        yield drawn(dataset, names, first, BATCH_SIZE)


def read_classifier(args: argparse.Namespace, cfg: Config) -> PictureClassifier:
    """The classifier of --classifier, or a new one."""
    if args.classifier and Path(args.classifier).exists():
        return PictureClassifier.load(args.classifier)
    dataset = single_objects(cfg, 'train', args.updates * BATCH_SIZE)
    names = sorted(set(dataset.cast.names))
    torch.manual_seed(args.seed)
    numbers = {name: number for number, name in enumerate(names)}
    classifier = PictureClassifier(names).fit(batches(dataset, numbers), args.updates)
    if args.classifier:
        classifier.save(args.classifier)
    return classifier


def generate(model: torch.nn.Module, texts: list[str], size: tuple[int, int], seed: int) -> Tensor:
    """Pictures of texts with the config's settings of generation, (N, 3, H, W) in [-1, 1]."""
    settings = {key: value for key, value in model.generation.items() if key != 'image_size'}
    parts = [texts[start : start + 50] for start in range(0, len(texts), 50)]
    return torch.cat(
        [model.generate(part, size, seed=seed + number, **settings).cpu() for number, part in enumerate(parts)]
    )


def draw_grid(pictures: Tensor, texts: list[str], ranks: Tensor, path: Path) -> None:
    """A table of pictures, their texts underneath; those that the classifier names are marked with a star."""
    tiles = ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    tiles = [np.repeat(np.repeat(tile, 2, 0), 2, 1) for tile in tiles]
    titles = [str(number + 1) for number in range(min(COLUMNS, len(tiles)))]
    rows, lines = [], []
    for start in range(0, len(tiles), COLUMNS):
        chosen = range(start, min(start + COLUMNS, len(tiles)))
        rows.append(dict(zip(titles, (tiles[place] for place in chosen), strict=False)))
        lines.append(', '.join(texts[place] + ' *' * (int(ranks[place]) == 0) for place in chosen))
    with whole_file(path) as unfinished:
        Image.fromarray(drawing.compose(titles, rows, lines)).save(unfinished, 'PNG')


def main() -> None:
    args = parse_args()
    path = find_config(args.config)
    cfg = read_config_file(path)
    if args.cfg_options:
        override_config(cfg, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'genseg_mm'))
    out = check_writable(args.out_dir or Path('work_dirs/measure_text_to_image') / Path(path).stem, '--out-dir')

    tested = single_objects(cfg, 'test', args.num_test)
    classifier = read_classifier(args, cfg)
    numbers = {name: number for number, name in enumerate(classifier.names)}
    if unknown := sorted(set(tested.cast.names) - set(numbers)):
        raise ValueError(f'{args.classifier}: expected a classifier of the names of {path}, but {unknown[0]!r} is new')
    pictures, labels = drawn(tested, numbers, 0, args.num_test)
    report = dict(names=len(numbers), drawn=top_shares(classifier.ranks(pictures, labels)))
    if not args.fit_only:
        model = build_model(cfg, args.checkpoint, args.device)
        with torch.no_grad():
            again = torch.cat(
                [model.codec.decode(model.codec.encode(part.to(args.device))).cpu() for part in pictures.split(100)]
            )
        report['drawn, through the codec'] = top_shares(classifier.ranks(again.clamp(-1, 1), labels))
        order = np.random.default_rng(args.seed).permutation(len(numbers))
        names = [classifier.names[order[place % len(order)]] for place in range(args.num)]
        texts = [with_article(name) for name in names]
        generated = generate(model, texts, tested.image_size, args.seed)
        ranks = classifier.ranks(generated, torch.tensor([numbers[name] for name in names]))
        report['generated'] = dict(top_shares(ranks), pictures=args.num)
        draw_grid(generated[: args.num_shown], texts, ranks, out / 'generated.png')
    with whole_file(out / 'report.json') as unfinished:
        Path(unfinished).write_text(json.dumps(report, indent=1))
    for kind, shares in report.items():
        if kind != 'names':
            print(f'{kind}: {", ".join(f"{key} {value:.1f}" for key, value in shares.items())} of {len(numbers)} names')


if __name__ == '__main__':
    run_tool(main)
