"""PictureSampler: every item once, those of a picture together, whatever the number of processes."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset

from genseg_mm.datasets import PictureSampler, ShapesDataset
from genseg_mm.datasets.picture_sampler import pictures_of, spread_by_picture


def sentences(num_items: int, num_pictures: int, seed: int = 0) -> list[int]:
    """Pictures of items in no order, as RefCOCO's; each picture has at least one."""
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([np.arange(num_pictures), rng.integers(num_pictures, size=num_items - num_pictures)])
    return rng.permutation(drawn).tolist()


@pytest.mark.parametrize('num_shares', [1, 2, 3, 8, 16])
def test_refcoco_val_is_spread_evenly_and_wholly(num_shares):
    pictures = sentences(10_834, 1_500)
    shares = spread_by_picture(pictures, num_shares)
    assert sorted(place for own in shares for place in own) == list(range(10_834))
    sizes = [len(own) for own in shares]
    assert max(sizes) - min(sizes) <= 2
    owners = [{pictures[place] for place in own} for own in shares]
    assert sum(map(len, owners)) == 1_500
    for own in shares:
        seen = [pictures[place] for place in own]
        changes = sum(one != other for one, other in pairwise(seen))
        assert changes == len(set(seen)) - 1  # each picture in one run
        assert list(dict.fromkeys(seen)) == [one for one in dict.fromkeys(pictures) if one in set(seen)]


def test_a_hand_worked_spread():
    pictures = ['a', 'b', 'a', 'c', 'a', 'c', 'd']
    assert spread_by_picture(pictures, 1) == [[0, 2, 4, 1, 3, 5, 6]]
    assert spread_by_picture(pictures, 2) == [[0, 2, 4, 6], [1, 3, 5]]
    assert spread_by_picture(pictures, 5) == [[0, 2, 4], [3, 5], [1], [6], []]


class Items(BaseDataset):
    """Items with the pictures of a list."""

    def __init__(self, pictures: list, subset: str = 'val') -> None:
        self.pictures, self.subset = pictures, subset
        super().__init__(pipeline=[])

    def load_data_list(self) -> list[dict]:
        return [dict(img_path=own, subset=self.subset) for own in self.pictures]


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_processes_hand_out_equal_numbers(monkeypatch, world_size):
    dataset = Items(['a.jpg', 'b.jpg', 'a.jpg', 'a.jpg', 'a.jpg', 'c.jpg'])
    handed, own = Counter(), []
    for rank in range(world_size):
        monkeypatch.setattr('genseg_mm.datasets.picture_sampler.get_dist_info', lambda rank=rank: (rank, world_size))
        sampler = PictureSampler(dataset, seed=3)
        assert list(sampler) == list(sampler) and len(list(sampler)) == len(sampler)
        assert list(sampler)[: len(sampler.own_indices)] == sampler.own_indices
        assert set(list(sampler)[len(sampler.own_indices) :]) <= {sampler.own_indices[-1]}
        handed[len(sampler)] += 1
        own += sampler.own_indices
    assert sorted(own) == list(range(6))
    assert handed == {{1: 6, 2: 4, 3: 4}[world_size]: world_size}


def test_more_processes_than_pictures(monkeypatch):
    monkeypatch.setattr('genseg_mm.datasets.picture_sampler.get_dist_info', lambda: (2, 3))
    sampler = PictureSampler(Items(['a.jpg'] * 4))
    assert (sampler.own_indices, list(sampler)) == ([], [0] * 4)


def test_what_a_picture_is():
    joined = ConcatDataset([Items(['a.jpg', 'b.jpg', 'a.jpg']), Items(['a.jpg'], subset='test')])
    assert spread_by_picture(pictures_of(joined), 1) == [[0, 2, 1, 3]]
    assert pictures_of(['x', 'y']) == [0, 1]  # no items that could say it
    assert pictures_of(Items([None, None])) == [0, 1]
    shapes = ShapesDataset(num_scenes=3, image_size=32, split='val', test_mode=True)
    scenes = [shapes.get_data_info(index)['img_id'] for index in range(len(shapes))]
    assert scenes == sorted(scenes) and len(scenes) > 3
    assert spread_by_picture(pictures_of(shapes), 1) == [list(range(len(shapes)))]
