"""ReferringMetric on 4x4 maps worked out by hand."""

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from genseg_mm.evaluation.referring_metric import ReferringMetric

EMPTY = '.... .... .... ....'
ROW = '#### .... .... ....'  # 4 pixels
TWO_ROWS = '#### #### .... ....'  # 8 pixels
CORNER = '##.. ##.. .... ....'  # 4 pixels, 2 of them in ROW
BOTTOM = '.... .... .... ####'


def as_map(drawing: str) -> torch.Tensor:
    """Rows of '#' (1), '.' (0) and '?' (255) -> (1, 4, 4) uint8."""
    values = {'#': 1, '.': 0, '?': 255}
    rows = [[values[pixel] for pixel in row] for row in drawing.split()]
    return torch.tensor(rows, dtype=torch.uint8)[None]


def sample(prediction: str, target: str, **meta) -> dict:
    return dict(pred_sem_seg=dict(data=as_map(prediction)), gt_sem_seg=dict(data=as_map(target)), **meta)


def evaluate(pairs: list, **kwargs) -> dict:
    metric = ReferringMetric(**kwargs)
    for pair in pairs:
        metric.process({}, [pair if isinstance(pair, dict) else sample(*pair)])
    return metric.evaluate(len(pairs))


# IoU 1 (4/4), 1/2 (4/8), 2/6, 0 (0/8)
FOUR = [(ROW, ROW), (TWO_ROWS, ROW), (CORNER, ROW), (BOTTOM, ROW)]


@pytest.mark.parametrize('protocol', ['lavt', 'lisa'])
def test_hand_worked(protocol):
    metrics = evaluate(FOUR, protocol=protocol)
    assert metrics == {
        'oIoU': pytest.approx(100 * (4 + 4 + 2 + 0) / (4 + 8 + 6 + 8), abs=1e-12),
        'mIoU': pytest.approx(100 * (1 + 1 / 2 + 1 / 3 + 0) / 4, abs=1e-12),
        'Pr@0.5': 50.0,
        'Pr@0.6': 25.0,
        'Pr@0.7': 25.0,
        'Pr@0.8': 25.0,
        'Pr@0.9': 25.0,
    }


@pytest.mark.parametrize(('protocol', 'of_empty'), [('lavt', 0.0), ('lisa', 1.0)])
def test_empty_prediction_on_empty_target(protocol, of_empty):
    metrics = evaluate([(EMPTY, EMPTY), (TWO_ROWS, ROW), (ROW, EMPTY)], protocol=protocol)
    assert metrics['mIoU'] == pytest.approx(100 * (of_empty + 0.5 + 0) / 3, abs=1e-12)
    assert metrics['oIoU'] == pytest.approx(100 * 4 / (0 + 8 + 4), abs=1e-12)
    assert metrics['Pr@0.9'] == pytest.approx(100 * of_empty / 3, abs=1e-12)
    alone = evaluate([(EMPTY, EMPTY)], protocol=protocol)
    assert alone['mIoU'] == 100 * of_empty
    assert alone['oIoU'] == 0.0


@pytest.mark.parametrize('protocol', ['lavt', 'lisa', 'grefcoco'])
def test_ignored_pixels_leave_intersection_and_union(protocol):
    # Ignored: the second row (predicted) and one target pixel's place. Left: I = 3, U = 3 + 1.
    metrics = evaluate([('#### #### ...# ....', '###? ???? .... ....')], protocol=protocol)
    assert metrics['oIoU'] == metrics['mIoU'] == 75.0
    everything = evaluate([(ROW, '???? ???? ???? ????')], protocol=protocol)
    assert everything['mIoU'] == (0.0 if protocol == 'lavt' else 100.0)
    assert everything['oIoU'] == 0.0


def test_other_ignore_index():
    pair = sample(TWO_ROWS, '#### ???? .... ....')
    pair['gt_sem_seg']['data'][pair['gt_sem_seg']['data'] == 255] = 7
    assert evaluate([pair], ignore_index=7)['oIoU'] == 100.0
    with pytest.raises(ValueError, match=r'gt_sem_seg must be 0, 1 or 255 .* but got 7'):
        evaluate([pair])


