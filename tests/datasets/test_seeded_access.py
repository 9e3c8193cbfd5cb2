"""Draws of any transform, in any dataset under any sampler, follow from the place of the sample alone."""

import itertools
import multiprocessing
import platform
import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from large_items import LargeItems, LargeItemsByVisit
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, RepeatDataset
from mmengine.registry import DATA_SAMPLERS, DATASETS, DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch.utils.data import DataLoader, Sampler

from genseg_mm.datasets import RatioInfiniteSampler, SeededDataset, Visit, VisitSampler
from genseg_mm.datasets import samplers as visit_sampler_file
from genseg_mm.datasets.seeded_access import CountedVisits
from genseg_mm.launch.runner_checks import seed_samples


@DATASETS.register_module()
class GlobalDraws(BaseDataset):
    """Items that draw from the three global generators."""

    def __init__(self, size: int = 7) -> None:
        self.size = size
        super().__init__(serialize_data=False)

    def load_data_list(self) -> list[dict]:
        return [dict() for _ in range(self.size)]

    def prepare_data(self, idx: int) -> dict:
        draws = float(np.random.rand()), random.random(), torch.rand(1).item()
        return dict(inputs=(int(idx), *draws))


@DATASETS.register_module()
class CountedDraws(CountedVisits):
    """Items that show their visit."""

    def load_data_list(self) -> list[dict]:
        return [dict() for _ in range(5)]

    def prepare_data(self, idx: int) -> dict:
        return dict(inputs=(int(idx), self.get_data_info(idx)['visit'], float(np.random.rand())))


@DATA_SAMPLERS.register_module()
class PairSampler(Sampler):
    """Indices that are no integers, as samplers of videos hand out."""

    def __init__(self, dataset: object, seed: int | None = None) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[tuple]:
        return iter([(0, 1), (0, 2)])

    def __len__(self) -> int:
        return 2


@pytest.fixture(autouse=True)
def scope() -> None:
    DefaultScope.get_instance('seeded_access', scope_name='mmengine')


def loader(sampler: dict, dataset: dict, num_workers: int = 0) -> DataLoader:
    set_random_seed(0)
    cfg = dict(batch_size=2, num_workers=num_workers, dataset=dataset, sampler=sampler)
    return Runner.build_dataloader(seed_samples(cfg), seed=5)


def samples(batches: object, num: int) -> list[tuple]:
    return [item for batch in itertools.islice(batches, num) for item in zip(*batch['inputs'], strict=True)]


INFINITE = dict(type='InfiniteSampler', shuffle=True)
OURS = dict(type='genseg_mm.RatioInfiniteSampler')
FOREIGN = dict(type='GlobalDraws')
WRAPPED = [
    FOREIGN,
    dict(type='RepeatDataset', dataset=FOREIGN, times=2),
    dict(type='ConcatDataset', datasets=[FOREIGN, dict(FOREIGN, size=3)]),
    dict(type='RepeatDataset', dataset=dict(type='CountedDraws'), times=2),
    dict(type='ConcatDataset', datasets=[dict(type='CountedDraws')] * 2),
    dict(type='CountedDraws'),
]


@pytest.mark.parametrize('dataset', WRAPPED, ids=str)
@pytest.mark.parametrize('sampler', [INFINITE, OURS], ids=lambda sampler: sampler['type'])
def test_a_resumed_loader_goes_on_with_the_same_samples(sampler, dataset) -> None:
    plain = loader(sampler, dataset)
    whole = samples(plain, 12)
    assert len(set(whole)) == len(whole)  # passes differ in their draws
    resumed = loader(sampler, dataset)
    np.random.rand(3), random.random(), torch.rand(3)
    resumed.sampler.skip(7 * 2)
    assert samples(resumed, 5) == whole[14:]


def test_epochs_differ_and_repeat() -> None:
    sampler = dict(type='DefaultSampler', shuffle=True)
    epochs = []
    for epoch in (0, 1, 0, 1):
        plain = loader(sampler, FOREIGN)
        plain.sampler.set_epoch(epoch)
        epochs.append(samples(plain, 4))
    assert epochs[:2] == epochs[2:] and len(set(epochs[0] + epochs[1])) == 14
    assert not hasattr(plain.sampler, 'skip')  # by which MMEngine knows that it has to walk
    assert len(plain.sampler) == 7 and isinstance(plain.sampler.sampler, DefaultSampler)


