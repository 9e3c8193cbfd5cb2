"""Streams that are the same for any number of processes, and that resume exactly."""

import itertools
import pickle
import random
import time

import numpy as np
import pytest
from mmengine.dataset import BaseDataset
from torch.utils.data import DataLoader

from genseg_mm.datasets import samplers
from genseg_mm.datasets.samplers import MixedDataset, RatioInfiniteSampler, Visit
from genseg_mm.registry import DATA_SAMPLERS, DATASETS


class Numbers(BaseDataset):
    """Items (name, index, visit, a global NumPy draw, a global Python draw)."""

    METAINFO = dict(classes=('a',))

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        super().__init__(serialize_data=False)

    def load_data_list(self) -> list[dict]:
        return [dict() for _ in range(self.size)]

    def prepare_data(self, idx: int) -> tuple:
        visit = getattr(idx, 'visit', None)
        return self.name, int(idx), visit, float(np.random.rand()), random.random()


def mixed(*sizes: int, seed: int | None = None) -> MixedDataset:
    return MixedDataset([Numbers('abc'[i], size) for i, size in enumerate(sizes)], seed=seed)


def first(sampler: RatioInfiniteSampler, count: int) -> list[tuple[int, int]]:
    return [(int(index), index.visit) for index in itertools.islice(sampler, count)]


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, world_size))


def test_visit_is_an_int_that_survives_pickling() -> None:
    visit = Visit(7, 3, seed=11)
    copy = pickle.loads(pickle.dumps(visit))
    assert (visit, visit + 1, [10, 20][Visit(1)]) == (7, 8, 20)
    assert (copy, copy.visit, copy.seed, type(copy)) == (7, 3, 11, Visit)
    assert (Visit(5).visit, Visit(5).seed) == (0, None)


def test_each_pass_is_a_permutation_and_counts_its_visit() -> None:
    stream = first(RatioInfiniteSampler(range(5), seed=3), 15)
    for number, start in enumerate((0, 5, 10)):
        part = stream[start : start + 5]
        assert sorted(index for index, _ in part) == [0, 1, 2, 3, 4]
        assert {visit for _, visit in part} == {number}
    assert stream[:5] != stream[5:10]
    assert stream == first(RatioInfiniteSampler(range(5), seed=3), 15)
    assert stream != first(RatioInfiniteSampler(range(5), seed=4), 15)


def test_without_shuffling_the_order_is_that_of_the_dataset() -> None:
    sampler = RatioInfiniteSampler(range(3), seed=0, shuffle=False)
    assert first(sampler, 7) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]
    assert len(sampler) == 3


@pytest.mark.parametrize('ratio', [None, (2, 1)])
def test_two_processes_see_what_one_with_doubled_batch_sees(monkeypatch, ratio) -> None:
    dataset, batch = mixed(7, 4), 3
    whole = first(RatioInfiniteSampler(dataset, ratio, group=2 * batch, seed=1), 60)
    halves = []
    for rank in range(2):
        as_process(monkeypatch, rank, 2)
        halves.append(first(RatioInfiniteSampler(dataset, ratio, group=batch, seed=1), 30))
    for step in range(10):
        now = slice(step * batch, (step + 1) * batch)
        both = halves[0][now] + halves[1][now]
        assert sorted(both) == sorted(whole[2 * step * batch : 2 * (step + 1) * batch])


def test_group_keeps_batches_of_all_processes_pure(monkeypatch) -> None:
    dataset, batch, sources = mixed(30, 10), 4, []
    for rank in range(2):
        as_process(monkeypatch, rank, 2)
        stream = first(RatioInfiniteSampler(dataset, (9, 1), group=batch, seed=0), 400)
        batches = [stream[i : i + batch] for i in range(0, 400, batch)]
        sources.append([{index >= 30 for index, _ in one} for one in batches])
        assert all(len(source) == 1 for source in sources[-1])
    assert sources[0] == sources[1]
    assert 0 < sum(True in source for source in sources[0]) < 30


