"""What ReferringMetric writes per sentence, its groups, and its sums beside those of mmdet and mmseg."""

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

from genseg_mm.evaluation import ReferringMetric, SampleResults
from genseg_mm.evaluation.referring_metric import groups_of, item_name, word_band
from genseg_mm.evaluation.sample_results import told_apart

PROTOCOLS = ('lavt', 'lisa', 'reasonseg', 'grefcoco')


def maps(*counts: int) -> dict:
    """Predicted and true pixels of a 1x100 picture: both, predicted only, true only, ignored (both predicted)."""
    both, only_predicted, missed, ignored = counts
    prediction, target = torch.zeros(2, 1, 1, 100, dtype=torch.uint8)
    target[..., :both] = prediction[..., : both + only_predicted] = 1
    target[..., 50 : 50 + missed] = 1
    prediction[..., 90 : 90 + ignored], target[..., 90 : 90 + ignored] = 1, 255
    return dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=target))


def sample(counts: tuple, number: int, **meta) -> dict:
    own = dict(img_path=f'/data/train2014/{number // 2}.jpg', sent_id=number, length='short')
    return {**maps(*counts), **own, 'text': 'the thing', **meta}


def evaluate(samples: list, path, **kwargs) -> tuple[dict, SampleResults]:
    metric = ReferringMetric(sample_file=str(path), **kwargs)
    metric.process({}, samples)
    return metric.evaluate(len(samples)), SampleResults.load(path)


# both, predicted only, missed, ignored
CASES = [(3, 1, 0, 5), (0, 0, 0, 2), (0, 4, 0, 0), (0, 0, 6, 0), (5, 0, 5, 0), (1, 0, 4, 1)]


@pytest.mark.parametrize(
    ('kwargs', 'iou', 'intersection', 'union'),
    [
        (dict(protocol='lavt'), [3 / 4, 0, 0, 0, 0.5, 0.2], [3, 0, 0, 0, 5, 1], [4, 0, 4, 6, 10, 5]),
        (dict(protocol='lisa'), [3 / 4, 1, 0, 0, 0.5, 0.2], [3, 0, 0, 0, 5, 1], [4, 0, 4, 6, 10, 5]),
        (dict(protocol='reasonseg'), [3 / 4, 1, 0, 0, 0.5, 0.2], [3, 0, 0, 0, 5, 1], [4, 0, 4, 6, 10, 5]),
        (dict(protocol='grefcoco'), [3 / 4, 1, 0, 0, 0.5, 0.2], [3, 0, 0, 0, 5, 1], [4, 0, 4, 6, 10, 5]),
        # Below 4 pixels nothing is meant: the last refuses its target, I = 0 and U = 5
        (dict(protocol='grefcoco', min_pixels=4), [3 / 4, 1, 0, 0, 0.5, 0], [3, 0, 0, 0, 5, 0], [4, 0, 4, 6, 10, 5]),
        # Below 5 pixels: the first refuses too, and the third rightly says nothing
        (dict(protocol='grefcoco', min_pixels=5), [0, 1, 1, 0, 0.5, 0], [0, 0, 0, 0, 5, 0], [4, 0, 0, 6, 10, 5]),
    ],
)  # fmt: skip
def test_rows_by_hand(tmp_path, kwargs, iou, intersection, union):
    samples = [sample(counts, number) for number, counts in enumerate(CASES)]
    metrics, rows = evaluate(samples, tmp_path / 's.npz', **kwargs)
    assert rows.values['iou'].tolist() == iou
    assert rows.values['intersection'].tolist() == intersection
    assert rows.values['union'].tolist() == union
    assert rows.values['predicted'].tolist() == [4, 0, 4, 0, 5, 1]
    assert rows.values['target'].tolist() == [3, 0, 0, 6, 10, 5]
    assert rows.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.items[:3] == ['0.jpg#sent 0', '0.jpg#sent 1', '1.jpg#sent 2']
    assert metrics['oIoU'] == 100 * sum(intersection) / sum(union)
    assert metrics['mIoU'] == pytest.approx(100 * sum(iou) / 6, abs=1e-12)
    assert {name: rows.metric(name) for name in rows.aggregates}.items() <= metrics.items()


def test_no_target_counts(tmp_path):
    samples = [sample(counts, number) for number, counts in enumerate(CASES)]
    metrics, rows = evaluate(samples, tmp_path / 's.npz', protocol='grefcoco')
    # Without a target: the second (refused) and the third (not). With: three of four not refused.
    assert (metrics['N-acc'], metrics['T-acc']) == (50.0, 75.0)
    assert (metrics['Pr@0.5'], metrics['Pr@0.7'], metrics['Pr@0.8']) == (50.0, 25.0, 0.0)
    assert rows.values['Pr@0.5'].tolist() == [1, 0, 0, 0, 1, 0]  # the right refusal is no hit
    assert rows.aggregates['Pr@0.5'] == ('ratio', 'Pr@0.5', 'has_target')
    with_target = np.flatnonzero(rows.values['has_target'])
    assert rows.metric('T-acc', with_target) == 75.0
    assert math.isnan(rows.metric('N-acc', with_target))


