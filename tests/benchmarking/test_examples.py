"""Choice and drawing of example pictures."""

import io

import numpy as np
import torch
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image

from genseg_mm.benchmarking.examples import _draw, _small_jpeg, choose_examples, item_scores
from genseg_mm.evaluation.sample_results import SampleResults


def results(index: list, **values: list) -> SampleResults:
    arrays = {name: np.array(own, dtype=np.float64) for name, own in values.items()}
    aggregates = {'mIoU': ('mean', next(iter(values)))}
    items = [f'{number}.png#id {row}' for row, number in enumerate(index)]
    return SampleResults(items, np.array(index, dtype=np.int64), arrays, {}, aggregates)


def test_score_of_a_picture_is_the_mean_over_its_rows():
    indices, scores = item_scores(results([4, 1, 4, 2], iou=[0.5, 0.25, 1.0, 0.0]))
    assert indices.tolist() == [1, 2, 4]
    assert scores.tolist() == [0.25, 0.0, 0.75]
    indices, scores = item_scores(results([0, 1], f=[0.5, 0.75]))  # no 'iou': the first mean
    assert scores.tolist() == [0.5, 0.75]


def test_best_worst_and_random_ones_of_the_rest():
    scores = np.array([0.5, 0.9, 0.1, 0.9, 0.3, 0.7, 0.2, 0.4])
    chosen = choose_examples(np.arange(8) + 10, scores, num_each=2, seed=0)
    assert chosen[:4] == [
        ('best', 11, 0.9), ('best', 13, 0.9), ('worst', 12, 0.1), ('worst', 16, 0.2),
    ]  # fmt: skip
    rest = {10: 0.5, 14: 0.3, 15: 0.7, 17: 0.4}
    assert [kind for kind, *_ in chosen[4:]] == ['random', 'random']
    assert all(rest[index] == score for _, index, score in chosen[4:])
    assert chosen == choose_examples(np.arange(8) + 10, scores, num_each=2, seed=0)


def test_few_items_are_shown_once():
    for num in (0, 1, 2, 4):
        chosen = choose_examples(np.arange(num), np.linspace(0, 1, num))
        indices = [index for _, index, _ in chosen]
        assert len(set(indices)) == len(indices) == num
    kinds = [kind for kind, *_ in choose_examples(np.arange(2), np.array([0.0, 1.0]))]
    assert kinds == ['best', 'worst']


def test_pictures_are_small_and_show_boundaries():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 96, 96), dtype=np.uint8)
    boundaries = torch.zeros(2, 96, 96, dtype=torch.uint8)
    boundaries[:, 48] = 1
    colors = torch.zeros(3, 96, 96)
    colors[:, 48:] = 200.0
    sample = BaseDataElement(metainfo=dict(ori_shape=(96, 96)))
    sample.gt_boundaries = PixelData(data=boundaries)
    sample.pred_color_map = PixelData(data=colors)
    drawn = _draw(image, sample, 'score 0.5')
    blank = _draw(image, BaseDataElement(metainfo=dict(ori_shape=(96, 96))), '')
    assert drawn.shape[1] == 4 * 160 + 5 * 4 and blank.shape[1] == 160 + 2 * 4
    truth = drawn[19 : 19 + 160, 168:328]
    assert truth[80].max() < 60 and truth[20].min() > 250  # the line is dark, the rest white
    noise = rng.integers(0, 256, (190, 660, 3), dtype=np.uint8)
    for picture in (drawn, noise):
        data = _small_jpeg(picture)
        assert Image.open(io.BytesIO(data)).size == picture.shape[1::-1]
    assert len(_small_jpeg(drawn)) <= 25_000