def test_grefcoco_table():
    pairs = [
        (EMPTY, EMPTY),  # no target, said so: 1, adds nothing
        (ROW, EMPTY),  # no target, not said so: 0, adds its area 4 to U
        (EMPTY, ROW),  # target, refused: 0, adds U = 4
        (TWO_ROWS, ROW),  # 4 / 8
        ('#... .... .... ....', '#... .... .... ....'),  # 1 / 1
    ]
    metrics = evaluate(pairs, protocol='grefcoco')
    assert metrics['gIoU'] == metrics['mIoU'] == pytest.approx(100 * (1 + 0 + 0 + 0.5 + 1) / 5)
    assert metrics['cIoU'] == metrics['oIoU'] == pytest.approx(100 * (4 + 1) / (4 + 4 + 8 + 1))
    assert metrics['N-acc'] == 50.0
    assert metrics['T-acc'] == pytest.approx(100 * 2 / 3)
    assert metrics['Pr@0.5'] == pytest.approx(100 * 2 / 3)
    assert metrics['Pr@0.6'] == metrics['Pr@0.9'] == pytest.approx(100 / 3)


def test_grefcoco_small_masks_say_nothing():
    pairs = [
        (ROW, EMPTY),  # 4 pixels < 5: said so, adds nothing although it has pixels
        (ROW, CORNER),  # refused although it overlaps: I forced to 0, U = 6
        (TWO_ROWS, ROW),  # 8 pixels >= 5: 4 / 8
    ]
    metrics = evaluate(pairs, protocol='grefcoco', min_pixels=5)
    assert metrics['gIoU'] == pytest.approx(100 * (1 + 0 + 0.5) / 3)
    assert metrics['cIoU'] == pytest.approx(100 * 4 / (0 + 6 + 8))
    assert metrics['N-acc'] == 100.0
    assert metrics['T-acc'] == 50.0
    assert metrics['Pr@0.5'] == 50.0
    at_the_edge = evaluate(pairs, protocol='grefcoco', min_pixels=4)
    assert at_the_edge['N-acc'] == 0.0
    assert at_the_edge['T-acc'] == 100.0


def test_grefcoco_without_one_of_the_cases():
    only_targets = evaluate([(ROW, ROW)], protocol='grefcoco')
    assert math.isnan(only_targets['N-acc'])
    assert only_targets['T-acc'] == 100.0
    only_empty = evaluate([(EMPTY, EMPTY)], protocol='grefcoco')
    assert math.isnan(only_empty['T-acc'])
    assert math.isnan(only_empty['Pr@0.7'])
    assert only_empty['gIoU'] == 100.0


@pytest.mark.parametrize('tenths', [5, 6, 7, 8, 9])
def test_precision_counts_an_iou_of_exactly_the_threshold(tenths):
    target = torch.zeros(1, 4, 5, dtype=torch.uint8)
    target.view(-1)[:10] = 1
    prediction = torch.zeros_like(target)
    prediction.view(-1)[:tenths] = 1  # IoU = tenths / 10
    metrics = evaluate([dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=target))])
    assert [metrics[f'Pr@0.{other}'] for other in range(5, 10)] == [
        100.0 if other <= tenths else 0.0 for other in range(5, 10)
    ]


def test_own_thresholds_and_prefix():
    metrics = evaluate(FOUR, thresholds=(0.25, 1.0), prefix='val')
    assert list(metrics) == ['val/oIoU', 'val/mIoU', 'val/Pr@0.25', 'val/Pr@1']
    assert metrics['val/Pr@0.25'] == 75.0
    assert metrics['val/Pr@1'] == 25.0


