"""Where the time of an evaluation goes, per item: dataset and its transforms, collate, model, metrics.

    python tools/analysis_tools/profile_evaluation.py CONFIG [CHECKPOINT] [--num-items 50] [--image-size 480 640]
    python tools/analysis_tools/profile_evaluation.py CONFIG --suite configs/benchmarks/tiny.py --benchmark coco

Runs the config's test_dataloader and test_evaluator, or those of a benchmark of a suite, in one process without
workers, one item at a time, so that nothing hides behind anything else: with workers and a GPU the data of the next
items is read while the model computes, and the shares outside of the model that are shown here are upper bounds.
Times are medians over the items after a warm-up; shares are those of the sum of the medians. What the metrics
compute once at the end counts in equal parts for each item.
"""

import argparse
import json
import statistics
import warnings
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, FUNCTIONS

from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.config_file import find_config
from genseg_mm.files import write_text
from genseg_mm.launch import ToolParser, add_speed_arguments, run_tool, set_speed
from genseg_mm.launch.config import CfgOptions


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a model')
    parser.add_argument('checkpoint', nargs='?', help='its weights (default: random)')
    parser.add_argument('--suite', help='take data and metric from a suite; with --benchmark')
    parser.add_argument('--benchmark', help='which benchmark of the suite')
    parser.add_argument(
        '--suite-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help='override settings of the suite, such as suite.data_root=FOLDER',
    )  # fmt: skip
    parser.add_argument('--num-items', type=int, default=50, help='items, spread evenly (default: 50)')
    parser.add_argument('--warmup', type=int, default=3, help='untimed items first (default: 3)')
    parser.add_argument(
        '--image-size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
        help="what the test pipeline's Resize makes of the pictures for the model",
    )  # fmt: skip
    add_speed_arguments(parser)
    parser.add_argument('--device', default='cpu', help='such as cuda:0 (default: cpu)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of torch (default: 1)')
    parser.add_argument(
        '--cpu-time', action='store_true', help="CPU seconds instead of the clock's, for a busy machine"
    )  # fmt: skip
    parser.add_argument('--json', writes='text', metavar='OUT', help='write all numbers to this file')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='override settings')
    args = parser.parse_args()
    if (args.suite is None) != (args.benchmark is None):
        parser.error('--suite and --benchmark go together')
    if args.num_items < 1 or args.warmup < 0 or args.threads < 1:
        parser.error('--num-items and --threads must be at least 1, --warmup at least 0')
    find_config(args.config)
    return args


if __name__ == '__main__':
    run_tool(parse_args)  # help and mistakes, before what is imported below takes seconds

import numpy as np
import torch
from costs import NOISE, PhaseMeter, clock, resizes, watched
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from models_without_weights import check_weights

from genseg_mm.dataset_configs import single_datasets
from genseg_mm.inference.build_model import build_model
from genseg_mm.precision import evaluation_autocast, prepare_evaluation

GROUPS = ('data', 'model', 'metric')


def evaluation_config(args: argparse.Namespace) -> Config:
    """Config of model, data and metric.

    Raises:
        ValueError: If one of the three is missing, or no Resize takes --image-size.
    """
    cfg = read_dataset_config(args.config, args.cfg_options)
    set_speed(cfg, args)
    if args.suite:
        from genseg_mm.benchmarking.jobs import effective_config

        suite = read_dataset_config(args.suite, args.suite_options)
        known = list(suite.get('benchmarks') or {})
        if args.benchmark not in known:
            raise ValueError(f'{args.suite} has no benchmark {args.benchmark!r}, but {", ".join(known) or "none"}')
        cfg = effective_config(cfg, suite.benchmarks[args.benchmark].to_dict())
    for key in ('model', 'test_dataloader', 'test_evaluator'):
        if not cfg.get(key):
            raise ValueError(f'{args.config} has no {key}, which an evaluation needs')
    if args.image_size:
        found = list(resizes(cfg.test_dataloader.dataset))
        if not found:
            raise ValueError(
                f'{args.config}: no Resize with a scale in the test pipeline, so --image-size changes nothing'
            )
        for resize in found:
            resize.update(scale=tuple(args.image_size[::-1]), keep_ratio=False)
    return cfg


