"""The point-prompt metric by hand."""

import os
import socket
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from genseg_mm.datasets import PointPrompt
from genseg_mm.evaluation.collapse_share import MapSums, collapse_share
from genseg_mm.evaluation.point_prompt_metric import PointPromptMetric
from genseg_mm.evaluation.point_prompt_scores import mask_ious, radius_ious
from genseg_mm.functional.color_maps import position_map

HALVES = torch.tensor([[1, 1, 2, 2]] * 4)  # two instances, no background
RED, BLUE = torch.tensor([255.0, 0, 0]), torch.tensor([0, 0, 255.0])


def sample(
    colors: torch.Tensor,
    ids: torch.Tensor = HALVES,
    points: tuple = ((0, 0), (3, 3)),
    point_ids: tuple = (1, 2),
    subset: str | None = None,
    **meta: object,
) -> SegDataSample:
    result = SegDataSample()
    result.pred_color_map = PixelData(data=colors.float())
    result.gt_instance_map = PixelData(data=ids[None])
    result.set_metainfo(
        dict(
            points=np.asarray(points, np.float32).reshape(len(point_ids), -1, 2),
            point_labels=np.ones((len(point_ids), 1), np.int64),
            point_ids=np.asarray(point_ids),
            ori_shape=tuple(ids.shape),
            img_shape=tuple(ids.shape),
            **({} if subset is None else {'subset': subset}),
            **meta,
        )
    )
    return result


def flat_colors(ids: torch.Tensor = HALVES) -> torch.Tensor:
    """Perfect map: instance 1 red, instance 2 blue, background black."""
    palette = torch.stack([torch.zeros(3), RED, BLUE])
    return palette[ids].permute(2, 0, 1)


def grey_images(num: int, size: tuple[int, int] = (4, 4)) -> dict:
    return dict(inputs=[torch.full((3, *size), 90, dtype=torch.uint8) for _ in range(num)])


def evaluate(metric: PointPromptMetric, samples: list, images: dict | None = None, batch: int = 2):
    evaluator = Evaluator(metric)
    images = images or grey_images(len(samples), tuple(samples[0].gt_instance_map.shape))
    for start in range(0, len(samples), batch):
        part = slice(start, start + batch)
        evaluator.process(samples[part], dict(inputs=images['inputs'][part]))
    return evaluator.evaluate(len(samples))


# Pieces


def test_radius_ious_by_hand():
    colors = torch.zeros(3, 2, 2)
    colors[0] = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    radii = torch.tensor([0.5, 1.0, 2.0, 9.0])  # strictly nearer: 1, 1, 2 and 4 pixels
    points, truth = torch.tensor([[[0.0, 0.0]]]), [torch.tensor([0, 1])]
    assert radius_ious(colors, points, truth, radii, 0).tolist() == [[0.5, 0.5, 1.0, 0.5]]
    left = torch.tensor([[True, False], [True, False]])
    found = radius_ious(colors, points, truth, radii, 0, left)
    assert found.tolist() == [[0.5, 0.5, 0.5, 1 / 3]]
    two_points = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])  # the nearer of two colours counts
    found = radius_ious(colors, two_points, truth, radii, 0)
    assert found.tolist() == [[1 / 3, 1 / 3, 0.5, 0.5]]


def test_mask_ious_equal_a_loop():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(5, 6, 7, generator=generator) < 0.5
    true = torch.rand(5, 6, 7, generator=generator) < 0.4
    allowed = torch.rand(6, 7, generator=generator) < 0.8
    truth = [own.flatten().nonzero()[:, 0] for own in true]
    for cut in (None, allowed):
        found = mask_ious(masks, truth, cut)
        for k in range(5):
            mask = masks[k] if cut is None else masks[k] & cut
            assert found[k] == float((mask & true[k]).sum()) / float((mask | true[k]).sum())


def test_empty_mask_on_empty_truth_is_zero():
    nothing = torch.zeros(0, dtype=torch.int64)
    assert mask_ious(torch.zeros(1, 2, 2).bool(), [nothing]).tolist() == [0.0]


def share_of(maps: np.ndarray) -> float:
    return collapse_share(MapSums.of(own) for own in maps)


