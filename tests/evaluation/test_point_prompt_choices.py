"""Point choices, bands of sizes, one row per prompt, and the model's own masks, by hand-worked numbers."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import nn

from genseg_mm.datasets.transforms import PointPrompt
from genseg_mm.evaluation import point_prompt_metric
from genseg_mm.evaluation.point_prompt_metric import PointPromptMetric
from genseg_mm.evaluation.point_prompt_scores import size_band
from genseg_mm.evaluation.sample_results import SampleResults
from genseg_mm.functional.point_prompting import masks_from_points, prompt_settings
from genseg_mm.models import Gen2Seg


class AsItIs(nn.Module):
    """A colorer whose raw map is the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def sample(colors: torch.Tensor, ids: torch.Tensor, **meta: object) -> SegDataSample:
    """The points of PointPrompt unless others are given."""
    drawn = PointPrompt()(dict(gt_instance_map=ids.numpy(), **meta))
    result = SegDataSample(pred_color_map=PixelData(data=colors.float()), gt_instance_map=PixelData(data=ids[None]))
    result.set_metainfo({**{key: drawn[key] for key in drawn if key != 'gt_instance_map'}, **meta})
    return result


def evaluate(metric: PointPromptMetric, samples: list[SegDataSample]) -> dict[str, float]:
    evaluator = Evaluator(metric)
    evaluator.process(samples, None)
    return evaluator.evaluate(len(samples))


def striped() -> tuple[torch.Tensor, torch.Tensor]:
    """A 3 x 3 instance at (1, 1) of a 5 x 5 picture: its columns are red 100, 100 and 200."""
    ids = torch.zeros(5, 5, dtype=torch.int64)
    ids[1:4, 1:4] = 1
    colors = torch.zeros(3, 5, 5)
    colors[0, 1:4, 1:3] = 100
    colors[0, 1:4, 3] = 200
    return colors, ids


def test_all_points_of_a_small_instance_by_hand():
    """Six prompts find the six pixels of 100, IoU 6 / 9; three find the column of 200, 3 / 9."""
    colors, ids = striped()
    settings = dict(threshold=50.0, sigma=0, controls=False)
    result = evaluate(PointPromptMetric(point_choice='all', **settings), [sample(colors, ids)])
    assert result['mIoU'] == pytest.approx(100 * (6 * 6 / 9 + 3 * 3 / 9) / 9)
    assert result['num_prompts'] == 1
    # Of four points, (1, 2), (2, 2), (2, 3) and (3, 3), one has the other colour.
    metric = PointPromptMetric(point_choice='all', num_all=4, **settings)
    result = evaluate(metric, [sample(colors, ids)])
    assert result['mIoU'] == pytest.approx(100 * (3 * 6 / 9 + 3 / 9) / 4)


def test_best_radius_is_chosen_on_all_that_is_scored():
    """IoU at radius 20 is 6 / 9 and 15 / 25, at 150 it is 9 / 25 and 1."""
    colors, ids = striped()
    whole = torch.zeros(3, 5, 5)
    whole[0, :, :3], whole[0, :, 3:] = 100, 200
    samples = [sample(colors, ids), sample(whole, torch.ones_like(ids))]
    settings = dict(threshold='best', radii=(20, 150), sigma=0, controls=False)
    result = evaluate(PointPromptMetric(point_choice='deepest', **settings), samples)
    assert result['mIoU'] == pytest.approx(100 * (9 / 25 + 1) / 2)
    assert result['radius'] == 150
    result = evaluate(PointPromptMetric(point_choice='deepest', **settings), samples[:1])
    assert result['mIoU'] == pytest.approx(100 * 6 / 9) and result['radius'] == 20


def test_several_choices_beside_each_other():
    colors, ids = striped()
    colors[0, 2, 2] = 0  # the middle has the colour of the ground: 17 pixels, one of the instance
    one = sample(colors, ids, points=np.array([[[3.0, 1.0]]]), img_path='a.png')
    choices = ('given', 'deepest', 'all')
    metric = PointPromptMetric(50.0, sigma=0, point_choice=choices, controls=False)
    result = evaluate(metric, [one])
    assert result['mIoU'] == pytest.approx(100 * 3 / 9)
    assert result['deepest_mIoU'] == pytest.approx(100 * 1 / 25)
    assert result['all_mIoU'] == pytest.approx(100 * (5 * 5 / 9 + 3 * 3 / 9 + 1 / 25) / 9)