def test_ratio_is_met_and_zero_leaves_a_source_out() -> None:
    stream = first(RatioInfiniteSampler(mixed(50, 30, 5), (9, 1, 0), seed=0), 20_000)
    share = sum(50 <= index < 80 for index, _ in stream) / 20_000
    assert share == pytest.approx(0.1, abs=3 * (0.09 / 20_000) ** 0.5)  # three standard errors
    assert max(index for index, _ in stream) < 80
    # 2,000 draws from 30 samples: each was seen 66 or 67 times, its visits counted without a gap.
    visits = [visit for index, visit in stream if index == 60]
    assert visits == list(range(len(visits)))


@pytest.mark.parametrize(('ratio', 'group'), [(None, 1), ((3, 1), 1), ((3, 1), 4), ((1, 2), 5)])
@pytest.mark.parametrize('taken', [0, 1, 23, 4096, 20_011])
@pytest.mark.parametrize('world_size', [1, 2])
def test_skip_arrives_where_walking_does(monkeypatch, ratio, group, taken, world_size) -> None:
    as_process(monkeypatch, world_size - 1, world_size)
    dataset = mixed(11, 6)
    walked = first(RatioInfiniteSampler(dataset, ratio, group, seed=5), taken + 40)[taken:]
    sampler = RatioInfiniteSampler(dataset, ratio, group, seed=5)
    sampler.skip(taken)
    assert first(sampler, 40) == walked


def test_skip_of_ten_million_samples_takes_a_moment() -> None:
    sampler = RatioInfiniteSampler(mixed(1000, 500), (3, 1), seed=0)
    sampler.skip(10_000_000)
    start = time.process_time()
    index, visit = first(sampler, 1)[0]
    skipped = time.process_time() - start
    start = time.process_time()
    first(RatioInfiniteSampler(mixed(1000, 500), (3, 1), seed=0), 20_000)
    walked = time.process_time() - start
    assert skipped < 50 * walked  # walking as far would take 500 times as long
    # Three quarters of the draws in passes over 1000 samples, or a quarter over 500.
    assert visit == pytest.approx(7500 if index < 1000 else 5000, abs=15)


# Updates of a fixed number of samples


def updates(
    monkeypatch: pytest.MonkeyPatch, size: int, batch: int, world_size: int, num: int, start: int = 0, **settings
) -> list[dict[int, tuple[int, int]]]:
    """The samples of each update by their places; each micro-batch of each process is checked to have what it may."""
    found: list[dict[int, tuple[int, int]]] = [{} for _ in range(num)]
    own = size // world_size
    micro_sources = []
    for rank in range(world_size):
        as_process(monkeypatch, rank, world_size)
        sampler = RatioInfiniteSampler(mixed(30, 10), seed=2, **settings)
        sampler.set_update(size, batch)
        sampler.skip(start * own)
        stream = first(sampler, num * own)
        for number, by_place in enumerate(found):
            places, mine = sampler.places(start + number), stream[number * own : (number + 1) * own]
            assert not by_place.keys() & set(places)
            by_place.update(zip(places, mine, strict=True))
        micro_sources.append([[index >= 30 for index, _ in stream[i : i + batch]] for i in range(0, num * own, batch)])
    assert all(sorted(by_place) == list(range(size)) for by_place in found)
    if settings.get('exact'):
        assert all(own == micro_sources[0] for own in micro_sources), 'all processes have the same sources'
    if settings.get('group', 2) != 1 and settings.get('ratio'):
        assert {len(set(micro)) for own in micro_sources for micro in own} == {1}, 'a micro-batch has one source'
    return found


@pytest.mark.parametrize(
    'settings',
    [
        dict(ratio=(3, 1), exact=True),
        dict(ratio=(3, 1), exact=True, group=1),
        dict(ratio=(3, 1), group=4),
        dict(ratio=(3, 1), group=1),
        dict(),
    ],
    ids=['exact', 'exact and mixed', 'drawn', 'drawn and mixed', 'one source'],
)
def test_an_update_has_the_same_samples_however_it_is_split(monkeypatch, settings) -> None:
    splits = [(4, 1), (2, 1), (2, 2), (1, 4), (4, 4 if settings.get('group') == 1 else 1)]
    one, *others = [updates(monkeypatch, 16, batch, world_size, 6, **settings) for batch, world_size in splits]
    assert all(own == one for own in others)
    masks = [sum(index < 30 for index, _ in by_place.values()) for by_place in one]
    assert (set(masks) == {12}) == bool(settings.get('exact'))
    later = updates(monkeypatch, 16, 2, 2, 2, start=4, **settings)
    assert later == one[4:]