def test_collapse_share_by_hand():
    same = np.arange(12.0).reshape(1, 3, 2, 2).repeat(4, axis=0)
    assert share_of(same) == 1.0
    opposite = np.stack([same[0], -same[0]])
    assert share_of(opposite) == 0.0
    # Values a + b with a the same for all images, b = +-1 of a zero mean: var(a) / (var(a) + 1).
    fixed = np.array([[[[-2.0, 2.0]]]]).repeat(3, axis=1)
    maps = np.concatenate([fixed + 1, fixed - 1])
    assert share_of(maps) == 4 / 5
    assert share_of(np.full((3, 3, 2, 2), 8.0)) == 1.0


def test_collapse_share_is_that_of_all_maps_at_once_in_any_order():
    maps = np.random.default_rng(0).uniform(0, 255, (40, 3, 9, 8)).astype(np.float32)
    maps[:, :, :4] *= np.float32(0.01)
    exact = maps.astype(np.float64)
    mean_color = exact.mean((0, 2, 3))[:, None, None]
    expected = ((exact.mean(0) - mean_color) ** 2).mean() / ((exact - mean_color) ** 2).mean()
    assert share_of(maps) == pytest.approx(expected, rel=1e-12) and 0.1 < expected < 0.9
    parts = [sum((MapSums.of(own) for own in half[1:]), MapSums.of(half[0])) for half in (maps[::-2], maps[::2])]
    assert collapse_share(parts) == share_of(maps[::-1]) == share_of(maps)


def test_position_map_by_hand():
    places = position_map((3, 2))
    assert places[0].tolist() == [[0, 255]] * 3
    assert places[1].tolist() == [[0, 0], [127.5, 127.5], [255, 255]]
    assert places[2].abs().max() == 0


# The metric


def test_perfect_map_and_controls_by_hand():
    # Radius 100. The grey image takes all 16 pixels: 8 / 16. The position disk around a corner of a 4x4 map (steps of
    # 85) holds it and its two neighbours, all of the right half: 3 / 8.
    result = evaluate(PointPromptMetric(threshold=100.0), [sample(flat_colors())])
    assert result == {
        'mIoU': pytest.approx(100.0),
        'control_rgb': pytest.approx(50.0),
        'control_position': pytest.approx(37.5),
        'oracle_foreground': pytest.approx(37.5),
        'collapse_share': pytest.approx(1.0),
        'radius': 100.0,
        'num_prompts': 2,
        'instances_without_prompt': 0,
    }
    alone = evaluate(PointPromptMetric(threshold=100.0, controls=False), [sample(flat_colors())])
    kept = ('mIoU', 'collapse_share', 'radius', 'num_prompts', 'instances_without_prompt')
    assert alone == {key: result[key] for key in kept}


def test_oracle_is_the_position_disk_within_the_foreground():
    ids = torch.zeros(4, 4, dtype=torch.long)
    ids[0, :3] = 1  # of the disk {(0, 0), (1, 0), (0, 1)} only two pixels are foreground
    one = sample(flat_colors(ids), ids, points=((0, 0),), point_ids=(1,))
    result = evaluate(PointPromptMetric(threshold=100.0), [one])
    assert result['control_position'] == pytest.approx(100 * 2 / 4)
    assert result['oracle_foreground'] == pytest.approx(100 * 2 / 3)


def test_raw_image_is_the_loaders_image_at_the_original_size():
    """An image that shows the two halves in two greys, stored at half the size."""
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    image[:, :, 1] = 200
    one = sample(torch.zeros(3, 4, 4))
    one.set_metainfo(dict(img_shape=(2, 2)))
    result = evaluate(PointPromptMetric(threshold=10.0), [one], dict(inputs=[image]))
    # Bilinear: columns 0, 50, 150, 200. A radius of 10 finds the prompt's column: 4 of 8.
    assert result['control_rgb'] == pytest.approx(50.0)
    assert result['mIoU'] == pytest.approx(50.0)  # the black map takes everything
    padded = torch.nn.functional.pad(image, (0, 3, 0, 1), value=77)
    assert result == evaluate(PointPromptMetric(threshold=10.0), [one], dict(inputs=[padded]))


