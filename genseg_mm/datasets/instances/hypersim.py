"""Hypersim: indoor renderings with an id of every object."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from genseg_mm.datasets.instances.hypersim_files import (
    MAKE_INDEX,
    UNREADABLE,
    Counts,
    Frame,
    HypersimFolder,
    read_index,
    read_split,
)
from genseg_mm.datasets.instances.instance_map_dataset import InstanceMapDataset
from genseg_mm.registry import DATASETS

PARTITIONS = ('train', 'val', 'test')


@DATASETS.register_module()
class HypersimDataset(InstanceMapDataset):
    """Hypersim (Roberts et al., ICCV 2021) as one downloads it: tone-mapped previews and ``semantic_instance``.

    ``ai_VVV_NNN/images/scene_cam_XX_final_preview/frame.IIII.color.jpg`` (1024 x 768; never the ``diff.jpg`` and
    ``tonemap.jpg`` beside it) with ``scene_cam_XX_geometry_hdf5/frame.IIII.semantic_instance.hdf5``; or the
    reference implementation's converted form (``rgb/<scene>/...`` and ``instance-rgb/<scene>/...frame.IIII.png``).

    Id -1 becomes background (0). It stands for three things that the file does not tell apart: walls, floors and
    ceilings, objects without a label, and pixels without geometry (only ``render_entity_id`` marks those; it is not
    read). Other ids go to 4,166 and are kept. Items have, besides those of every ``InstanceMapDataset``, ``scene``
    ('ai_001_001'), ``camera`` ('cam_00') and ``frame`` (a number); ``subset`` is by default the partition. In the
    official layout ``semantic_map_path`` names the NYU40 classes for ``KeepClasses``, a file that is needed only there.

    The paper trained on 66k frames. All public frames without the 65 scenes of less than 10 labelled instances are
    65,791: no partition, and an index with ``--min-scene-instances 10``.

    Args:
        data_root: Folder of the scenes.
        split_file: ``metadata_images_split_scene_v1.csv`` (of the dataset's repository; relative to data_root). Only
            its public frames are taken. None takes all frames of the folder.
        partition: 'train', 'val' or 'test' of the split file; None takes all three.
        index_file: Table of instance counts that ``tools/dataset_tools/prepare_hypersim.py`` writes (relative to
            data_root). None counts nothing: then frames and whole scenes without any instance are in the dataset,
            and ``empty`` is the rule for them.
        min_instances: Frames with fewer instances are left out. None: as the index was made, or 0 without one.
        min_scene_instances: The same for the instances seen in all frames of a scene.
        layout: ``'official'``, ``'converted'``, or ``'auto'`` to recognise it.
        **kwargs: As for ``InstanceMapDataset``.

    Raises:
        FileNotFoundError: If data_root is in neither layout, or a named file does not exist.
        ValueError: If counts are asked for without an index, or the index does not know a frame.
    """

    # Frames; apple/ml-hypersim, metadata_images_split_scene_v1.csv
    PUBLISHED = {'train': 59_543, 'val': 7_386, 'test': 7_690, None: 74_619}

    def __init__(
        self,
        data_root: str,
        split_file: str | None = None,
        partition: str | None = None,
        index_file: str | None = None,
        min_instances: int | None = None,
        min_scene_instances: int | None = None,
        layout: str = 'auto',
        **kwargs: Any,
    ) -> None:
        if partition not in (None, *PARTITIONS):
            raise ValueError(f'partition must be one of {PARTITIONS} or None, but got {partition!r}')
        if partition and not split_file:
            raise ValueError(
                f'partition={partition!r} needs split_file: metadata_images_split_scene_v1.csv of the dataset'
            )
        if index_file is None and (min_instances or min_scene_instances):
            out = os.path.join(data_root, 'index.csv')
            raise ValueError(
                f'min_instances={min_instances} and min_scene_instances={min_scene_instances} need index_file, the '
                f'table of counts. Make it with: {MAKE_INDEX.format(root=data_root, out=out)}'
            )
        self.split_file = split_file
        self.partition = partition
        self.index_file = index_file
        self.min_instances = min_instances
        self.min_scene_instances = min_scene_instances
        self.layout = layout
        super().__init__(data_root=data_root, **{'subset': partition or 'all', **kwargs})

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        folder = HypersimFolder.open(self.data_root, self.layout)
        frames = self._frames(folder)
        counts = self._counts(folder, frames)
        for frame in frames:
            reason = self._reason_against(counts.get(frame))
            if reason:
                self.skip(str(folder.instance_map(frame)), reason)
                continue
            yield dict(
                img_path=str(folder.image(frame)),
                instance_map_path=str(folder.instance_map(frame)),
                **self._semantic_map(folder, frame),
                scene=frame.scene,
                camera=frame.camera,
                frame=frame.number,
            )

    def published_items(self) -> int | None:
        """Public frames of the partition; what an index leaves out is not published."""
        known = self.split_file and not self.index_file
        return self.PUBLISHED[self.partition] if known else None

    @staticmethod
    def _semantic_map(folder: HypersimFolder, frame: Frame) -> dict[str, str]:
        path = folder.semantic_map(frame)
        return {'semantic_map_path': str(path)} if path else {}

    def _frames(self, folder: HypersimFolder) -> list[Frame]:
        if self.split_file is not None:
            return read_split(self._path(self.split_file), self.partition)
        frames = list(folder.frames())
        print_log(
            f'HypersimDataset: no split_file, so all {len(frames)} frames of {self.data_root} are taken, those of the '
            'official validation and test partitions as well',
            logger='current',
        )
        return frames

    def _counts(self, folder: HypersimFolder, frames: list[Frame]) -> dict[Frame, Counts]:
        """Reads the index and settles the thresholds."""
        if self.index_file is None:
            return {}
        path = self._path(self.index_file)
        make = MAKE_INDEX.format(root=self.data_root, out=path)
        if not path.is_file():
            raise FileNotFoundError(
                f'HypersimDataset: no index {path}. Make it with: {make} (or set index_file=None, which leaves frames '
                'without any instance in)'
            )
        counts, settings = read_index(path)
        # Frames without a file of ids are missing pairs, which the index cannot know.
        unknown = [frame for frame in frames if frame not in counts and folder.instance_map(frame).is_file()]
        if unknown:
            raise ValueError(
                f'{path} does not know {len(unknown)} of {len(frames)} frames, such as {unknown[0]}. Make it anew '
                f'with: {make}'
            )
        for name in ('min_instances', 'min_scene_instances'):
            if getattr(self, name) is None:
                setattr(self, name, _setting(settings, name, path))
        return counts

    def _reason_against(self, counts: Counts | None) -> str | None:
        if counts is None:
            return None
        if counts.frame == UNREADABLE:
            return 'unreadable instance map'
        if counts.scene < self.min_scene_instances:
            return f'fewer than {self.min_scene_instances} instances in the scene'
        if counts.frame < self.min_instances:
            return f'fewer than {self.min_instances} instances'
        return None

    def _path(self, path: str) -> Path:
        return Path(self.data_root) / path


def _setting(settings: Mapping[str, str], name: str, path: Path) -> int:
    text = settings.get(name, '1')
    if not text.isdecimal() or len(text) > 9:
        raise ValueError(f'{path}, line 1: expected {name} to be a whole number, but got {text!r}')
    return int(text)
