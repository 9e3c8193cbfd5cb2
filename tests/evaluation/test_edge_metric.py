"""EdgeMetric on maps whose scores are known."""

import gc
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from scipy.io import savemat

from genseg_mm.evaluation.edge_metric import EdgeMetric
from genseg_mm.evaluation.edge_scores import evaluate_edge_folder
from genseg_mm.evaluation.sample_results import SampleResults

SIZE = (20, 30)


def line(*columns: int) -> torch.Tensor:
    """(20, 30) float with upright lines."""
    own = torch.zeros(SIZE)
    own[:, list(columns)] = 1
    return own


def sample(*truths: torch.Tensor, edges=None, colors=None, name='7.jpg', **meta) -> SegDataSample:
    own = SegDataSample(metainfo=dict(img_path=f'/data/{name}', img_id=name[:-4], **meta))
    own.gt_boundaries = PixelData(data=torch.stack(truths).to(torch.uint8))
    if edges is not None:
        own.pred_edges = PixelData(data=edges[None])
    if colors is not None:
        own.pred_color_map = PixelData(data=colors)
    return own


def evaluate(samples, batch_size=1, **kwargs) -> dict:
    evaluator = Evaluator([EdgeMetric(**kwargs)])
    for start in range(0, len(samples), batch_size):
        evaluator.process(samples[start : start + batch_size])
    return evaluator.evaluate(len(samples))


# 0.0075 of the diagonal (36.06) is 0.27 pixels: only equal pixels match, unless max_distance is larger.
def test_by_hand():
    # Both annotators' lines are found at 0.95 and 0.5, and a wrong line at 0.3.
    edges = 0.95 * line(5) + 0.5 * line(15) + 0.3 * line(25)
    metrics = evaluate([sample(line(5, 15), line(5), edges=edges)], num_thresholds=9)
    # Thresholds 0.1 ... 0.3: recall 60/60, precision 40/60; 0.4, 0.5: 60/60, 40/40; 0.6 ... 0.9: 40/60, 20/20.
    assert metrics['ODS_F'] == pytest.approx(100)
    assert metrics['OIS_F'] == pytest.approx(100)
    # In 8 bits 0.5 is 128 / 255 and reaches 0.5.
    assert metrics['ODS_threshold'] == pytest.approx(0.4)
    # Recalls 2/3 (precision 1) and 1 (of 0.1: 2/3): points 0.67 ... 1.00 on a line from 1 to 2/3.
    points = np.arange(67, 101) / 100
    assert metrics['AP'] == pytest.approx((1 - (points - 2 / 3)).sum(), abs=1e-9)


def test_edges_of_a_colour_map():
    # A step from column 12 to 13 of half the range: a line at 12 of strength 0.5.
    colors = torch.zeros(3, *SIZE)
    colors[1, :, 13:] = 127.5
    for sigma in (0.0, 1.0):
        metrics = evaluate([sample(line(12), colors=colors)], sigma=sigma)
        assert metrics['ODS_F'] == pytest.approx(100)
        # Recalls 1 and, above the strength, 0 (precision 0 as nothing is predicted): sum of r over the grid.
        assert metrics['AP'] == pytest.approx(50.5)
        segmentor = sample(line(12), colors=colors)  # mmseg's, with a coloring head
        segmentor.seg_logits = segmentor.pop('pred_color_map')
        assert evaluate([segmentor], sigma=sigma) == metrics
    assert evaluate([sample(line(13), colors=colors)])['ODS_F'] == 0
    near = evaluate([sample(line(13), colors=colors)], max_distance=0.03)
    assert near['ODS_F'] == pytest.approx(100)
    # Given both, edges count.
    both = sample(line(3), edges=line(3), colors=colors)
    assert evaluate([both])['ODS_F'] == pytest.approx(100)