@pytest.mark.parametrize('sampler', [INFINITE, OURS], ids=lambda sampler: sampler['type'])
def test_workers_do_not_matter(sampler) -> None:
    assert samples(loader(sampler, FOREIGN, num_workers=2), 6) == samples(loader(sampler, FOREIGN), 6)


def test_processes_share_one_stream(monkeypatch) -> None:
    from mmengine.dataset import sampler as mmengine_sampler

    def of_rank(rank: int, world_size: int) -> list[tuple]:
        for module in (visit_sampler_file, mmengine_sampler):
            monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, world_size))
        return samples(loader(INFINITE, FOREIGN), 12 // world_size)

    first, second = of_rank(0, 2), of_rank(1, 2)
    assert [item for pair in zip(first, second, strict=True) for item in pair] == of_rank(0, 1)


def test_global_states_are_put_back_after_an_error() -> None:
    class Failing(GlobalDraws):
        def prepare_data(self, idx: int) -> dict:
            super().prepare_data(idx)
            raise KeyError('broken')

    set_random_seed(3)
    expected = np.random.rand(2).tolist(), random.random(), torch.rand(2).tolist()
    set_random_seed(3)
    first = np.random.rand()
    with pytest.raises(KeyError, match='broken'):
        SeededDataset(Failing())[Visit(2, 1, seed=0)]
    with pytest.raises(KeyError, match='broken'):
        SeededDataset(Failing())[Visit(2, 1)]  # no seed: the states are used as they are
    rest = np.random.rand(), random.random(), torch.rand(2).tolist()
    set_random_seed(3)
    draws = [np.random.rand(3).tolist(), [random.random() for _ in range(2)], torch.rand(3)]
    assert first == expected[0][0] and rest[:2] == (draws[0][2], draws[1][1])
    assert rest[2] == draws[2][1:].tolist()


def test_a_wrapped_dataset_is_the_dataset_to_others() -> None:
    dataset = SeededDataset(dict(type='ConcatDataset', datasets=[FOREIGN, FOREIGN]))
    assert len(dataset) == 14 and dataset.cumulative_sizes == [7, 14]
    assert isinstance(dataset.dataset, ConcatDataset) and dataset.metainfo == {}
    dataset.pipeline = 'another'  # as hooks do in the middle of a training
    assert dataset.dataset.pipeline == 'another'
    repeated = SeededDataset(RepeatDataset(GlobalDraws(), 2))
    assert repeated[3]['inputs'][0] == 3
    with pytest.raises(AttributeError, match='no_such_thing'):
        repeated.no_such_thing  # noqa: B018


def test_indices_that_are_no_integers_pass(caplog) -> None:
    sampler = VisitSampler(dict(type='PairSampler'), SeededDataset(GlobalDraws()), seed=0)
    assert list(sampler) == [(0, 1), (0, 2)]
    assert isinstance(sampler.dataset, GlobalDraws)


def test_own_parts_are_not_wrapped() -> None:
    own = loader(OURS, dict(type='CountedDraws'))
    assert type(own.dataset) is CountedDraws and type(own.sampler) is RatioInfiniteSampler
    built = dict(dataset=GlobalDraws(), sampler=dict(type='InfiniteSampler'))
    assert seed_samples(built) is built


@pytest.mark.skipif(sys.platform != 'linux' or not platform.libc_ver()[0].startswith('glibc'), reason='of glibc alone')
def test_workers_use_the_memory_of_a_picture_again() -> None:
    """Page faults of a worker per item, each of which makes three arrays of 4 MB, 1,024 pages of 4 KiB."""
    # Forks of a process of their own start: the tests before this one have left the allocator as they like.
    multiprocessing.set_forkserver_preload(['large_items'])

    def faults(dataset: LargeItems) -> float:
        loader = DataLoader(dataset, num_workers=1, batch_size=None, multiprocessing_context='forkserver')
        return float(np.median(np.diff([int(own) for own in loader])))

    assert faults(LargeItemsByVisit()) < 100 < 500 < faults(LargeItems())
