"""gen2seg's thesis on scenes of objects: what does generative pretraining save in labels? A table and a plot.

    python tools/analysis_tools/label_efficiency.py                                      # 9 cells x 4 arms x 5 seeds
    python tools/analysis_tools/label_efficiency.py --cells 20x50 75x5000 --arms all scratch --seeds 0 1 --updates 800
    python tools/analysis_tools/label_efficiency.py --report                             # of what is finished

A cell KINDSxSCENES has so many labelled kinds of household things and ground transport, a smaller number being some of
a larger one, and so many labelled scenes. Its arms are trained with gen2seg's loss for the same updates on the same
scenes in the same order, from weights that were pretrained without labels on scenes of all kinds ('all') or of the
groups that have labels ('narrow'), or from scratch ('scratch', and 'discriminative', MMSegmentation's ViT behind the
same loss). Pretraining is masked autoencoding of the ViT-MAE (--network mae) or denoising of the UNet (unet). Scores
are mIoU of one random pixel per object on labelled ('seen') and never labelled kinds ('unseen': animals, food, people,
faces), beside position as the colour map, and that cut by the true foreground. A seed is that of the weights, of the
choice of kinds and of the scenes; all arms share it, so that differences are paired.

Each training is a process of one thread and a folder of its own in --work-dir; what is finished is not run again.
Writes table.md, table.json and table.png; intervals are 95 % of Student's t over seeds.
"""

import argparse
import hashlib
import itertools
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from genseg_mm.files import check_writable, read_json, whole_file
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.training_cells import RESULT, logged_lines, run_cell, run_grid, schedule_options

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / 'configs/gen2seg/gen2seg_unet_objects_tiny.py'
NETWORKS = ('unet', 'mae')
ARMS = dict(
    all='pretrained on all kinds',
    narrow='pretrained on the labelled groups',
    scratch='no pretraining',
    discriminative='discriminative (mmseg ViT), no pretraining',
)
PRETRAINED = ('all', 'narrow')
CELLS = tuple(f'{kinds}x{scenes}' for kinds in (5, 20, 75) for scenes in (50, 500, 5000))
PATCH_SIZE = 6  # of the ViTs: 16 x 16 tokens
CONTROLS = ('control_position', 'oracle_foreground')


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--network', choices=NETWORKS, default='mae', help='default: %(default)s')
    parser.add_argument('--cells', nargs='+', default=CELLS, metavar='KINDSxSCENES', help='default: all nine')
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS), metavar='ARM', help='default: all four')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2, 3, 4], help='default: 0 1 2 3 4')
    parser.add_argument('--updates', type=int, default=1600, help='on labels, of every arm (default: %(default)s)')
    parser.add_argument('--pretrain-updates', type=int, default=2000, help='without labels (default: %(default)s)')
    parser.add_argument('--test-scenes', type=int, default=200, help='of each of seen and unseen')
    parser.add_argument('--jobs', type=int, default=1, help='trainings side by side, one thread each')
    parser.add_argument('--bank', help='of objects (default: that of prepare_objects.py)')
    parser.add_argument(
        '--work-dir', writes='folder', help='default: work_dirs/label_efficiency/NETWORK_UPDATES_PRETRAIN-UPDATES'
    )
    parser.add_argument('--report', action='store_true', help='only writes table and plot of what is finished')
    args = parser.parse_args()
    counts = args.updates, args.pretrain_updates, args.jobs, args.test_scenes
    if min(counts) < 1 or min(args.seeds) < 0:
        parser.error('--updates, --pretrain-updates, --test-scenes and --jobs must be at least 1, --seeds at least 0')
    for cell in args.cells:
        if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', cell):
            parser.error(f'--cells: expected KINDSxSCENES such as 20x500, but got {cell!r}')
    name = f'{args.network}_{args.updates}_{args.pretrain_updates}'
    args.work_dir = check_writable(args.work_dir or Path('work_dirs/label_efficiency', name), '--work-dir')
    return args


