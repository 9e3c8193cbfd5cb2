"""What datasets of drawn scenes share: checks of their arguments, which items are kept, how a scene becomes an item."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genseg_mm.datasets.instance_maps import InstanceMapDataset
from genseg_mm.datasets.seeded_access import CountedVisits
from genseg_mm.datasets.segmentations import instances_of_map
from genseg_mm.datasets.shape_scenes import random_interior_points

SPLITS = ('train', 'val', 'test')
MIN_SIDE = 32
MAX_REDRAWS = 1000
REFERRING_META = dict(classes=('background', 'referent'), palette=[[0, 0, 0], [255, 255, 255]])
INSTANCE_META = InstanceMapDataset.METAINFO


class DrawnScenesDataset(CountedVisits):
    """Scenes that follow from a seed and their number, and their items for a ``task``.

    A subclass checks its arguments by the methods below, sets ``task``, ``image_size``, ``subset``, ``expressions``,
    ``caption`` and ``max_items``, and calls this one's ``__init__`` last.

    Args:
        seed: Of the scenes.
        metainfo: Over that of the task.
        pipeline: Transforms.
        test_mode: Whether items are those of a test: prompts of points, maps that are not resized.
        **kwargs: As for :class:`CountedVisits`.

    Raises:
        ValueError: If ``exclude_images`` is among them.
    """

    def __init__(self, seed: int, metainfo: Mapping | None, pipeline: Sequence, test_mode: bool, **kwargs: Any) -> None:
        if 'exclude_images' in kwargs:
            own = kwargs['exclude_images']
            raise ValueError(
                f'{type(self).__name__}: exclude_images is for pictures of COCO, but got {own!r}: leave it out'
            )
        defaults = INSTANCE_META if self.task in ('instance', 'unlabelled') else REFERRING_META
        super().__init__(
            seed=self._whole('seed', seed, 0),
            metainfo={**defaults, **(metainfo or {})},
            pipeline=pipeline,
            test_mode=test_mode,
            **kwargs,
        )

    def prepare_data(self, idx: int) -> Any:
        """One item through the pipeline."""
        info = self.get_data_info(idx)
        if self.task == 'instance' and self.test_mode:
            info['instances'] = instances_of_map(info['gt_instance_map'])
        return self.pipeline(info)

    @property
    def _is_drawn(self) -> bool:
        drawn = dict(referring=self.expressions, text_to_image=self.caption)
        return drawn.get(self.task) == 'random'

    def _some(self, items: list[dict]) -> list[dict]:
        """At most ``max_items`` of the items, chosen by the seed."""
        if self.max_items is None or self.max_items >= len(items):
            return items
        chosen = np.random.default_rng(self.seed).choice(len(items), self.max_items, replace=False)
        return [items[place] for place in np.sort(chosen)]

    def _picture(self, item: dict, image: np.ndarray) -> dict:
        """What every item has."""
        return dict(
            img=image.copy(),
            img_shape=self.image_size,
            ori_shape=self.image_size,
            img_path='',
            img_id=item['scene'],
            subset=self.subset,
            sample_idx=item['sample_idx'],
            seg_fields=[],
        )

    def _prompted(self, info: dict, ids: np.ndarray, key: list[int]) -> None:
        """Adds a random pixel of each instance, by a key of its own."""
        info['point_ids'], info['points'] = random_interior_points(ids, np.random.default_rng(key))
        info['point_labels'] = np.ones(info['points'].shape[:2], np.int64)

    def _with_fields(self, info: dict) -> dict:
        """Has transforms change the maps along with the picture, but in test."""
        if not self.test_mode:
            info['seg_fields'] = [key for key in ('gt_seg_map', 'gt_instance_map') if key in info]
        return info

    def _one_of(self, name: str, value: Any, options: Sequence[str]) -> Any:
        if value not in options:
            raise ValueError(f'{type(self).__name__}: {name} must be one of {tuple(options)}, but got {value!r}')
        return value

    def _whole(self, name: str, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(
                f'{type(self).__name__}: {name} must be a whole number of at least {least}, but got {value!r}'
            )
        return int(value)

    def _checked_size(self, image_size: int | Sequence[int]) -> tuple[int, int]:
        sides = image_size if isinstance(image_size, Sequence) else (image_size, image_size)
        if isinstance(image_size, str) or len(sides) != 2:
            raise ValueError(
                f'{type(self).__name__}: image_size must be (height, width) or one number, but got {image_size!r}'
            )
        return tuple(self._whole('each side of image_size', side, MIN_SIDE) for side in sides)

    def _check_task(self, name: str, value: Any, task: str, is_default: bool) -> None:
        if not is_default and self.task != task:
            raise ValueError(
                f'{type(self).__name__}: {name}={value!r} has a meaning for task={task!r} only, but got '
                f'task={self.task!r}'
            )
