"""The loop: one by one, timed, threads fixed, errors raised."""

import time

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch.utils.data import DataLoader, Dataset

from genseg_mm.benchmarking.examples import predicted_items
from genseg_mm.benchmarking.loop import BenchmarkLoop, BenchmarkRunner, finite_or_text, single_samples, together


class Numbers(Dataset):
    """Items 0, 1, ... as pictures of one pixel."""

    metainfo: dict = {}

    def __init__(self, num: int) -> None:
        self.num = num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> dict:
        sample = BaseDataElement(metainfo=dict(number=int(index)))
        return dict(inputs=torch.full((3, 1, 1), int(index)), data_samples=sample)


class Doubling(BaseModel):
    """Has no parameters; remembers the sizes of its batches and the threads."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.threads = [], set()

    def forward(self, inputs: list, data_samples: list, mode: str = 'tensor') -> list:
        assert mode == 'predict' and not self.training
        self.sizes.append(len(inputs))
        self.threads.add(torch.get_num_threads())
        time.sleep(0.002)
        for image, sample in zip(inputs, data_samples, strict=True):
            sample.set_metainfo(dict(doubled=2 * int(image[0, 0, 0])))
        return data_samples


class Sum(BaseMetric):
    """Sum of the predictions; fails where asked to."""

    default_prefix = 'own'

    def __init__(self, fail_at: int = -1, fail_late: bool = False) -> None:
        super().__init__()
        self.fail_at, self.fail_late = fail_at, fail_late

    def process(self, data_batch: dict, data_samples: list) -> None:
        assert len(data_batch['inputs']) == len(data_samples)
        for sample in data_samples:
            if sample['number'] == self.fail_at:
                raise ValueError('number 2 is refused')
            self.results.append(sample['doubled'])

    def compute_metrics(self, results: list) -> dict:
        if self.fail_late:
            raise ValueError('nothing can be computed')
        return dict(sum=sum(results), order=results == sorted(results))


def runner(tmp_path, metric: Sum | None = None, num: int = 7, batch: int = 3, **loop) -> BenchmarkRunner:
    from mmengine.dataset import pseudo_collate
    from mmengine.evaluator import Evaluator

    loader = DataLoader(Numbers(num), batch_size=batch, collate_fn=pseudo_collate)
    cfg = Config(dict(default_scope='genseg_mm', env_cfg=dict(), randomness=dict(seed=0), model=dict()))
    cfg.test_dataloader, cfg.test_evaluator, cfg.test_cfg = ({}, {}, dict(type='genseg_mm.BenchmarkLoop', **loop))
    own = BenchmarkRunner(
        cfg, Doubling(), None, tmp_path / 'log.txt', str(tmp_path), 'none', f'loop{time.monotonic_ns()}'
    )
    own._test_dataloader, own._test_evaluator = loader, Evaluator([metric or Sum()])
    return own


@pytest.mark.parametrize(('one_by_one', 'sizes'), [(True, [1] * 7), (False, [3, 3, 1])])
def test_samples_one_by_one_or_in_batches(tmp_path, one_by_one, sizes):
    own = runner(tmp_path, one_by_one=one_by_one)
    assert own.test() == {'own/sum': 2 * (0 + 1 + 2 + 3 + 4 + 5 + 6), 'own/order': True}
    assert own.model.sizes == sizes
    assert isinstance(own.test_loop, BenchmarkLoop)
    own.close()


def test_times_are_those_of_the_stages(tmp_path):
    own = runner(tmp_path)
    start = time.perf_counter()
    own.test()
    whole = time.perf_counter() - start
    seconds = own.test_loop.seconds_per_item
    assert list(seconds) == ['data', 'model', 'metric']
    assert seconds['model'] >= 0.002 > seconds['metric']
    assert 7 * sum(seconds.values()) <= whole


def test_threads_are_fixed_and_given_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for threads, expected in ((1, 1), (3, 3), (None, 2)):
            own = runner(tmp_path, threads=threads)
            own.test()
            assert own.model.threads == {expected} == {own.test_loop.threads}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match='threads must be at least 1 or None, but got 0'):
        runner(tmp_path, threads=0).test()


def test_errors_of_metrics_are_raised(tmp_path):
    with pytest.raises(ValueError, match='number 2 is refused'):
        runner(tmp_path, Sum(fail_at=2)).test()
    with pytest.raises(ValueError, match='nothing can be computed'):
        runner(tmp_path, Sum(fail_late=True)).test()


def test_single_samples_of_lists_and_tensors():
    parts = single_samples(dict(inputs=torch.arange(6).view(2, 3), data_samples=['a', 'b']))
    assert [part['inputs'].tolist() for part in parts] == [[[0, 1, 2]], [[3, 4, 5]]]
    assert [part['data_samples'] for part in parts] == [['a'], ['b']]
    for wrong in (dict(inputs=[1, 2], data_samples=[1]), dict(inputs=3), [1, 2], {}):
        with pytest.raises(ValueError, match='one_by_one needs batches that are dicts of lists'):
            single_samples(wrong)


def test_predicted_items_keep_the_order():
    model = Doubling()
    found = list(predicted_items(model, Numbers(9), [5, 0, 8]))
    assert [int(image.max()) for image, _ in found] == [5, 0, 8]
    assert [sample.doubled for _, sample in found] == [10, 0, 16]
    assert model.sizes == [1, 1, 1] and not model.training


def test_together_in_one_process_is_a_call():
    assert together(lambda: 3) == 3
    with pytest.raises(KeyError):
        together(lambda: {}['a'])


def test_metrics_become_numbers():
    metrics = finite_or_text({'a': torch.tensor(1.5), 'b': 2, 'c': float('nan')})
    assert metrics['a'] == 1.5 and metrics['b'] == 2.0 and metrics['c'] != metrics['c']