def test_radius_is_chosen_on_val_for_each_map_and_used_elsewhere():
    """On val, 60 joins the two shades of each half. In the seen scene it takes an alien one too."""
    shades = flat_colors()
    shades[1, :, 1] = 40.0  # second column: 40 away from the first
    shades[1, :, 2] = 40.0
    val = sample(shades, subset='val')
    other = flat_colors()
    other[:, :, 2] = torch.tensor([[255.0], [50.0], [0.0]])  # column of instance 2 that looks like 1
    seen = sample(other, subset='seen')
    metric = PointPromptMetric('calibrate', radii=(30, 60, 500))
    result = evaluate(metric, [val, seen])
    assert result['radius'] == 60
    assert result['val_mIoU'] == pytest.approx(100.0)
    # Prompt 1 takes 12 pixels for 8: 8 / 12. Prompt 2 misses column 2: 4 / 8.
    assert result['seen_mIoU'] == pytest.approx(100 * (8 / 12 + 4 / 8) / 2)
    # The position disk: radius 30 one pixel, 60 the same, 500 everything: 8 / 16 wins over 1 / 8.
    assert result['seen_control_position'] == pytest.approx(50.0)


def test_smallest_of_equally_good_radii():
    samples = [sample(flat_colors(), subset='val'), sample(flat_colors(), subset='seen')]
    assert evaluate(PointPromptMetric('calibrate', radii=(300, 20, 100)), samples)['radius'] == 20


def test_calibration_without_calibration_samples():
    with pytest.raises(ValueError, match=r"needs prompts in the subset 'val', but got the subsets \['seen'\]"):
        evaluate(PointPromptMetric('calibrate'), [sample(flat_colors(), subset='seen')])


@pytest.mark.parametrize('rule', ['reference', 'paper'])
def test_rules_of_the_reference_and_the_paper_need_no_calibration(rule: str):
    ids = HALVES.repeat_interleave(8, 0).repeat_interleave(8, 1)
    one = sample(flat_colors(ids), ids, points=((7, 16), (24, 16)), subset='test')
    result = evaluate(PointPromptMetric(threshold=rule), [one], grey_images(1, (32, 32)))
    assert result['test_mIoU'] == pytest.approx(100.0)
    assert result['test_control_rgb'] == 0.0  # a map of one colour has no contrast to a rule
    assert 'radius' not in result


@pytest.mark.parametrize('subset', [None, 'test', 'val'])
def test_defaults_take_any_evaluation_set(subset: str | None):
    ids = HALVES.repeat_interleave(8, 0).repeat_interleave(8, 1)
    prompted = sample(flat_colors(ids), ids, points=((7, 16), (24, 16)), subset=subset)
    result = evaluate(PointPromptMetric(), [prompted], grey_images(1, (32, 32)))
    name = f'{subset}_mIoU' if subset else 'mIoU'
    assert result[name] == result['mIoU'] == pytest.approx(100.0)
    assert 'radius' not in result


def test_points_that_the_pipeline_does_not_give_are_those_of_point_prompt():
    ids = HALVES.repeat_interleave(8, 0).repeat_interleave(8, 1)
    colors = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    drawn = PointPrompt()(dict(gt_instance_map=ids.numpy(), img_path='a.png'))
    given = sample(colors, ids, drawn['points'], tuple(drawn['point_ids']), img_path='a.png')
    bare = sample(colors, ids, img_path='a.png')
    for key in ('points', 'point_labels', 'point_ids'):
        bare.set_metainfo({key: None})
    images = grey_images(1, (32, 32))
    result = evaluate(PointPromptMetric(40.0, sigma=0), [given], images)
    assert 0 < result['mIoU'] < 50
    assert evaluate(PointPromptMetric(40.0, sigma=0), [bare], images) == result


def test_several_points_of_a_prompt_join():
    """Instance 1 in two shades: either point alone finds half of it."""
    shades = flat_colors()
    shades[1, :, 1] = 200.0
    one = sample(shades, points=((0, 0), (1, 0)), point_ids=(1,))
    one.set_metainfo(dict(point_labels=np.ones((1, 2), np.int64)))
    assert evaluate(PointPromptMetric(threshold=50.0), [one])['mIoU'] == pytest.approx(100.0)
    single = sample(shades, points=((0, 0),), point_ids=(1,))
    assert evaluate(PointPromptMetric(threshold=50.0), [single])['mIoU'] == pytest.approx(50.0)