def random_samples(number: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(number):
        target = (rng.random((1, 13, 17)) < 0.4).astype(np.uint8)
        prediction = np.where(rng.random(target.shape) < 0.2, 1 - target, target).astype(np.uint8)
        target[rng.random(target.shape) < 0.1] = 255
        if index % 7 == 0:
            target[target == 1] = 0
        if index % 5 == 0:
            prediction[:] = 0
        text = ' '.join('word' for _ in range(1 + index % 11))
        kind = ('no-target', 'one-target')[int((target == 1).any())]
        samples.append(
            dict(
                pred_sem_seg=dict(data=torch.from_numpy(prediction)),
                gt_sem_seg=dict(data=torch.from_numpy(target)),
                **dict(img_path=f'{index // 3}.jpg', sent_id=index, text=text, kind=kind),
                **dict(subset='val', length=('short', 'long')[index % 2]),
            )
        )
    return samples


def by_definition(samples: list[dict], protocol: str, min_pixels: int = 1) -> dict[str, float]:
    """The loops of LAVT, LISA and ReLA, written down again."""
    ious, intersections, unions, hits, refusals, kept = [], 0, 0, [], [], []
    for own in samples:
        truth, predicted = (own[key]['data'].numpy() for key in ('gt_sem_seg', 'pred_sem_seg'))
        known = truth != 255
        truth, predicted = (truth == 1) & known, (predicted == 1) & known
        i, u = (truth & predicted).sum(), (truth | predicted).sum()
        if protocol == 'grefcoco':
            nothing = predicted.sum() < min_pixels
            if not truth.any():
                refusals.append(nothing)
                ious.append(1.0 if nothing else 0.0)
                unions += 0 if nothing else predicted.sum()
                continue
            kept.append(not nothing)
            i = 0 if nothing else i
        iou = i / u if u else float(protocol in ('lisa', 'reasonseg'))
        ious.append(iou)
        hits.append(iou >= 0.7)
        intersections, unions = intersections + i, unions + u
    found = {'oIoU': 100 * intersections / unions, 'mIoU': 100 * np.mean(ious), 'Pr@0.7': 100 * np.mean(hits)}
    if protocol == 'grefcoco':
        found.update({'N-acc': 100 * np.mean(refusals), 'T-acc': 100 * np.mean(kept)})
    return found


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('min_pixels', [None, 60])
def test_protocols_are_the_papers_loops(tmp_path, protocol, min_pixels):
    if min_pixels and protocol != 'grefcoco':
        return
    samples = random_samples(70)
    metrics, rows = evaluate(samples, tmp_path / 's.npz', protocol=protocol, min_pixels=min_pixels)
    expected = by_definition(samples, protocol, min_pixels or 1)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-10)
    for name, value in metrics.items():  # bit by bit
        metric, _, group = name.partition('/')
        where = np.flatnonzero([not group or text == group for text in rows.groups['length']])
        assert rows.metric(metric, where) == value, name
    assert ('gIoU' in metrics) == (protocol in ('reasonseg', 'grefcoco'))


@pytest.mark.slow  # importing mmdet's metrics takes seconds
def test_overall_iou_is_that_of_mmdet():
    metrics = pytest.importorskip('mmdet.evaluation.metrics.refseg_metric')
    masks = pytest.importorskip('mmdet.structures.mask')
    theirs = metrics.RefSegMetric(metric=('cIoU', 'mIoU'))
    ours = ReferringMetric(protocol='lavt')
    samples = random_samples(60)
    for own in samples:  # RefSegMetric knows no ignored pixels
        own['gt_sem_seg']['data'][own['gt_sem_seg']['data'] == 255] = 0
        prediction, target = (own[key]['data'].bool() for key in ('pred_sem_seg', 'gt_sem_seg'))
        truth = masks.BitmapMasks(target.numpy().astype(np.uint8), *target.shape[1:])
        given = dict(pred_instances=dict(masks=prediction), gt_masks=truth)
        theirs.process({}, [given])
    ours.process({}, samples)
    found, expected = ours.evaluate(60), theirs.evaluate(60)
    assert found['oIoU'] == pytest.approx(float(expected['cIoU']), abs=1e-4)
    assert found['mIoU'] == pytest.approx(float(expected['mIoU']), abs=1e-4)


