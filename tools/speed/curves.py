"""How times grow with size, instances, prompts and items: curves, fitted exponents, a picture."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from analysis_tools.benchmark_coloring_loss import LOSSES, run
from analysis_tools.benchmark_coloring_loss import make_scene as loss_scene
from analysis_tools.benchmark_prompting import SCENES
from analysis_tools.benchmark_prompting import make_scene as prompting_scene
from speed.evaluation_rows import coco_results, edge_scene, referring_samples
from speed.measuring import ENOUGH, discard, timed

from genseg_mm.config_file import find_config, read_config_file
from genseg_mm.evaluation import ClassAgnosticCocoMetric, ReferringMetric
from genseg_mm.evaluation.edge_matching import count_edges, edge_thresholds
from genseg_mm.files import write_text
from genseg_mm.functional.point_prompting import masks_from_points
from genseg_mm.functional.similarity_masks import load_loops
from genseg_mm.models.map_prompting import automatic_instances
from genseg_mm.registry import MODELS


@dataclass(frozen=True)
class Curve:
    """What grows.

    Attributes:
        name: For the legend.
        axis: What is on the x axis, with its unit.
        sizes: Ascending.
        prepare: Takes a size, gives the call that is timed.
    """

    name: str
    axis: str
    sizes: Sequence[int]
    prepare: Callable[[int], Callable[[], Any]]


SIDE, INSTANCES, PROMPTS, ITEMS = 'side of the picture, pixels', 'instances', 'prompts', 'items'


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of log time over log size where size matters: over the last three sizes, by least squares."""
    if len(sizes) < 2:
        return float('nan')
    return float(np.polyfit(np.log(sizes[-3:]), np.log(seconds[-3:]), 1)[0])


def _forward(name: str) -> Callable[[int], Callable]:
    def prepare(side: int) -> Callable:
        torch.manual_seed(0)
        model = MODELS.build(read_config_file(find_config(name)).model).eval()
        picture = torch.rand(1, 3, side, side) * 2 - 1

        def call() -> None:
            with torch.inference_mode():
                model.colorer(picture)

        return call

    return prepare


def _prompt(side: int, num: int) -> Callable:
    colors, points = prompting_scene(f'{side}x{side}', 25, num, *SCENES['noisy'], 'cpu')
    load_loops()
    return partial(masks_from_points, colors, points)


def _automatic(side: int) -> Callable:
    return partial(automatic_instances, prompting_scene(f'{side}x{side}', 25, 1, *SCENES['flat'], 'cpu')[0])


def _edges(side: int) -> Callable:
    strength, truth = edge_scene(side, side)
    count_edges(strength[:64, :64], truth[:, :64, :64], [0.5])  # compiles what it needs
    return partial(count_edges, strength, truth, edge_thresholds(33))


def _loss(instances: int) -> Callable:
    colors, ids = loss_scene('240x320', instances, 1, 'cpu')
    return partial(run, LOSSES['tiles'], colors, ids, 'reference')


def _referring(num: int) -> Callable:
    samples = referring_samples(100, 24, 32)

    def call() -> None:
        metric = ReferringMetric(protocol='lavt')
        for number in range(num):
            sample = dict(samples[number % len(samples)], img_path=f'{number}.jpg')
            metric.process({}, [sample])
        metric.evaluate(num)

    return call


def _coco(num: int) -> Callable:
    drawn = min(num, 1000)
    results = coco_results(drawn, 5).results * (num // drawn)
    return lambda: ClassAgnosticCocoMetric().compute_metrics(results)


CURVES = (
    Curve('UNet (tiny), forward', SIDE, (256, 512, 1024, 2048), _forward('gen2seg_unet_shapes_tiny')),
    Curve('ViT-MAE (tiny), forward', SIDE, (256, 512, 1024), _forward('gen2seg_mae_shapes_tiny')),
    Curve('one point', SIDE, (256, 512, 1024, 2048), partial(_prompt, num=1)),
    Curve('instances without prompts', SIDE, (256, 512, 1024, 2048), _automatic),
    Curve('boundaries, 33 thresholds', SIDE, (256, 512, 1024, 2048), _edges),
    Curve('coloring loss, 240x320', INSTANCES, (1, 10, 50, 200), _loss),
    Curve('points, 256x256', PROMPTS, (1, 10, 100, 1000), lambda num: _prompt(256, num)),
    Curve('referring metric', ITEMS, (100, 1000, 10_000, 100_000), _referring),
    Curve('AP without classes, 5 instances', ITEMS, (100, 1000, 10_000, 100_000), _coco),
)  # fmt: skip


def seconds_of(call: Callable[[], Any]) -> float:
    """CPU seconds of a call: the best of three where it is short, else of one after nothing."""
    first = timed(partial(discard, call))
    if first > 20 * ENOUGH:
        return first
    return min(timed(partial(discard, call)) for _ in range(3))


def measured(share: float) -> Iterator[tuple[Curve, list[int], list[float]]]:
    """The curves with their sizes up to a share of the largest, and CPU seconds."""
    for curve in CURVES:
        sizes = [size for size in curve.sizes if size <= share * curve.sizes[-1]] or [curve.sizes[0]]
        seconds = []
        for size in sizes:
            seconds.append(seconds_of(curve.prepare(size)))
            print(f'{curve.name}, {size} {curve.axis}: {seconds[-1]:.4g} s', flush=True)
        yield curve, sizes, seconds


def measure_curves(args: Any) -> None:
    """Measures all curves, prints a table with exponents, and draws them.

    Args:
        args: Of the command line: ``curves`` names the picture, ``largest`` the share, ``threads``.
    """
    import matplotlib as mpl

    mpl.use('Agg')
    from matplotlib import pyplot as plt

    torch.set_num_threads(args.threads)
    start = time.process_time()
    axes = (SIDE, INSTANCES, PROMPTS, ITEMS)
    figure, panels = plt.subplots(1, 4, figsize=(16, 5.5), width_ratios=(2, 1, 1, 1))
    rows = ['| what | sizes | CPU seconds | exponent |', '|---|---|---|---:|']
    content = []
    for curve, sizes, seconds in measured(args.largest):
        slope = exponent(sizes, seconds)
        panel = panels[axes.index(curve.axis)]
        panel.loglog(sizes, seconds, 'o-', label=f'{curve.name}: {slope:.2f}')
        texts = (', '.join(map(str, sizes)), ', '.join(f'{own:.3g}' for own in seconds))
        rows.append(f'| {curve.name} | {texts[0]} ({curve.axis}) | {texts[1]} | {slope:.2f} |')
        content.append(dict(name=curve.name, axis=curve.axis, sizes=sizes, seconds=seconds, exponent=slope))
    for panel, axis in zip(panels, axes, strict=True):
        panel.set_xlabel(axis)
        panel.grid(True, which='both', alpha=0.25)
        panel.legend(fontsize=8, title='exponents', title_fontsize=8, loc='upper left', bbox_to_anchor=(0, -0.15))
    panels[0].set_ylabel('CPU seconds, one thread' if args.threads == 1 else f'CPU seconds, {args.threads} threads')
    figure.tight_layout()
    Path(args.curves).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.curves, dpi=80)
    print('\n' + '\n'.join(rows))
    if args.out:
        write_text(args.out, json.dumps(content, indent=1) + '\n')
    print(f'\nwritten: {args.curves} after {time.process_time() - start:.0f} CPU seconds')