def base_config(args: argparse.Namespace, seed: int, updates: int) -> Config:
    """The config that all trainings start from."""
    cfg = Config.fromfile(BASE)
    options = schedule_options(cfg.param_scheduler, cfg.train_cfg.max_iters, updates)
    cfg.merge_from_dict(options)
    cfg.train_cfg.update(max_iters=updates, val_interval=updates)
    cfg.randomness = dict(seed=seed)
    cfg.train_dataloader.sampler.seed = seed
    cfg.train_dataloader.dataset.update(seed=seed, bank=args.bank)
    cfg.default_hooks.visualization = None
    cfg.default_hooks.checkpoint.update(interval=updates, save_optimizer=False, save_best=None)
    cfg.pop('test_dataloader'), cfg.pop('test_evaluator'), cfg.pop('test_cfg')
    if args.network == 'mae':
        side = cfg.train_dataloader.dataset.image_size[0]
        mae = Config.fromfile(ROOT / 'configs/_base_/models/gen2seg_mae_tiny.py').model
        mae.colorer.config.update(image_size=side, patch_size=PATCH_SIZE, norm_pix_loss=True)
        cfg.model = mae
        cfg.optim_wrapper = dict(
            type='OptimWrapper',
            constructor='genseg_mm.MuonOptimWrapperConstructor',
            optimizer=dict(type='genseg_mm.MuonAdamW', lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01),
            clip_grad=dict(max_norm=1.0),
        )
    return cfg


def pretraining_config(args: argparse.Namespace, arm: str, seed: int) -> Config:
    """Without labels, on scenes of all kinds or of the groups that have labels."""
    cfg = base_config(args, seed, args.pretrain_updates)
    cfg.model = dict(type='genseg_mm.GenerativePretraining', colorer=cfg.model.colorer)
    cfg.train_dataloader.batch_size = 16
    dataset = cfg.train_dataloader.dataset
    dataset.update(task='unlabelled', pipeline=[own for own in dataset.pipeline if 'ScenePermute' not in own.type])
    if arm == 'all':
        dataset.pop('groups')
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        cfg.pop(key)
    cfg.train_cfg.pop('val_interval')
    return cfg