def test_overall_iou_is_that_of_class_1_in_mmseg():
    metrics = pytest.importorskip('mmseg.evaluation.metrics.iou_metric')
    samples, sums = random_samples(60), np.zeros(2)
    for own in samples:
        prediction, target = (own[key]['data'].long() for key in ('pred_sem_seg', 'gt_sem_seg'))
        areas = metrics.IoUMetric.intersect_and_union(prediction, target, 2, 255)
        sums += [float(area[1]) for area in areas[:2]]
    ours = ReferringMetric(protocol='lisa')
    ours.process({}, samples)
    assert ours.evaluate(60)['oIoU'] == pytest.approx(100 * sums[0] / sums[1], abs=1e-10)


def test_groups_and_bands_of_words(tmp_path):
    samples = random_samples(44)
    metrics, rows = evaluate(samples, tmp_path / 's.npz', breakdown='words', protocol='lavt')
    assert rows.groups['kind'][:2] == ['no-target', 'one-target']
    assert rows.groups['length'][:2] == ['short', 'long']
    assert rows.groups['subset'] == ['val'] * 44
    assert rows.groups['words'][:11] == (['1-2 words'] * 2 + ['3-5 words'] * 3 + ['6-8 words'] * 3 + ['9+ words'] * 3)
    ious, bands = rows.values['iou'], np.array(rows.groups['words'])
    for band in ('1-2 words', '3-5 words', '6-8 words', '9+ words'):
        assert metrics[f'mIoU/{band}'] == pytest.approx(100 * ious[bands == band].mean())
        sums = [rows.values[key][bands == band].sum() for key in ('intersection', 'union')]
        assert metrics[f'oIoU/{band}'] == 100 * sums[0] / sums[1]
    del samples[3]['text']
    with pytest.raises(ValueError, match="needs a 'words' .* add 'text' to the packing transform's"):
        evaluate(samples, tmp_path / 's.npz', breakdown='words')


@pytest.mark.parametrize(
    ('meta', 'name'),
    [
        (dict(img_path='/a/b/COCO_9.jpg', sent_id=12, text='x'), 'COCO_9.jpg#sent 12'),
        (dict(img_path='b/c.jpg', subset='val', sent_id=0), 'val/c.jpg#sent 0'),
        (dict(img_path='', img_id=7, subset='test', text='the red one'), 'test/7#text the red one'),
        (dict(img_path='c#d.jpg', expression='#1'), 'c%23d.jpg#text #1'),
        (dict(img_path='c.jpg', text='Segment it.', expression='it', question='what?'), 'c.jpg#text what?'),
        (dict(img_id=0), '0'),
        (dict(text='x'), None),
    ],
)  # fmt: skip
def test_items_are_named_by_the_data_alone(meta, name):
    assert item_name(meta) == name


def test_repeated_names_are_told_apart():
    assert told_apart(['a', 'b', 'a', 'a', 'a (2)']) == ['a', 'b', 'a (3)', 'a (4)', 'a (2)']
    assert told_apart(['a', 'b']) == ['a', 'b']


def test_words_are_counted_without_the_instruction():
    assert [word_band(' '.join('w' * number)) for number in (0, 1, 2, 3, 5, 6, 8, 9, 40)] == (
        ['1-2 words'] * 3 + ['3-5 words'] * 2 + ['6-8 words'] * 2 + ['9+ words'] * 2
    )
    asked = dict(text='Please segment the cat in this image.', expression='the cat', kind='size')
    assert groups_of(asked) == dict(kind='size', words='1-2 words')
    assert groups_of(dict(length=3)) == {}


def test_a_nameless_sample_is_refused_where_rows_are_written(tmp_path):
    nameless = maps(1, 0, 0, 0)
    assert ReferringMetric()._count(nameless).item is None
    with pytest.raises(ValueError, match="sample_file needs 'img_path' or 'img_id'"):
        evaluate([nameless], tmp_path / 's.npz')


# ---- two processes


def _evaluate_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    samples = random_samples(21)
    own = (samples[::2], [*samples[1::2], samples[0]])[rank]  # padded with the first
    metric = ReferringMetric('reasonseg', sample_file=f'{folder}/two.npz', collect_dir=f'{folder}/p')
    for start in range(0, len(own), 3):
        metric.process({}, own[start : start + 3])
    torch.save(metric.evaluate(21), f'{folder}/rank{rank}.pt')
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_write_the_rows_of_one(tmp_path):
    multiprocessing.spawn(_evaluate_rank, (str(tmp_path),), nprocs=2)
    alone, _ = evaluate(random_samples(21), tmp_path / 'one.npz', protocol='reasonseg')
    assert torch.load(tmp_path / 'rank0.pt') == torch.load(tmp_path / 'rank1.pt') == alone
    assert (tmp_path / 'two.npz').read_bytes() == (tmp_path / 'one.npz').read_bytes()
