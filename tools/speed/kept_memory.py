"""What the metrics keep: resident memory of a process while it takes items, and while it computes.

Sentences with masks of 480 x 640 (ReferringMetric), maps with four prompts and the controls (PointPromptMetric),
boundaries at 99 thresholds (EdgeMetric), ten found masks beside ten true ones (ClassAgnosticCocoMetric). What is kept
of a picture does not depend on its size, but for the length of run lengths.
"""

import ctypes
import gc
import itertools
import multiprocessing
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from analysis_tools.measure_training_memory import resident_mib
from speed.evaluation_rows import coco_samples, edge_scene, referring_samples

from genseg_mm.evaluation import ClassAgnosticCocoMetric, EdgeMetric, PointPromptMetric, ReferringMetric

ITEMS = 10_000
WARM = 20  # items that load libraries

Batches = Iterator[tuple[dict, dict]]


def sentences(items: int) -> tuple[Any, Batches]:
    """A metric, and batches of one item with what a model makes of them."""
    drawn = itertools.cycle(referring_samples(20))
    return ReferringMetric(protocol='lavt'), (({}, dict(next(drawn), img_path=f'{n}.jpg')) for n in range(items))


def points(items: int) -> tuple[Any, Batches]:
    """As :func:`sentences`."""

    def drawn() -> Batches:
        generator = torch.Generator().manual_seed(0)
        ids = torch.arange(1, 5).reshape(2, 2).repeat_interleave(24, 0).repeat_interleave(32, 1)
        places = np.array([[[x, y]] for y in (12, 36) for x in (16, 48)], np.float32)
        for number in range(items):
            colors = 60 * torch.stack([ids, 4 - ids, ids % 2]) + 10 * torch.rand(3, 48, 64, generator=generator)
            sample = dict(
                pred_color_map=dict(data=colors), gt_instance_map=dict(data=ids[None]), points=places,
                point_ids=np.arange(1, 5), img_path=f'{number}.jpg', img_id=number, img_shape=(48, 64),
            )  # fmt: skip
            yield dict(inputs=[colors.to(torch.uint8)]), sample

    return PointPromptMetric(), drawn()


def edges(items: int) -> tuple[Any, Batches]:
    """As :func:`sentences`."""
    strength, truth = edge_scene(48, 64)
    sample = dict(
        pred_edges=dict(data=torch.from_numpy(strength)[None]), gt_boundaries=dict(data=torch.from_numpy(truth))
    )
    return EdgeMetric(), (({}, dict(sample, img_path=f'{number}.jpg', img_id=number)) for number in range(items))


def instances(items: int) -> tuple[Any, Batches]:
    """As :func:`sentences`."""
    return ClassAgnosticCocoMetric(), (({}, sample) for sample in coco_samples(items, 10))


KINDS = dict(sentences=sentences, points=points, edges=edges, instances=instances)


def measure(name: str, items: int) -> list[float]:
    """MiB beyond those of the start: after a tenth, half and all of the items, and at the peak of the computation."""

    def settled() -> float:
        gc.collect()
        if sys.platform == 'linux':
            ctypes.CDLL(None).malloc_trim(0)
        return resident_mib()

    metric, stream = KINDS[name](items + WARM)
    for data_batch, sample in itertools.islice(stream, WARM):
        metric.process(data_batch, [sample])
    metric.evaluate(WARM)
    start, found = settled(), []
    for number, (data_batch, sample) in enumerate(stream, 1):
        metric.process(data_batch, [sample])
        if number in (items // 10, items // 2, items):
            found.append(settled() - start)
    base = settled()  # without the samples of the stream
    if Path('/proc/self/clear_refs').exists():
        Path('/proc/self/clear_refs').write_text('5')  # the peak so far is forgotten
    metric.evaluate(items)
    return [*found, found[-1] + _peak_mib() - base]


def _peak_mib() -> float:
    status = Path('/proc/self/status')
    lines = status.read_text().splitlines() if status.is_file() else []
    own = next((int(line.split()[1]) for line in lines if line.startswith('VmHWM')), None)
    return (own or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**10


def measure_memory(args: Any) -> None:
    """Prints a Markdown table; each metric is measured in a process of its own.

    Args:
        args: Of the command line: ``largest`` is the share of the items.
    """
    items = max(10, round(args.largest * ITEMS))
    parts = [f'{own:,}' for own in (items // 10, items // 2, items)]
    print(f'| MiB kept after | {" | ".join(parts)} | bytes an item | peak, MiB |\n|---|{"---:|" * 5}')
    for name in KINDS:
        with multiprocessing.get_context('spawn').Pool(1) as pool:
            *found, peak = pool.apply(measure, (name, items))
        kept = ' | '.join(f'{own:.1f}' for own in found)
        print(f'| {name} | {kept} | {found[-1] * 2**20 / items:,.0f} | {peak:.0f} |', flush=True)