def test_per_kind():
    pairs = [
        sample(*pair, kind=kind) for pair, kind in zip(FOUR, ('colour', 'size', 'colour-shape', 'size'), strict=True)
    ]
    metrics = evaluate(pairs, per_kind=True)
    assert metrics['oIoU'] == pytest.approx(100 * 10 / 26)
    assert metrics['oIoU/colour'] == metrics['mIoU/colour'] == 100.0
    assert metrics['oIoU/colour-shape'] == pytest.approx(100 * 2 / 6)
    assert metrics['oIoU/size'] == 100 * 4 / 16
    assert metrics['mIoU/size'] == 25.0
    with pytest.raises(ValueError, match="needs a 'kind' in every data sample"):
        evaluate(FOUR, per_kind=True)


def test_reasonseg_long_and_short():
    pairs = [
        sample(EMPTY, EMPTY, length='long'),  # U = 0 counts as 1
        sample(TWO_ROWS, ROW, length='long'),  # 4 / 8
        sample(CORNER, ROW, length='short'),  # 2 / 6
        sample(ROW, '##?? .... .... ....', length='short'),  # 2 / 2: two pixels ignored
    ]
    metrics = evaluate(pairs, protocol='reasonseg', thresholds=(0.5,))
    assert metrics == pytest.approx({
        'oIoU': 100 * (4 + 2 + 2) / (8 + 6 + 2),
        'cIoU': 100 * (4 + 2 + 2) / (8 + 6 + 2),
        'mIoU': 100 * (1 + 1 / 2 + 1 / 3 + 1) / 4,
        'gIoU': 100 * (1 + 1 / 2 + 1 / 3 + 1) / 4,
        'Pr@0.5': 75.0,
        'oIoU/long': 50.0, 'cIoU/long': 50.0, 'mIoU/long': 75.0, 'gIoU/long': 75.0,
        'oIoU/short': 50.0, 'cIoU/short': 50.0,
        'mIoU/short': 100 * 2 / 3, 'gIoU/short': 100 * 2 / 3,
    })  # fmt: skip
    with pytest.raises(ValueError, match=r"breakdown=\('length',\) needs a 'length' in every"):
        evaluate(FOUR, protocol='reasonseg')
    assert 'gIoU/long' not in evaluate(FOUR, protocol='reasonseg', breakdown=())


def test_breakdown_by_several_keys():
    values = [('one-target', 'val'), ('multi-target', 'val'), ('no-target', 'testA')]
    pairs = [
        sample(*pair, kind=kind, subset=subset)
        for pair, (kind, subset) in zip([FOUR[0], FOUR[1], (ROW, EMPTY)], values, strict=True)
    ]
    metrics = evaluate(pairs, protocol='grefcoco', breakdown=('subset',), per_kind=True)
    assert metrics['gIoU/multi-target'] == 50.0
    assert metrics['cIoU/no-target'] == metrics['gIoU/testA'] == 0.0
    assert metrics['cIoU/val'] == pytest.approx(100 * (4 + 4) / (4 + 8))
    pairs[0]['kind'] = 'val'
    with pytest.raises(ValueError, match="'subset' and 'kind' both have the value 'val'"):
        evaluate(pairs, breakdown=('subset', 'kind'))


def test_padded_results_are_cut():
    metric = ReferringMetric()
    metric.process({}, [sample(*pair) for pair in [*FOUR, FOUR[0]]])  # the last repeats the first
    assert len(metric.results) == 5
    assert metric.evaluate(4)['oIoU'] == pytest.approx(100 * 10 / 26)
    assert metric.results == []


def test_order_does_not_matter():
    rng = np.random.default_rng(0)
    pairs = [
        dict(pred_sem_seg=dict(data=rng.integers(0, 2, (1, 9, 7))), gt_sem_seg=dict(data=rng.integers(0, 2, (1, 9, 7))))
        for _ in range(200)
    ]
    metrics = evaluate(pairs)
    for step in range(2, 9):  # as gathered from that many processes
        assert evaluate([pair for rank in range(step) for pair in pairs[rank::step]]) == metrics


