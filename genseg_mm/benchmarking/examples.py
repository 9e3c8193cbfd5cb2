"""Example pictures of a result: the best, the worst and some random items, each small enough for a web page."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor, nn

from genseg_mm import pictures
from genseg_mm.evaluation.sample_results import SampleResults
from genseg_mm.functional.color_maps import edge_strength
from genseg_mm.hooks.prediction_grid_hook import caption, draw_sample

_MAX_BYTES = 25_000
_PANEL_SIZE = 160
_COLUMNS = ('image', 'ground truth', 'prediction', 'colour map')


def item_scores(results: SampleResults) -> tuple[np.ndarray, np.ndarray]:
    """One score in [0, 1] per dataset item: the mean over its rows.

    Args:
        results: Of a metric; the score is its value 'iou', else that of its first mean.

    Returns:
        Dataset indices, ascending, and their scores; both empty if there is no such value.
    """
    names = ['iou', *(rule[1] for rule in results.aggregates.values() if rule[0] == 'mean')]
    name = next((name for name in names if name in results.values), None)
    if name is None or len(results.index) == 0:
        return np.zeros(0, np.int64), np.zeros(0)
    values = np.asarray(results.values[name], dtype=np.float64)
    indices, rows = np.unique(results.index, return_inverse=True)
    return indices, np.bincount(rows, values) / np.bincount(rows)


def choose_examples(
    indices: np.ndarray, scores: np.ndarray, num_each: int = 3, seed: int = 0
) -> list[tuple[str, int, float]]:
    """Items to show.

    Args:
        indices: Dataset indices, (N,).
        scores: (N,); of equal ones the smaller index counts as better.
        num_each: Of the best, the worst and the rest at random; fewer where there are too few items.
        seed: Of the random ones.

    Returns:
        (kind, index, score), no index twice: kinds 'best', 'worst' (worst first), 'random'.
    """
    order = np.lexsort((indices, -scores))
    num = min(num_each, (len(order) + 2) // 3)
    best, worst = order[:num], order[num:][::-1][:num]
    rest = np.setdiff1d(order, np.concatenate([best, worst]))
    drawn = np.random.default_rng(seed).permutation(rest)[:num]
    return [
        (kind, int(indices[place]), float(scores[place]))
        for kind, places in (('best', best), ('worst', worst), ('random', drawn))
        for place in places
    ]


def write_examples(folder: Path, model: nn.Module, dataset: Any, sample_file: Path, seed: int) -> list[dict]:
    """Predicts and draws the examples of a result.

    Args:
        folder: Of the result; pictures go to its folder ``examples``.
        model: Is put into eval mode.
        dataset: Of the benchmark.
        sample_file: Results per sample; where there is none, random items are shown without a score.
        seed: Of the random ones.

    Returns:
        As result.json lists them.
    """
    chosen: Sequence[tuple[str, int, float | None]]
    if sample_file.is_file():
        chosen = choose_examples(*item_scores(SampleResults.load(sample_file)), seed=seed)
    else:
        drawn = np.random.default_rng(seed).permutation(len(dataset))[:3]
        chosen = [('random', int(index), None) for index in drawn]
    (folder / 'examples').mkdir(exist_ok=True)
    written, numbers = [], dict.fromkeys(('best', 'worst', 'random'), 0)
    drawn = predicted_items(model, dataset, [index for _, index, _ in chosen])
    for (kind, _, score), (image, sample) in zip(chosen, drawn, strict=True):
        numbers[kind] += 1
        text = _text(sample, score)
        name = f'examples/{kind}_{numbers[kind]}.jpg'
        (folder / name).write_bytes(_small_jpeg(_draw(image, sample, text)))
        written.append(dict(kind=kind, file=name, caption=text, score=score))
    return written


def _text(sample: Any, score: float | None) -> str:
    """Caption with the score of the metric, whose masks may follow other rules than the model's own."""
    parts = [part for part in caption(sample).split(' · ') if part and not part.startswith('IoU ')]
    return ' · '.join(([] if score is None else [f'score {score:.2f}']) + parts)


def _draw(image: np.ndarray, sample: Any, text: str) -> np.ndarray:
    row = draw_sample(image, sample, _PANEL_SIZE)
    size = row['image'].shape[:2]
    if 'gt_boundaries' in sample:  # darker where more annotators drew one
        drawn = sample.gt_boundaries.data.float().mean(0)
        row['ground truth'] = _ink(drawn, size)
        edges = sample.pred_edges.data[0] if 'pred_edges' in sample else None
        if edges is None and 'pred_color_map' in sample:
            edges = edge_strength(sample.pred_color_map.data.float().cpu())
        if edges is not None:
            row['prediction'] = _ink(edges.float().cpu() / edges.max().clamp(min=1e-6), size)
    titles = [title for title in _COLUMNS if title in row]
    return pictures.compose(titles, [row], [text])


def _ink(strength: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Lines of strength in [0, 1], (H, W), dark on white."""
    gray = (255 * (1 - strength.clamp(0, 1))).to(torch.uint8).numpy()
    return pictures.fit(np.repeat(gray[..., None], 3, axis=2), size)


def _small_jpeg(picture: np.ndarray) -> bytes:
    """JPEG of at most 25 kB, at the best quality of a few that is small enough."""
    image = Image.fromarray(picture)
    for quality in (88, 78, 66, 54, 42, 30):
        file = io.BytesIO()
        image.save(file, 'JPEG', quality=quality, optimize=True)
        if file.tell() <= _MAX_BYTES:
            break
    return file.getvalue()


def predicted_items(
    model: nn.Module, dataset: Any, indices: Sequence[int]
) -> Iterator[tuple[np.ndarray, BaseDataElement]]:
    """Predicts items one by one, as :class:`genseg_mm.BenchmarkLoop` does.

    Args:
        model: Is put into eval mode.
        dataset: With a pipeline that packs; in test mode.
        indices: Which items, in this order.

    Yields:
        The network's input, BGR (3, h, w), and the data sample with ground truth and prediction.
    """
    model.eval()
    for index in indices:
        item = dataset[int(index)]
        image = np.asarray(item['inputs'])
        with torch.no_grad():
            (sample,) = model.test_step(pseudo_collate([item]))
        yield image, sample