def test_query_color_is_the_pixels_own_or_a_mean_around_it():
    ramp = torch.zeros(3, 5, 5)
    ramp[0] = torch.tensor([0.0, 0, 100, 0, 0])
    ids = (ramp[0] > 0).long()
    one = sample(ramp, ids, points=((2, 2),), point_ids=(1,))
    assert evaluate(PointPromptMetric(threshold=50.0, sigma=0), [one])['mIoU'] == 100.0
    # With a wide spread the query is nearer to the black around: the mask is the rest of the image.
    assert evaluate(PointPromptMetric(threshold=50.0, sigma=1.0), [one])['mIoU'] == 0.0


def test_instances_without_prompt_are_counted():
    one = sample(flat_colors(), points=((0, 0),), point_ids=(1,))
    result = evaluate(PointPromptMetric(threshold=100.0), [one])
    assert (result['num_prompts'], result['instances_without_prompt']) == (1, 1)


def test_subsets_keep_their_own_means_and_calibration_stays_out_of_the_collapse_share():
    black, perfect = torch.zeros(3, 4, 4), flat_colors()
    samples = [sample(perfect, subset='val'), sample(black, subset='seen'), sample(perfect, subset='unseen')]
    result = evaluate(PointPromptMetric('calibrate', radii=(50,), grid_size=4), samples)
    assert (result['seen_mIoU'], result['unseen_mIoU'], result['mIoU']) == (50.0, 100.0, 75.0)
    assert result['collapse_share'] == share_of(torch.stack([black, perfect]).numpy())


def random_samples(num: int = 7) -> list[SegDataSample]:
    generator = torch.Generator().manual_seed(3)
    samples = []
    for i in range(num):
        ids = torch.randint(0, 3, (6, 6), generator=generator)
        ids[0, 0], ids[5, 5] = 1, 2
        colors = flat_colors(ids) * 0.3 + torch.rand(3, 6, 6, generator=generator) * 60
        samples.append(sample(colors, ids, ((0, 0), (5, 5)), subset=('val', 'seen', 'unseen')[i % 3], sample_idx=i))
    return samples


def random_images(num: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(0, 256, (3, 6, 6), dtype=torch.uint8, generator=generator) for _ in range(num)]


EVERYTHING = dict(threshold='calibrate', point_choice=('given', 'random', 'deepest', 'all'), num_all=5, size_bands=True)


@pytest.mark.parametrize('batch', [1, 3, 7])
@pytest.mark.parametrize('settings', [dict(threshold='calibrate'), EVERYTHING], ids=['calibrated', 'everything'])
def test_same_result_for_any_batch_size(batch: int, settings: dict):
    images = dict(inputs=random_images())
    whole = evaluate(PointPromptMetric(**settings), random_samples(), images, 2)
    assert evaluate(PointPromptMetric(**settings), random_samples(), images, batch) == whole


def test_same_result_for_two_processes_whose_loader_pads():
    """Each rank gets every second sample; the shorter one repeats a sample, which is cut off."""
    samples, images = random_samples(), random_images()
    whole = evaluate(PointPromptMetric(**EVERYTHING), samples, dict(inputs=images))
    parts = []
    for rank in range(2):
        metric = PointPromptMetric(**EVERYTHING)
        own = ([*range(7), 0])[rank::2]
        metric.process(dict(inputs=[images[i] for i in own]), [samples[i].to_dict() for i in own])
        assert len(metric.results) == len(own)
        parts.append(metric.results)
    merged = [entry for entry in chain.from_iterable(zip_longest(*parts)) if entry is not None]
    assert PointPromptMetric(**EVERYTHING).compute_metrics(merged[:7]) == whole