def test_data_samples_of_mmseg_through_the_evaluator():
    samples = []
    for prediction, target in FOUR:
        data_sample = SegDataSample(metainfo=dict(img_path='a.jpg', text='row'))
        data_sample.pred_sem_seg = PixelData(data=as_map(prediction).bool())
        data_sample.gt_sem_seg = PixelData(data=as_map(target).long())
        samples.append(data_sample)
    evaluator = Evaluator([ReferringMetric()])
    evaluator.process(samples, {})
    assert evaluator.evaluate(4)['oIoU'] == pytest.approx(100 * 10 / 26)
    metric = ReferringMetric()
    metric.process({}, samples)  # unconverted
    assert metric.evaluate(4)['oIoU'] == pytest.approx(100 * 10 / 26)


# ---- bad input

META = dict(img_path='b/c.jpg', text='the row')


def changed(prediction=None, target=None) -> dict:
    whole = sample(ROW, ROW, **META)
    if prediction is not None:
        whole['pred_sem_seg'] = dict(data=prediction)
    if target is not None:
        whole['gt_sem_seg'] = dict(data=target)
    return whole


@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        (changed(as_map(ROW)[:, :3]), r'size of gt_sem_seg, \(1, 4, 4\), but got \(1, 3, 4\)'),
        (changed(as_map(ROW)[0]), r'pred_sem_seg must be .* \(1, H, W\), but got \(4, 4\)'),
        (changed([[0]]), r'pred_sem_seg must be of shape \(1, H, W\), but got list'),
        (changed(as_map(ROW) * 2), 'pred_sem_seg must be 0 or 1, but got 2'),
        (changed(torch.full((1, 4, 4), 0.25)), r'pred_sem_seg must be 0 or 1, but got 0\.25'),
        (changed(torch.full((1, 4, 4), torch.nan)), 'pred_sem_seg must be 0 or 1, but got nan'),
        (changed(as_map('???? .... .... ....')), 'pred_sem_seg must be 0 or 1, but got 255'),
        (changed(target=as_map(ROW).repeat(2, 1, 1)), r'gt_sem_seg must .* but got \(2, 4, 4\)'),
        (changed(target=as_map(ROW) * 3), r'gt_sem_seg must be 0, 1 or 255 .*, but got 3'),
        ({**changed(), 'gt_sem_seg': {}}, r"gt_sem_seg of the data sample lacks 'data'"),
        (dict(gt_sem_seg=dict(data=as_map(ROW)), **META), "data sample lacks 'pred_sem_seg'"),
    ],
)
def test_wrong_samples_are_named(bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        ReferringMetric().process({}, [bad])
    assert "(img_path 'b/c.jpg', text 'the row')" in str(caught.value)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(protocol='gres'), "protocol must be one of .* but got 'gres'"),
        (dict(min_pixels=50), "min_pixels needs protocol='grefcoco', but got 'lavt'"),
        (dict(protocol='grefcoco', min_pixels=0), 'min_pixels must be at least 1, but got 0'),
        (dict(thresholds=(0.5, 50)), r'thresholds must lie in \(0, 1\], but got \(0.5, 50\)'),
        (dict(ignore_index=1), 'ignore_index must not be 0 or 1, but got 1'),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ReferringMetric(**kwargs)


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match='was given no prediction'):
        ReferringMetric().evaluate(0)


# ---- two processes


def _evaluate_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    pairs = [*FOUR, (TWO_ROWS, TWO_ROWS)]  # 5 items on 2 ranks: rank 1 is padded with the first
    metric = ReferringMetric(collect_dir=f'{folder}/parts')
    for pair in (pairs[::2], [*pairs[1::2], pairs[0]])[rank]:
        metric.process({}, [sample(*pair)])
    torch.save(metric.evaluate(5), f'{folder}/rank{rank}.pt')
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path):
    multiprocessing.spawn(_evaluate_rank, (str(tmp_path),), nprocs=2)
    alone = evaluate([*FOUR, (TWO_ROWS, TWO_ROWS)])
    assert alone['oIoU'] == pytest.approx(100 * 18 / 34)
    for rank in range(2):
        assert torch.load(tmp_path / f'rank{rank}.pt') == alone