def test_the_order_of_tasks_is_drawn_for_every_update(monkeypatch) -> None:
    as_process(monkeypatch, 0, 1)
    sampler = RatioInfiniteSampler(mixed(30, 10), (1, 1), seed=0, exact=True)
    sampler.set_update(8, 1)
    orders = [tuple(place < 4 for place in sampler.places(number)) for number in range(200)]
    assert {sum(order) for order in orders} == {4}
    # Each of the 70 orders is as likely, so that a micro-batch is as often of either task.
    assert len(set(orders)) > 50
    assert np.mean(orders, 0) == pytest.approx(0.5, abs=4 * 0.5 / 200**0.5)


@pytest.mark.parametrize(('batch', 'world_size'), [(8, 1), (8, 8), (8, 64), (4, 128)])
def test_half_of_every_update_are_masks(monkeypatch, batch, world_size) -> None:
    """GenMask's recipe on data of its size: 1,024 samples, of which 512 are masks, and the middle of 8,000 updates."""

    class Parts:
        datasets = (range(42_404), range(120_000))
        __len__ = lambda self: 162_404  # noqa: E731

    as_process(monkeypatch, world_size - 1, world_size)
    sampler = RatioInfiniteSampler(Parts(), (1, 1), seed=0, exact=True)
    sampler.set_update(1024, batch)
    own = 1024 // world_size
    start = time.process_time()
    sampler.skip(4000 * own)
    stream = first(sampler, 25 * own)
    assert time.process_time() - start < 1
    masks = [sum(index < 42_404 for index, _ in stream[i : i + own]) for i in range(0, len(stream), own)]
    assert set(masks) == {own // 2} or own == 8  # two micro-batches of 4, of either task
    # 4,000 x 512 samples are 48.3 passes over the masks.
    assert {visit for index, visit in stream if index < 42_404} == {48}
    assert sum(masks) == 25 * own // 2


def test_parts_in_brackets_share_a_quota(monkeypatch) -> None:
    as_process(monkeypatch, 0, 1)
    settings = dict(ratio=((3, 1), 4), seed=0, exact=True)
    sampler = RatioInfiniteSampler(mixed(30, 20, 10), **settings)
    sampler.set_update(16, 4)
    stream = [index for index, _ in first(sampler, 16 * 500)]
    counts = np.array([[sum(a <= i < b for i in own) for a, b in ((0, 30), (30, 50), (50, 60))]
                       for own in np.reshape(stream, (500, 16))])  # fmt: skip
    assert set(counts[:, 2]) == {8} and counts[:, 1].std() > 0.5
    assert counts[:, 1].mean() == pytest.approx(2, abs=4 * (8 * 0.25 * 0.75 / 500) ** 0.5)
    later = RatioInfiniteSampler(mixed(30, 20, 10), **settings)
    later.set_update(16, 4)
    later.skip(16 * 499 + 3)
    assert [index for index, _ in first(later, 13)] == stream[-13:]


@pytest.mark.parametrize(
    ('settings', 'size', 'batch', 'world_size', 'message'),
    [
        (dict(ratio=(1, 1)), 1024, 8, 128, r'multiples of 1024 \(128 .* x 8 .*512 : 512 .*batch_size=4 \(or 2, 1\)'),
        (dict(ratio=(1, 1)), 16, 8, 2, r'multiples of 16 \(2 processes x 8 .* got 8 : 8 .*batch_size=4 \(or 2, 1\)'),
        (dict(ratio=(1, 1)), 16, 1, 16, r'multiples of 16 .*; take fewer processes$'),
        (dict(ratio=(2, 1)), 16, 1, 1, r'whole numbers .* got 10.6667 : 5.33333 \(ratio \[2, 1\] .*=16\); put parts'),
        (dict(ratio=(1, 1), group=3), 16, 4, 1, 'sampler.group: expected a divisor of batch_size=4, but got 3'),
        (dict(ratio=(1, 1), exact=False, group=3), 16, 1, 1, 'a divisor of global_batch_size=16 .* but got 3'),
        (dict(ratio=(1, 1), exact=False, group=2), 16, 4, 1, 'a multiple of batch_size=4, .* but got 2'),
    ],
)
def test_quotas_that_cannot_be_kept_are_refused(monkeypatch, settings, size, batch, world_size, message) -> None:
    as_process(monkeypatch, 0, world_size)
    sampler = RatioInfiniteSampler(mixed(4, 4), seed=0, **{'exact': True, **settings})
    with pytest.raises(ValueError, match=message):
        sampler.set_update(size, batch)


def test_exact_quotas_need_an_update(monkeypatch) -> None:
    sampler = RatioInfiniteSampler(mixed(4, 4), (1, 1), seed=0, exact=True)
    with pytest.raises(ValueError, match=r"has to know how many .*'genseg_mm.UpdateBasedTrainLoop' and global_batch"):
        next(iter(sampler))
    with pytest.raises(ValueError, match='exact=True needs a ratio, but got None'):
        RatioInfiniteSampler(range(4), seed=0, exact=True)


@pytest.mark.parametrize(
    ('ratio', 'group', 'message'),
    [
        ((1, 2, 3), 1, 'one number for each of the 2 parts'),
        ((1, -1), 1, 'non-negative'),
        ((0, 0), 1, 'not all zero'),
        ((1, float('nan')), 1, 'non-negative'),
        ((1, 1), 0, 'group must be at least 1, but got 0'),
    ],
)
def test_wrong_ratio_is_refused(ratio, group, message) -> None:
    with pytest.raises(ValueError, match=message):
        RatioInfiniteSampler(mixed(4, 4), ratio, group, seed=0)


def test_wrong_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match=r'several parts .* but got range'):
        RatioInfiniteSampler(range(4), (1, 1), seed=0)
    with pytest.raises(ValueError, match='is empty'):
        RatioInfiniteSampler([], seed=0)
    with pytest.raises(ValueError, match='must not be negative, but got -1'):
        RatioInfiniteSampler(range(4), seed=0).skip(-1)


