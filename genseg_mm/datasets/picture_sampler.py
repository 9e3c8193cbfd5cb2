"""Evaluation spread over processes by picture, so that none has to be encoded twice."""

import heapq
from collections.abc import Iterator, Sequence, Sized
from typing import Any

from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from genseg_mm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class PictureSampler(Sampler):
    """All items of a dataset once; those of a picture follow each other in one process.

    A referring dataset has a picture once for each of its sentences. Pictures go to the process that has the fewest
    items so far, those with the most items first, and stay in the dataset's order. A dataset that does not say which
    picture an item has (``get_data_info`` with ``img_path`` or ``img_id``) is spread item by item.

    Every process hands out the same number of items, so that all make the same number of passes: where shares
    differ, the last items are repetitions. :class:`PictureTestLoop` and :class:`PictureValLoop` leave these out, and
    give the results back their order in the dataset.

    Args:
        dataset: The dataset.
        seed: Not used; the runner hands it to every sampler.

    Attributes:
        own_indices: What this process contributes, without repetitions.
    """

    def __init__(self, dataset: Sized, seed: int | None = None) -> None:
        rank, world_size = get_dist_info()
        shares = spread_by_picture(pictures_of(dataset), world_size)
        self.own_indices = shares[rank]
        num = max(map(len, shares))
        last = self.own_indices[-1:] or [0]
        self._indices = self.own_indices + last * (num - len(self.own_indices))

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def pictures_of(dataset: Any) -> list[Any]:
    """What tells the picture of each item of a dataset from others."""
    if not hasattr(dataset, 'get_data_info'):
        return list(range(len(dataset)))
    pictures = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        picture = info.get('img_path'), info.get('img_id'), info.get('subset')
        pictures.append(picture if picture[0] or picture[1] is not None else index)
    return pictures


def spread_by_picture(pictures: Sequence[Any], num_shares: int) -> list[list[int]]:
    """Places of the items of each share.

    Args:
        pictures: That of each item; equal ones go to one share.
        num_shares: Number of processes.

    Returns:
        Per share the places of its items, those of a picture in a row.
    """
    groups: dict[Any, list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(picture, []).append(place)
    heap = [(0, share) for share in range(num_shares)]
    owners: dict[Any, int] = {}
    for picture in sorted(groups, key=lambda own: -len(groups[own])):  # of equal ones the first in the dataset
        items, share = heapq.heappop(heap)
        owners[picture] = share
        heapq.heappush(heap, (items + len(groups[picture]), share))
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    for picture, places in groups.items():
        shares[owners[picture]] += places
    return shares