def _evaluate_on_rank(rank: int, port: int, results: dict) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.distributed.init_process_group('gloo')
    samples, images = random_samples(), random_images()
    metric = PointPromptMetric('calibrate')
    for i in [*range(7), 0][rank::2]:
        metric.process(dict(inputs=[images[i]]), [samples[i].to_dict()])
    results[rank] = metric.evaluate(7)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_same_result_for_two_real_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # mmengine collects in a folder of the current one
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    results = torch.multiprocessing.get_context('spawn').Manager().dict()
    torch.multiprocessing.spawn(_evaluate_on_rank, (port, results), nprocs=2)
    whole = evaluate(PointPromptMetric('calibrate'), random_samples(), dict(inputs=random_images()))
    assert results[0] == whole
    assert results[1] == whole


def test_bad_input_is_named():
    metric = PointPromptMetric(threshold=10.0)
    batch = grey_images(1)

    def without(key: str) -> list[dict]:
        given = sample(flat_colors(), img_path='a.png').to_dict()
        del given[key]
        return [given]

    for key in ('points', 'point_ids'):
        with pytest.raises(ValueError, match=rf'expects {key}, .* \(a.png\); add .*PointPrompt'):
            PointPromptMetric(10.0, point_choice='given').process(batch, without(key))
    with pytest.raises(ValueError, match=r'expects gt_instance_map, .*\(a.png\); add .*LoadInstanceMap'):
        metric.process(batch, without('gt_instance_map'))
    with pytest.raises(ValueError, match=r'expects pred_color_map.*but got neither \(a.png\)'):
        metric.process(batch, without('pred_color_map'))
    with pytest.raises(ValueError, match=r'original size \(4, 4\), but got \(2, 4\)'):
        metric.process(batch, [sample(flat_colors(), HALVES[:2]).to_dict()])
    with pytest.raises(ValueError, match='raw-image control, but got None'):
        metric.process(None, [sample(flat_colors()).to_dict()])
    for label in (0, -1):
        other = sample(flat_colors())
        other.set_metainfo(dict(point_labels=np.full((2, 1), label)))
        with pytest.raises(ValueError, match='positive points only'):
            metric.process(batch, [other.to_dict()])
    with pytest.raises(ValueError, match='no point prompt in 0 samples'):
        metric.compute_metrics([])
    for threshold in ('otsu', 0, -1.0):
        with pytest.raises(ValueError, match='threshold must be'):
            PointPromptMetric(threshold=threshold)
    for settings, message in (
        (dict(threshold='best', radii=()), r'radii must be positive, at least one, but got \(\)'),
        (dict(threshold='best', radii=(5, 0)), 'radii must be positive'),
        (dict(radii=(5, 8)), "chooses from, but got radii with threshold='reference'"),
        (dict(sigma=-0.1), 'sigma must be 0 or positive, but got -0.1'),
        (dict(size_bands=(24, 12)), r'size_bands must be True, False or two sides .* but got \(24, 12\)'),
        (dict(grid_size=0), 'grid_size must be at least 1, but got 0'),
    ):
        with pytest.raises(ValueError, match=message):
            PointPromptMetric(**settings)
    broken = flat_colors().float()
    broken[1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match=r'\(b.png\): expected a prediction of finite colours'):
        metric.process(batch, [sample(broken, img_path='b.png').to_dict()])


def test_seg_logits_of_an_mmseg_segmentor_are_taken_as_colors():
    one = sample(flat_colors())
    one.seg_logits = PixelData(data=flat_colors())
    del one.pred_color_map
    assert evaluate(PointPromptMetric(threshold=100.0), [one])['mIoU'] == 100.0


def test_a_subclass_refuses_a_dataset_without_the_part_to_calibrate_on():
    class Mine(PointPromptMetric):
        pass

    class Part:
        def __init__(self, subset: str | None) -> None:
            self.subset = subset

    class Joined:
        def __init__(self, *subsets: str | None) -> None:
            self.datasets = [Part(own) for own in subsets]

    with pytest.raises(ValueError, match=r"^val_evaluator: .* with subset='val', but got the subsets \['', 'seen'\]"):
        Mine('calibrate').check_dataset(Joined('seen', None), 'val_evaluator')
    Mine('calibrate').check_dataset(Joined('seen', 'val'), 'val_evaluator')
    Mine('calibrate').check_dataset(object(), 'val_evaluator')  # only the samples can tell
    Mine('reference').check_dataset(Joined('seen'), 'val_evaluator')