def test_visits_reach_the_parts_through_worker_processes() -> None:
    dataset = mixed(3, 2)
    sampler = RatioInfiniteSampler(dataset, seed=0, shuffle=False)
    loader = DataLoader(dataset, batch_size=5, sampler=sampler, num_workers=1, collate_fn=list)
    batches = [[item[:3] for item in batch] for batch in itertools.islice(loader, 2)]
    assert batches[0] == [('a', 0, 0), ('a', 1, 0), ('a', 2, 0), ('b', 0, 0), ('b', 1, 0)]
    assert batches[1] == [('a', 0, 1), ('a', 1, 1), ('a', 2, 1), ('b', 0, 1), ('b', 1, 1)]
    assert dataset[4][:3] == ('b', 1, None)  # a plain index stays plain


def test_global_random_states_follow_the_visit_and_are_put_back() -> None:
    dataset = mixed(3, 2, seed=9)
    np.random.seed(0)
    random.seed(0)
    expected = np.random.rand(2).tolist(), random.random()
    np.random.seed(0)
    random.seed(0)
    before = np.random.rand()
    draws = [dataset[Visit(4, 0)], dataset[Visit(4, 1)], dataset[Visit(3, 0)], dataset[Visit(4, 0)]]
    assert ([before, np.random.rand()], random.random()) == expected
    assert draws[0] == draws[3]
    assert len({draw[3] for draw in draws}) == len({draw[4] for draw in draws}) == 3


def test_both_build_from_the_registries() -> None:
    dataset = DATASETS.build(dict(type='genseg_mm.MixedDataset', datasets=[Numbers('a', 4)] * 2))
    sampler = DATA_SAMPLERS.build(dict(type='genseg_mm.RatioInfiniteSampler', ratio=[0, 1], dataset=dataset, seed=0))
    assert len(dataset) == 8
    assert {index for index, _ in first(sampler, 12)} == {4, 5, 6, 7}