def test_random_is_what_the_transform_draws():
    """Also in another selection of instances and for own ids that are no numbers of the map."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros(20, 30, dtype=torch.int64)
    ids[2:9, 3:12], ids[10:18, 14:29], ids[1:5, 20:28] = 1, 2, 3
    colors = torch.rand(3, 20, 30, generator=generator) * 255
    meta = dict(img_path='x/7.png', map_ann_ids=[900, 17, 33])
    settings = dict(threshold=120.0, sigma=0, controls=False)
    given = evaluate(PointPromptMetric(**settings), [sample(colors, ids, **meta)])
    drawn = evaluate(PointPromptMetric(point_choice='random', **settings), [sample(colors, ids, **meta)])
    assert given == drawn and 0 < given['mIoU'] < 100
    seeded = PointPromptMetric(point_choice='random', seed=1, **settings)
    assert evaluate(seeded, [sample(colors, ids, **meta)])['mIoU'] != given['mIoU']

    def iou_of_17(metric: PointPromptMetric, one: SegDataSample) -> float:
        metric.process(None, [one.to_dict()])
        entry = metric.results[0]
        return float(entry['ious'][0, entry['own_ids'].tolist().index(17), 0])

    alone = torch.where(ids == 2, 1, 0)
    meta = dict(img_path='elsewhere/7.png', map_ann_ids=[17], sample_idx=4)
    metrics = [PointPromptMetric(point_choice='random', **settings) for _ in range(2)]
    whole = sample(colors, ids, img_path='x/7.png', map_ann_ids=[900, 17, 33])
    assert iou_of_17(metrics[0], whole) == iou_of_17(metrics[1], sample(colors, alone, **meta))


def test_bands_of_sizes_on_their_bounds():
    areas = np.array([0, 1023.9, 1024, 9216, 9216.1, 1e6])
    bands = ['small', 'small', 'medium', 'medium', 'large', 'large']
    assert size_band(areas).tolist() == bands


def test_means_of_bands_and_subsets_by_hand():
    """Four squares of 32 x 32 (1024 pixels, medium), of which the map shows a part in their colour."""

    def picture(shown: int, **meta: object) -> SegDataSample:
        ids = torch.zeros(40, 120, dtype=torch.int64)
        colors = torch.zeros(3, 40, 120)
        for place in (0, 1):
            left = 2 + 50 * place
            ids[4:36, left : left + 32] = place + 1
            colors[place, 4 : 4 + shown, left : left + 32] = 255
        points = np.array([[[2.0, 4.0]], [[52.0, 4.0]]])
        return sample(colors, ids, points=points, **meta)

    samples = [
        picture(32, subset='easy', img_path='a.png'),
        picture(16, subset='easy', img_path='b.png', map_areas=[1023.0, 9217.0]),
        picture(8, subset='hard', img_path='c.png', map_areas=[np.nan, 4.0]),
    ]
    metric = PointPromptMetric(50.0, sigma=0, controls=False, size_bands=True)
    result = evaluate(metric, samples)
    expected = dict(
        easy_mIoU=75.0,  # 1, 1, 1/2, 1/2
        easy_small_mIoU=50.0,
        easy_medium_mIoU=100.0,
        easy_large_mIoU=50.0,
        hard_mIoU=25.0,
        hard_small_mIoU=25.0,
        hard_medium_mIoU=25.0,  # no area is stated: 1024 pixels
        mIoU=100 * (1 + 1 + 1 / 2 + 1 / 2 + 1 / 4 + 1 / 4) / 6,
        small_mIoU=100 * (1 / 2 + 1 / 4) / 2,
        medium_mIoU=100 * (1 + 1 + 1 / 4) / 3,
        large_mIoU=50.0,
        num_prompts=6,
    )
    assert {key: result[key] for key in expected} == pytest.approx(expected)
    assert 'hard_large_mIoU' not in result
    result = evaluate(PointPromptMetric(50.0, sigma=0, controls=False, size_bands=(2, 32)), samples)
    expected = dict(medium_mIoU=100 * (1 + 1 + 1 / 2 + 1 / 4 + 1 / 4) / 5, large_mIoU=50.0)  # 4 and 1024 are medium
    assert {key: result[key] for key in expected} == pytest.approx(expected)
    assert 'small_mIoU' not in result


def test_one_row_per_prompt_gives_the_metric_back(tmp_path: Path):
    colors, ids = striped()
    file = tmp_path / 'new' / 'samples.npz'
    samples = [
        sample(colors, ids, subset='val', img_path='0/a.png'),
        sample(colors, ids, subset='easy', img_path='1/a.png', map_ann_ids=[8], map_areas=[2000]),
        sample(torch.zeros(3, 5, 5), torch.zeros(5, 5, dtype=torch.int64), subset='easy', img_path='e.png'),
        sample(colors, ids, subset='hard', img_path='2/b#.png'),
    ]
    settings = dict(threshold='calibrate', radii=(20, 150), sigma=0, sample_file=str(file))
    metric = PointPromptMetric(point_choice='deepest', controls=False, **settings)
    result = evaluate(metric, samples)
    rows = SampleResults.load(file)
    assert list(rows.items) == ['easy/a.png#id 8', 'hard/b%23.png#id 1']  # not those of val
    assert rows.index.tolist() == [1, 3]
    assert rows.groups == dict(subset=['easy', 'hard'], size=['medium', 'small'], choice=['deepest', 'deepest'])
    assert set(rows.values) == {'iou'} and rows.metric('mIoU') == result['mIoU']
    assert rows.metric('mIoU', np.array([0])) == result['easy_mIoU']
    for number in 1, 3:  # two pictures of one name and subset
        meta = dict(img_path='3/a.png', img_id=f'{number}/a', subset='easy', img_shape=(5, 5))
        samples[number].set_metainfo(meta)
    evaluator = Evaluator(PointPromptMetric(point_choice=('given', 'deepest'), **settings))
    evaluator.process(samples, dict(inputs=[torch.zeros(3, 5, 5, dtype=torch.uint8)] * 4))
    result = evaluator.evaluate(4)
    rows = SampleResults.load(file)
    names = ['easy/1/a#id 8', 'easy/3/a#id 1']
    assert list(rows.items) == names + [f'{name} deepest' for name in names]
    assert set(rows.values) == {'iou', 'control_rgb', 'control_position', 'oracle_foreground'}
    assert 100 * rows.values['control_rgb'][2:].mean() == pytest.approx(result['easy_deepest_control_rgb'])
    assert 100 * rows.values['iou'][:2].mean() == pytest.approx(result['easy_mIoU'])


# The model's own masks


def model_and_sample(prompting: dict, num: int = 5) -> tuple[Gen2Seg, SegDataSample]:
    generator = torch.Generator().manual_seed(2)
    model = Gen2Seg(dict(type=AsItIs), prompting=prompting)
    blocks = torch.randint(0, num + 1, (6, 8), generator=generator)
    ids = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1)
    palette = torch.rand(num + 1, 3, generator=generator) * 2 - 1
    image = palette[ids].permute(2, 0, 1) + torch.rand(3, 48, 64, generator=generator) * 0.3
    one = sample(torch.zeros(3, 48, 64), ids, img_path='a.png')
    return model, model.predict(image[None], [one])[0]


@pytest.mark.parametrize(
    ('prompting', 'threshold', 'sigma'),
    [
        (dict(rule='reference'), 'reference', 0.01),
        ({}, 'reference', 0.01),
        (dict(rule='paper', sigma=0.02), 'paper', 0.02),
        (dict(radius=60.0, sigma=0.02), 60.0, 0.02),
        (dict(radius=60, smooth=False), 60.0, 0.01),
    ],
)
def test_masks_of_the_model_are_used_where_they_are_the_same(prompting, threshold, sigma):
    _, one = model_and_sample(prompting)
    metric = PointPromptMetric(threshold, sigma=sigma, controls=False)
    refuse = AssertionError('computed again')
    with (
        patch.object(point_prompt_metric, 'masks_from_points', side_effect=refuse),
        patch.object(point_prompt_metric, 'radius_ious', side_effect=refuse),
    ):
        result = evaluate(metric, [one])
    del one.pred_instances
    assert result == evaluate(PointPromptMetric(threshold, sigma=sigma, controls=False), [one])
    assert 0 < result['mIoU'] < 100


def test_masks_of_other_prompts_or_settings_are_not_used():
    model, one = model_and_sample(dict(rule='reference'))
    truth = evaluate(PointPromptMetric('reference', controls=False), [one])['mIoU']
    colors, prompts = (one.pred_color_map.data, dict(points=one.points, point_labels=one.point_labels))

    def result(instances: InstanceData) -> float:
        one.pred_instances = instances
        return evaluate(PointPromptMetric('reference', controls=False), [one])['mIoU']

    wrong = model.prompt(colors, **prompts)
    wrong.masks = ~wrong.masks
    assert result(wrong) != truth  # said to be the same, so taken
    for other in (
        model.prompt(colors, **prompts, rule='paper'),
        model.prompt(colors, **prompts, sigma=0.02),
        model.prompt(colors, **prompts, component=True),
        model.prompt(colors, **prompts, boxes=np.array([[0, 0, 64, 48]] * len(one.points))),
        model.prompt(colors, one.points[:, :, ::-1] % 48, one.point_labels),
        model.prompt(colors, one.points),
        InstanceData(masks=wrong.masks),
        wrong[:3],
    ):
        if 'masks' in other and len(other.masks) == len(wrong.masks):
            other.masks = ~other.masks  # whoever uses them is found out
        assert result(other) == truth


def test_prompt_settings():
    settings = prompt_settings(rule='paper')
    assert settings == dict(rule='paper', threshold=3 / 255, radius=None, sigma=0.01, smooth=True, component=False)
    assert prompt_settings(radius=4, rule='paper') == prompt_settings(radius=4.0, smooth=False)
    colors = torch.rand(3, 8, 8) * 255
    points = torch.tensor([[2.0, 3.0]])
    same = masks_from_points(colors, points, **prompt_settings()) == masks_from_points(colors, points)
    assert same.all()
    with pytest.raises(ValueError, match='expected settings out of rule, .* but got radios'):
        prompt_settings(radios=3)


# Bad input


def test_bad_input_is_named():
    for choice in ('centre', (), ('given', 'given'), ('all', 'none')):
        with pytest.raises(ValueError, match='point_choice must be one or several of'):
            PointPromptMetric(point_choice=choice)
    with pytest.raises(ValueError, match='num_all must be at least 1, but got 0'):
        PointPromptMetric(num_all=0)
    colors, ids = striped()
    metric = PointPromptMetric(50.0, point_choice='deepest', controls=False)

    def changed(**meta: object) -> list[dict]:
        one = sample(colors, ids, img_path='a.png')
        one.set_metainfo(meta)
        return [one.to_dict()]

    with pytest.raises(ValueError, match=r'a.png: .*the instance 9 has no pixel .*deepest'):
        metric.process(None, changed(point_ids=np.array([9]), point_keys=np.array([9])))
    with pytest.raises(ValueError, match=r'one of point_areas for each of the 1 .*got 2 \(a.png\)'):
        metric.process(None, changed(point_areas=np.array([9.0, 3.0])))
    with pytest.raises(ValueError, match=r'one of points for each of the 1 .*got 2 \(a.png\)'):
        metric.process(None, changed(points=np.zeros((2, 1, 2), np.float32)))
    one = sample(colors, ids, img_path='a.png')
    one.pred_foreground = PixelData(data=torch.ones(1, 2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r'pred_foreground of the size \(5, 5\).*got \(2, 5\)'):
        metric.process(None, [one.to_dict()])


def test_entries_survive_truncation_and_empty_pictures():
    """One entry per picture, also without any instance; what the loader repeats is cut off."""
    colors, ids = striped()
    nothing = torch.zeros(5, 5, dtype=torch.int64)
    samples = [sample(colors, nothing), sample(colors, ids), sample(colors, nothing)]
    metric = PointPromptMetric(50.0, sigma=0, point_choice=('given', 'all'), controls=False)
    metric.process(None, [one.to_dict() for one in [*samples, samples[1]]])
    assert len(metric.results) == 4
    result = metric.evaluate(3)
    assert result['num_prompts'] == 1
    assert result == evaluate(PointPromptMetric(50.0, sigma=0, point_choice=('given', 'all'), controls=False), samples)


@pytest.mark.parametrize('threshold', ['reference', 30.0])
def test_few_masks_at_once_change_nothing(threshold: str | float):
    """On large pictures fewer prompts are taken at a time."""
    colors, ids = striped()
    metric = dict(threshold=threshold, sigma=0.1, point_choice='all', controls=False)
    whole = evaluate(PointPromptMetric(**metric), [sample(colors, ids)])
    with patch.object(point_prompt_metric, 'MASK_PIXELS', 2 * 25):
        assert evaluate(PointPromptMetric(**metric), [sample(colors, ids)]) == whole
    with patch.object(point_prompt_metric, 'MASK_PIXELS', 1):  # one at a time at least
        assert evaluate(PointPromptMetric(**metric), [sample(colors, ids)]) == whole