def cell_config(args: argparse.Namespace, arm: str, kinds: int, scenes: int, seed: int) -> Config:
    """gen2seg's training on the labels of a cell."""
    cfg = base_config(args, seed, args.updates)
    cfg.train_dataloader.dataset.update(num_scenes=scenes, num_names=kinds, names_seed=seed)
    for part in cfg.val_dataloader.dataset.datasets:
        part.bank = args.bank
        part.num_scenes = args.test_scenes if part.subset != 'val' else max(1, args.test_scenes // 2)
    if arm == 'discriminative':
        cfg.model = discriminative_model(cfg.train_dataloader.dataset.image_size)
    elif arm in PRETRAINED:
        cfg.load_from = str(
            (args.work_dir / pretraining_name(arm, seed) / f'iter_{args.pretrain_updates}.pth').resolve()
        )
    return cfg


def discriminative_model(image_size: Sequence[int]) -> dict[str, Any]:
    """MMSegmentation's ViT behind gen2seg's loss, of the size of the ViT-MAE."""
    model = Config.fromfile(ROOT / 'configs/gen2seg/gen2seg_vit_shapes_tiny.py').model
    model.data_preprocessor.size = tuple(image_size)
    model.backbone.update(img_size=tuple(image_size), patch_size=PATCH_SIZE)
    return model


def pretraining_name(arm: str, seed: int) -> str:
    return f'pretraining_{arm}_seed{seed}'


def train(args: argparse.Namespace, name: str, cfg: Config, facts: dict[str, Any], needs_scores: bool) -> dict:
    """One training in its folder, or what it came to before."""
    path = args.work_dir / 'configs' / f'{name}.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_text(cfg.pretty_text)
    settings = dict(facts, config=hashlib.sha256(cfg.pretty_text.encode()).hexdigest())
    folder = args.work_dir / name
    command = [sys.executable, str(ROOT / 'tools/train.py'), str(path), '--work-dir', str(folder)]
    return run_cell(folder, command, settings, read_scores if needs_scores else read_loss)


def read_scores(folder: Path) -> dict:
    """Scores and controls at the end of a training, and its last loss; its checkpoint is not needed any more.

    Raises:
        ValueError: If it was not validated.
    """
    lines = logged_lines(folder)
    scores = next((line for line in reversed(lines) if 'unseen_mIoU' in line), None)
    if scores is None:
        raise ValueError(f'{folder}: expected a validation with unseen_mIoU in its log, but got none: remove it')
    for checkpoint in folder.glob('*.pth'):
        checkpoint.unlink()
    kept = [f'{subset}_{name}' for subset in ('seen', 'unseen') for name in ('mIoU', *CONTROLS)]
    return dict({key: scores[key] for key in kept}, collapse_share=scores['collapse_share'], **read_loss(folder))


def read_loss(folder: Path) -> dict:
    """The last loss of a training."""
    losses = [line['loss'] for line in logged_lines(folder) if 'loss' in line]
    return dict(loss=losses[-1] if losses else None)


def run_all(args: argparse.Namespace) -> None:
    """Pretrainings, then cells; one line each."""
    common = dict(network=args.network, updates=args.updates, pretrain_updates=args.pretrain_updates)
    needed = [arm for arm in args.arms if arm in PRETRAINED]

    def pretrain(arm: str, seed: int) -> dict:
        facts = dict(common, arm=arm, seed=seed)
        return train(args, pretraining_name(arm, seed), pretraining_config(args, arm, seed), facts, False)

    points = list(itertools.product(needed, args.seeds))
    for number, ((arm, seed), result) in enumerate(run_grid(pretrain, points, args.jobs), 1):
        print(f'[{number}/{len(points)}] {ARMS[arm]}, seed {seed}: {result["cpu_seconds"]:.0f} CPU s', flush=True)

    def cell(arm: str, name: str, seed: int) -> dict:
        kinds, scenes = map(int, name.split('x'))
        facts = dict(common, arm=arm, kinds=kinds, scenes=scenes, seed=seed)
        cfg = cell_config(args, arm, kinds, scenes, seed)
        return train(args, f'cell_{arm}_{name}_seed{seed}', cfg, facts, True)

    # All arms of a cell before the next one: what is interrupted has pairs.
    points = [(arm, name, seed) for name in args.cells for seed in args.seeds for arm in args.arms]
    for number, ((arm, name, seed), result) in enumerate(run_grid(cell, points, args.jobs), 1):
        print(
            f'[{number}/{len(points)}] {name}, {ARMS[arm]}, seed {seed}: seen {result["seen_mIoU"]:.1f}, unseen '
            f'{result["unseen_mIoU"]:.1f}, {result["cpu_seconds"]:.0f} CPU s',
            flush=True,
        )
        write_report(args, picture=False)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t; nan of a single value)."""
    if len(values) < 2:
        return statistics.fmean(values), float('nan')
    from scipy.stats import t

    error = statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), float(t.ppf(0.975, len(values) - 1)) * error


def summarise(results: Sequence[dict]) -> list[dict]:
    """One row per cell and arm, by labels; 'gain' is unseen minus that of no pretraining, over the seeds of both."""
    scores = {}
    for own in results:
        facts = own['settings']
        scores.setdefault((facts['kinds'], facts['scenes'], facts['arm']), {})[facts['seed']] = own
    rows = []
    for kinds, scenes, arm in sorted(scores, key=lambda own: (*own[:2], list(ARMS).index(own[2]))):
        own, scratch = scores[kinds, scenes, arm], scores.get((kinds, scenes, 'scratch'), {})
        seen, unseen = ([result[f'{name}_mIoU'] for result in own.values()] for name in ('seen', 'unseen'))
        paired = [own[seed]['unseen_mIoU'] - scratch[seed]['unseen_mIoU'] for seed in own if seed in scratch]
        rows.append(
            dict(
                kinds=kinds,
                scenes=scenes,
                arm=arm,
                seeds=sorted(own),
                seen=interval(seen),
                unseen=interval(unseen),
                difference=interval([b - a for a, b in zip(seen, unseen, strict=True)]),
                gain=interval(paired) if paired and arm != 'scratch' else None,
                cpu_seconds=statistics.fmean(result['cpu_seconds'] for result in own.values()),
            )
        )
    return rows


def verdict(rows: Sequence[dict]) -> str:
    """What the table says of pretraining on all kinds, in a sentence."""
    gains = [row['gain'] for row in rows if row['arm'] == 'all' and row['gain'] and len(row['seeds']) > 1]
    if not gains:
        return 'No cell has two seeds of both pretraining on all kinds and none: nothing can be said yet.'
    above, below = sum(mean > half for mean, half in gains), sum(-mean > half for mean, half in gains)
    return (
        f'Pretraining on all kinds changes unseen mIoU by {min(mean for mean, _ in gains):+.1f} to '
        f'{max(mean for mean, _ in gains):+.1f} over {len(gains)} cells; the interval lies above 0 in {above} and '
        f'below 0 in {below} of them.'
    )


def markdown(rows: Sequence[dict], results: Sequence[dict], args: argparse.Namespace) -> str:
    """The table with its controls."""
    lines = [
        f'# Label efficiency, {args.network}, {args.updates} updates on labels, {args.pretrain_updates} without',
        '',
        'mIoU of one random pixel per object; mean and 95 % interval over seeds (a single seed has none).',
        '',
        '| labelled kinds | labelled scenes | arm | seeds | seen | unseen | unseen - seen | unseen - no pretraining | '
        'CPU s |',
        '|' + '---|' * 9,
    ]
    for row in rows:
        cells = [_plus_minus(row[key]) for key in ('seen', 'unseen')]
        cells += [_plus_minus(row[key], '+') if row[key] else '' for key in ('difference', 'gain')]
        lines.append(
            f'| {row["kinds"]} | {row["scenes"]} | {ARMS[row["arm"]]} | {len(row["seeds"])} | {" | ".join(cells)} | '
            f'{row["cpu_seconds"]:.0f} |'
        )
    for name in CONTROLS:
        values = [f'{statistics.fmean(own[f"{part}_{name}"] for own in results):.1f}' for part in ('seen', 'unseen')]
        lines.append(f'| | | {name.replace("_", " ")} | | {values[0]} | {values[1]} | | | |')
    return '\n'.join([*lines, '', verdict(rows), ''])


def _plus_minus(value: tuple[float, float], sign: str = '') -> str:
    mean, half = value
    return f'{mean:{sign}.1f}' + ('' if half != half else f' +- {half:.1f}')


def draw(rows: Sequence[dict], results: Sequence[dict], path: Path) -> None:
    """unseen, and unseen - seen, over labelled scenes; a column per number of labelled kinds."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    kinds = sorted({row['kinds'] for row in rows})
    figure, axes = pyplot.subplots(
        2, len(kinds), figsize=(4.2 * len(kinds) + 1, 7), squeeze=False, sharey='row', layout='constrained'
    )
    for column, kind in enumerate(kinds):
        for place, arm in enumerate(ARMS):
            own = [row for row in rows if row['kinds'] == kind and row['arm'] == arm]
            for line, key in enumerate(('unseen', 'difference')):
                means = [row[key][0] for row in own]
                halves = [0 if row[key][1] != row[key][1] else row[key][1] for row in own]
                scenes = [row['scenes'] * 1.03**place for row in own]  # side by side
                axes[line][column].errorbar(
                    scenes, means, halves, fmt='-o', color=f'C{place}', markersize=4, capsize=3, label=ARMS[arm]
                )
        for name, style in zip(CONTROLS, (':', '--'), strict=True):
            value = statistics.fmean(result[f'unseen_{name}'] for result in results)
            axes[0][column].axhline(value, color='gray', linestyle=style, label=name.replace('_', ' '))
        axes[1][column].axhline(0, color='gray', linewidth=1)
        axes[0][column].set(title=f'{kind} labelled kinds', xscale='log')
        axes[1][column].set(xlabel='labelled scenes', xscale='log')
    axes[0][0].set_ylabel('unseen mIoU')
    axes[1][0].set_ylabel('unseen - seen')
    axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_report(args: argparse.Namespace, picture: bool = True) -> str:
    """Table and plot of all finished cells of the work dir.

    Raises:
        FileNotFoundError: If there is none.
    """
    results = [read_json(path) for path in sorted(args.work_dir.glob(f'cell_*/{RESULT}'))]
    if not results:
        raise FileNotFoundError(
            f'{args.work_dir} has no finished cell (cell_*/{RESULT}): run the tool without --report'
        )
    rows = summarise(results)
    text = markdown(rows, results, args)
    (args.work_dir / 'table.md').write_text(text)
    (args.work_dir / 'table.json').write_text(json.dumps(dict(rows=rows, results=results), indent=1) + '\n')
    if picture:
        draw(rows, results, args.work_dir / 'table.png')
    return text


def main() -> None:
    args = parse_args()
    if not args.report:
        run_all(args)
    print('\n' + write_report(args))
    print(f'written: {args.work_dir}/table.md, .json, .png')


if __name__ == '__main__':
    run_tool(main)