def test_thinning_is_optional():
    thick = line(11, 12, 13)
    # Thinned to column 12, rows 1 ... 18: recall 18/20, precision 1.
    metrics = evaluate([sample(line(12), edges=thick)], num_thresholds=1)
    assert metrics['ODS_F'] == pytest.approx(100 * 2 * 0.9 / 1.9)
    metrics = evaluate([sample(line(12), edges=thick)], num_thresholds=1, thin=False)
    assert metrics['ODS_F'] == pytest.approx(50)  # recall 1, precision 1/3


def pictures(num=5):
    """Samples of noisy edges, all different, and their maps."""
    generator = torch.Generator().manual_seed(0)
    own = []
    for number in range(num):
        noise = torch.rand(SIZE, generator=generator)
        truths = [line(4 + number, 20), line(4 + number, 21)]
        edges = 0.6 * truths[0] * noise + 0.4 * noise**3
        own.append(sample(*truths, edges=edges, name=f'{number}.jpg', subset='val'))
    return own


def test_numbers_are_those_of_saved_maps(tmp_path):
    samples = pictures()
    maps, truths = tmp_path / 'png', tmp_path / 'mat'
    maps.mkdir()
    truths.mkdir()
    for own in samples:
        values = np.rint(255 * own.pred_edges.data[0].double().numpy()).astype(np.uint8)
        Image.fromarray(values).save(maps / f'{own.img_id}.png')
        cells = np.empty((1, 2), object)
        for place, boundary in enumerate(own.gt_boundaries.data.numpy()):
            cells[0, place] = dict(Segmentation=np.uint16(boundary) + 1, Boundaries=boundary)
        savemat(truths / f'{own.img_id}.mat', dict(groundTruth=cells))
    kwargs = dict(num_thresholds=19, max_distance=0.05)
    scores = evaluate_edge_folder(maps, truths, **kwargs)
    metrics = evaluate(samples, **kwargs)
    assert metrics == {key: scores[key] for key in ('ODS_F', 'ODS_threshold', 'OIS_F', 'AP')}
    assert 30 < metrics['AP'] < 100


def test_batches_order_and_dicts_do_not_matter():
    samples = pictures()
    kwargs = dict(num_thresholds=9, max_distance=0.05)
    expected = evaluate(samples, **kwargs)
    assert evaluate(samples, batch_size=3, **kwargs) == expected
    assert evaluate(samples[::-1], batch_size=2, **kwargs) == expected
    assert evaluate([own.to_dict() for own in samples], batch_size=5, **kwargs) == expected


def test_workers_give_the_same_numbers(monkeypatch):
    monkeypatch.setattr('genseg_mm.evaluation.edge_metric.WAITING_PER_WORKER', 1)
    kwargs = dict(num_thresholds=9, max_distance=0.05)
    assert evaluate(pictures(), num_workers=2, **kwargs) == evaluate(pictures(), **kwargs)
    with pytest.raises(ValueError, match='num_workers must not be negative, but got -1'):
        EdgeMetric(num_workers=-1)


def test_an_error_of_a_worker_is_raised_where_the_numbers_are_computed():
    """Not in evaluate, where the other processes would wait for this one."""
    metric = EdgeMetric(num_thresholds=9)
    for own in pictures():
        metric.process({}, [own])
    broken = Future()
    broken.set_exception(BrokenProcessPool('a worker was killed'))
    metric.results[2]['counts'] = broken
    metric.results[3]['picture'] = 'fine.jpg'
    metric.results[2]['picture'] = '86000.jpg'
    with pytest.raises(RuntimeError, match='edges of 86000.jpg: BrokenProcessPool: a worker was'):
        metric.evaluate(5)