def profile(cfg: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Runs the evaluation on some items.

    Returns:
        Plain data: ``phases``, name -> dict(median, mean) in seconds per item, in order; ``groups``, name -> seconds;
        ``outside_model``, a share; ``metrics``; the settings.
    """
    check_weights(cfg.model)
    with warnings.catch_warnings():
        # Times do not depend on the weights.
        warnings.filterwarnings('ignore', message='no weights were given')
        model = build_model(cfg, args.checkpoint, args.device)
    if args.suite:
        from genseg_mm.benchmarking.jobs import fill_network_size

        fill_network_size(cfg, model)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = getattr(dataset, 'metainfo', None)
    indices = chosen(len(dataset), args.num_items)
    meter = PhaseMeter(clock(torch.device(args.device), args.cpu_time))
    watch_data(dataset, meter)
    for metric in evaluator.metrics:
        meter.watch(metric, 'process', f'metric: {type(metric).__name__}')
    collate = cfg.test_dataloader.get('collate_fn')
    collate = pseudo_collate if collate is None else FUNCTIONS.get(collate['type'])
    prompts = []
    device = torch.device(args.device)
    prepare_evaluation(model, cfg, device)
    with torch.no_grad(), evaluation_autocast(cfg, device), watched(model, meter, 'model: '):
        for index in [*indices[: args.warmup], *indices]:
            prompts.append(run_item(dataset, index, collate, model, evaluator, meter))
            if len(meter.rounds) == args.warmup:
                for metric in evaluator.metrics:
                    metric.results.clear()
    num_warm = len(meter.rounds) - len(indices)
    rounds = meter.rounds[num_warm:]
    end = meter.start_round()
    with meter.phase('metric: at the end'):
        metrics = evaluator.evaluate(len(indices))
    meter.release()
    result = summarise(rounds, end['metric: at the end'] / len(indices))
    return dict(
        result, config=args.config, benchmark=args.benchmark, items=len(indices), of=len(dataset),
        device=args.device, threads=torch.get_num_threads(), cpu_time=args.cpu_time,
        prompts=statistics.median(prompts[num_warm:]), sizes=_sizes(dataset[indices[0]]),
        metrics={key: float(value) for key, value in metrics.items() if np.isscalar(value)},
    )  # fmt: skip


def run_item(dataset: Any, index: int, collate: Any, model: Any, evaluator: Evaluator, meter: PhaseMeter) -> int:
    """Evaluates one item; returns its number of point prompts."""
    meter.start_round()
    with meter.phase('data: dataset'):
        item = dataset[index]
    with meter.phase('data: collate'):
        batch = collate([item])
    with meter.phase('model: rest'):
        samples = model.test_step(batch)
    with meter.phase('metric: evaluator'):
        evaluator.process(data_samples=samples, data_batch=batch)
    points = samples[0].get('points')
    return 0 if points is None else len(points)


def watch_data(dataset: Any, meter: PhaseMeter) -> None:
    """Books the transforms of a dataset's pipeline to their names; what the dataset does beside them stays its own."""
    for leaf in single_datasets(dataset):
        if not hasattr(leaf, 'pipeline'):
            continue
        for transform in leaf.pipeline.transforms:
            if hasattr(transform, 'transform'):
                meter.watch(transform, 'transform', f'data: {type(transform).__name__}')


def chosen(num_items: int, wanted: int) -> list[int]:
    """At most ``wanted`` indices, spread evenly."""
    if wanted >= num_items:
        return list(range(num_items))
    return np.linspace(0, num_items - 1, wanted).round().astype(int).tolist()


def summarise(rounds: list[dict[str, float]], at_end: float) -> dict[str, Any]:
    """Medians and means per phase, sums per group, and the share outside of the model.

    Args:
        rounds: Seconds by phase of each item.
        at_end: Seconds per item of what is computed once.
    """
    found: dict[str, dict[str, float]] = {}
    for group in GROUPS:
        names = dict.fromkeys(name for own in rounds for name in own if name.startswith(group))
        for name in names:
            values = [own.get(name, 0.0) for own in rounds]
            found[name] = dict(median=statistics.median(values), mean=statistics.fmean(values))
    found['metric: at the end'] = dict(median=at_end, mean=at_end)
    groups = {group: sum(own['median'] for name, own in found.items() if name.startswith(group)) for group in GROUPS}
    total = sum(groups.values())
    return dict(phases=found, groups=groups, outside_model=(total - groups['model']) / total if total else 0)


def _sizes(item: dict) -> dict[str, list[int]]:
    sample = item['data_samples']
    return dict(input=list(item['inputs'].shape[-2:]), original=list(sample.get('ori_shape', ())[:2]))


def report(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    total = sum(result['groups'].values())
    sizes = result['sizes']
    head = f'{result["config"]}' + f' on {result["benchmark"]}' * bool(result['benchmark'])
    prompts = f', {result["prompts"]:g} points each' if result['prompts'] else ''
    lines = [
        f'{head}: {result["items"]} of {result["of"]} items, pictures of {_by(sizes["original"])}, input '
        f'{_by(sizes["input"])}{prompts}; {result["device"]}, {result["threads"]} thread(s), '
        f'{"CPU time" if result["cpu_time"] else "wall time"}',
        '',
        '| phase | median, ms | mean, ms | share |',
        '|---|---:|---:|---:|',
    ]
    for name, own in result['phases'].items():
        if own['mean'] < NOISE * total:
            continue
        lines.append(f'| {name} | {1e3 * own["median"]:.3f} | {1e3 * own["mean"]:.3f} | {own["median"] / total:.1%} |')
    for group, seconds in result['groups'].items():
        lines.append(f'| **{group}** | {1e3 * seconds:.3f} | | {seconds / total:.1%} |')
    lines += [f'| **all** | {1e3 * total:.3f} | | 100.0% |', '', f'outside of the model: {result["outside_model"]:.1%}']
    if result['items'] < result['of']:
        lines.append('What is computed at the end was computed of these items alone.')
    return '\n'.join(lines)


def _by(size: list[int]) -> str:
    return ' x '.join(map(str, size)) or 'unknown size'


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    result = profile(evaluation_config(args), args)
    print(report(result))
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + '\n')
        print(f'written: {args.json}')


if __name__ == '__main__':
    run_tool(main)