def test_a_metric_that_is_given_up_drops_what_waits(monkeypatch):
    """The model raised, and nobody calls evaluate."""
    calls = []

    class Pool:
        def submit(self, *arguments):
            return Future()

        def shutdown(self, **how):
            calls.append(how)

    monkeypatch.setattr('genseg_mm.evaluation.edge_metric._worker_pool', lambda num_workers: Pool())
    metric = EdgeMetric(num_workers=1)
    metric.process({}, pictures()[:1])
    assert calls == []
    del metric
    gc.collect()
    assert calls == [dict(wait=False, cancel_futures=True)]


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / 'parent.py').write_text(
        'import os\n'
        'from genseg_mm.evaluation.edge_metric import _worker_pool\n'
        'if __name__ == "__main__":\n'
        '    print(_worker_pool(1).submit(os.getpid).result(), flush=True)\n'
        '    os._exit(1)\n'
    )
    # The worker inherits stdout: communicate returns only when it has ended as well.
    with subprocess.Popen([sys.executable, 'parent.py'], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.communicate(timeout=60)[0].strip().isdigit()
    assert parent.returncode == 1


def test_entries_of_padded_loaders_are_cut_off():
    """Several processes evaluate the first items twice; MMEngine cuts the gathered entries at the dataset's size."""
    samples = pictures()
    metric = EdgeMetric(num_thresholds=9, max_distance=0.05)
    for own in [*samples, samples[0]]:
        metric.process({}, [own])
    assert len(metric.results) == 6
    assert metric.evaluate(5) == evaluate(samples, num_thresholds=9, max_distance=0.05)


def test_sample_file(tmp_path):
    path = tmp_path / 'deep' / 'samples.npz'
    samples = [
        sample(line(5), edges=line(5), name='3.jpg', subset='test'),
        sample(line(5, 9), edges=0.5 * line(9), name='12.jpg', subset='test'),
    ]
    evaluate(samples, num_thresholds=3, sample_file=str(path))
    saved = SampleResults.load(path)
    assert saved.items == ['test/3.jpg', 'test/12.jpg']
    assert saved.index.tolist() == [0, 1]
    np.testing.assert_allclose(saved.values['f'], [1, 2 / 3])
    np.testing.assert_allclose(saved.values['recall'], [1, 0.5])
    np.testing.assert_allclose(saved.values['threshold'], [0.25, 0.25])
    assert saved.metric('mean_of_best_F') == pytest.approx(100 * (1 + 2 / 3) / 2)
    # Twice the same name: told apart by the number of the picture.
    evaluate([samples[0], samples[0]], num_thresholds=3, sample_file=str(path))
    assert SampleResults.load(path).items == ['test/3', 'test/3 (2)']


def test_bad_samples_and_arguments():
    def message(own):
        with pytest.raises(ValueError) as error:
            EdgeMetric().process({}, [own])
        return str(error.value)

    bare = sample(line(1), edges=line(1))
    del bare.gt_boundaries
    assert 'expects gt_boundaries, but got a sample without (/data/7.jpg)' in message(bare)
    assert 'pred_edges (1, H, W) or pred_color_map (3, H, W), but got neither' in message(sample(line(1)))
    small = sample(line(1), edges=torch.zeros(10, 30))
    assert 'must be (annotators, 10, 30)' in message(small)
    assert 'got (1, 20, 30) (/data/7.jpg); load them after Resize' in message(small)
    assert 'got values from 0 to 2 (/data/7.jpg)' in message(sample(line(1), edges=2 * line(1)))
    assert 'edges must lie in [0, 1]' in message(sample(line(1), edges=line(1) * torch.nan))
    grey = sample(line(1), colors=torch.zeros(1, *SIZE))
    assert 'got a colour map of (1, 20, 30)' in message(grey)
    with pytest.raises(ValueError, match=r'share of the diagonal in \(0, 1\), but got 4'):
        EdgeMetric(max_distance=4)
    with pytest.raises(ValueError, match='sigma must not be negative, but got -1'):
        EdgeMetric(sigma=-1)
    with pytest.raises(ValueError, match='num_thresholds must be positive, but got 0'):
        EdgeMetric(num_thresholds=0)
    with pytest.raises(ValueError, match='the dataset is empty'):
        EdgeMetric().compute_metrics([])
