"""Hypersim, indoor renderings with an id of every object: its two layouts, official split and index of counts."""

import csv
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from genseg_mm.datasets.instance_maps import InstanceMapDataset
from genseg_mm.files import read_lines, read_table
from genseg_mm.files.whole_files import whole_file
from genseg_mm.registry import DATASETS

PARTITIONS = ('train', 'val', 'test')
LAYOUTS = ('auto', 'official', 'converted')
SPLIT_COLUMNS = ('scene_name', 'camera_name', 'frame_id', 'included_in_public_release', 'split_partition_name')
INDEX_COLUMNS = ('scene_name', 'camera_name', 'frame_id', 'num_instances', 'scene_instances')
UNREADABLE = -1  # num_instances of a frame whose file is damaged
MAKE_INDEX = 'python tools/dataset_tools/prepare_hypersim.py {root} --out {out}'

_SCENE = re.compile(r'ai_\d{3}_\d{3}')
_CAMERA_NAME = re.compile(r'cam_\d+')
_CAMERA = re.compile(r'scene_(cam_\d+)_(?:final_preview|geometry_hdf5)')
# Of a folder's many files only the tone-mapped picture, never diff.jpg or tonemap.jpg beside it, and the ids.
_IMAGE = re.compile(r'frame\.(\d{4})\.color\.jpg')
_OFFICIAL_MAP = re.compile(r'frame\.(\d{4})\.semantic_instance\.hdf5')
_CONVERTED_MAP = re.compile(r'frame\.(\d{4})\.png')


class Frame(NamedTuple):
    """One picture of Hypersim: ('ai_001_001', 'cam_00', 0)."""

    scene: str
    camera: str
    number: int

    def __str__(self) -> str:
        return f'{self.scene}/{self.camera}/frame.{self.number:04d}'


class Counts(NamedTuple):
    """Instances of a frame (``UNREADABLE`` for a damaged file) and of its whole scene."""

    frame: int
    scene: int


@dataclass(frozen=True)
class HypersimFolder:
    """Where the files of each frame lie, and which frames there are.

    Attributes:
        root: The folder.
        layout: ``'official'`` (``ai_VVV_NNN/images/...`` with the ids in HDF5) or ``'converted'`` (``rgb/`` and
            ``instance-rgb/`` with the ids as colours of a PNG, as the reference implementation reads them).
        plain_maps: Where the same ids lie uncompressed, as prepare_hypersim.py writes them, None for nowhere.
    """

    root: Path
    layout: str
    plain_maps: Path | None = None

    @classmethod
    def open(cls, root: str | Path, layout: str = 'auto') -> 'HypersimFolder':
        """Recognises the layout.

        Raises:
            FileNotFoundError: If the folder is in neither layout.
            ValueError: If it could be both, or the layout's name is unknown.
        """
        root = Path(root)
        if layout not in LAYOUTS:
            raise ValueError(f'layout must be one of {LAYOUTS}, but got {layout!r}')
        found = [name for name in LAYOUTS[1:] if cls(root, name)._scenes()]
        if layout == 'auto' and len(found) > 1:
            raise ValueError(f'{root} holds both layouts of Hypersim {found}: set layout to one')
        if not found or layout not in ('auto', *found):
            raise FileNotFoundError(
                f'{root}: expected Hypersim as ai_VVV_NNN/images/ (layout official) or as rgb/ai_VVV_NNN/ and '
                f'instance-rgb/ai_VVV_NNN/ (layout converted), but got {found or "neither"} for layout={layout!r}'
            )
        return cls(root, found[0] if layout == 'auto' else layout)

    def image(self, frame: Frame) -> Path:
        """Path of the tone-mapped picture."""
        own = self.root / 'rgb' if self.layout == 'converted' else self.root
        folder = own / frame.scene / 'images' / f'scene_{frame.camera}_final_preview'
        return folder / f'frame.{frame.number:04d}.color.jpg'

    def instance_map(self, frame: Frame) -> Path:
        """Path of the ids, uncompressed if they are."""
        return self._map(frame) if self.plain_maps is None else self.plain_map(frame, self.plain_maps)

    @classmethod
    def plain_map(cls, frame: Frame, folder: Path) -> Path:
        """Path of a frame's uncompressed ids in a folder of them."""
        return cls(folder, 'official')._map(frame)

    def _map(self, frame: Frame) -> Path:
        own = self.root / 'instance-rgb' if self.layout == 'converted' else self.root
        folder = own / frame.scene / 'images' / f'scene_{frame.camera}_geometry_hdf5'
        ending = 'png' if self.layout == 'converted' else 'semantic_instance.hdf5'
        return folder / f'frame.{frame.number:04d}.{ending}'

    def semantic_map(self, frame: Frame) -> Path | None:
        """Path of the NYU40 classes; the converted layout has none."""
        if self.layout == 'converted':
            return None
        return self._map(frame).with_name(f'frame.{frame.number:04d}.semantic.hdf5')

    def frames(self) -> Iterator[Frame]:
        """Every frame of which the picture or the ids are there, in order."""
        for scene in self._scenes():
            yield from self._scene_frames(scene)

    def _tops(self) -> list[Path]:
        if self.layout == 'official':
            return [self.root]
        return [self.root / 'rgb', self.root / 'instance-rgb']

    def _scenes(self) -> list[str]:
        names = {name for top in self._tops() for name in _names(top) if _SCENE.fullmatch(name)}
        return sorted(names)

    def _scene_frames(self, scene: str) -> list[Frame]:
        map_name = _OFFICIAL_MAP if self.layout == 'official' else _CONVERTED_MAP
        frames = set()
        for top in self._tops():
            images = top / scene / 'images'
            for folder in _names(images):
                camera = _CAMERA.fullmatch(folder)
                if not camera:
                    continue
                pattern = _IMAGE if folder.endswith('preview') else map_name
                found = filter(None, map(pattern.fullmatch, _names(images / folder)))
                frames |= {Frame(scene, camera[1], int(match[1])) for match in found}
        return sorted(frames)


def read_split(path: str | Path, partition: str | None) -> list[Frame]:
    """Public frames of one partition of the official split, in the file's order.

    Args:
        path: ``metadata_images_split_scene_v1.csv`` of the dataset's repository (82,900 rows; the public ones are
            59,543 train, 7,386 val and 7,690 test).
        partition: 'train', 'val' or 'test'; None takes all three.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another table, or has no frame of that partition.
    """
    frames, partitions = [], set()
    for number, row in _rows(path, SPLIT_COLUMNS):
        if row['included_in_public_release'].strip().lower() != 'true':
            continue
        partitions.add(row['split_partition_name'])
        if partition in (None, row['split_partition_name']):
            frames.append(_frame(row, f'{path}, line {number}'))
    if not frames:
        raise ValueError(f'{path} has no public frame of partition {partition!r}; it has {sorted(partitions)}')
    return frames


def write_index(path: str | Path, counts: Mapping[Frame, Counts], settings: Mapping[str, object]) -> None:
    """Writes the index; the file is complete or not there at all.

    Args:
        path: File to write.
        counts: Of every frame.
        settings: What the first line tells: at least ``min_instances`` and ``min_scene_instances``, which
            :func:`read_index` gives back.
    """
    path = Path(path)
    with whole_file(path) as partial, partial.open('w', newline='') as file:
        file.write('# ' + ' '.join(f'{name}={value}' for name, value in settings.items()) + '\n')
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(INDEX_COLUMNS)
        writer.writerows((*frame, *own) for frame, own in sorted(counts.items()))


def read_index(path: str | Path) -> tuple[dict[Frame, Counts], dict[str, str]]:
    """Counts and settings as :func:`write_index` wrote them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another table.
    """
    counts = {}
    for number, row in _rows(path, INDEX_COLUMNS):
        where = f'{path}, line {number}'
        own = Counts(_whole(row, 'num_instances', where), _whole(row, 'scene_instances', where))
        counts[_frame(row, where)] = own
    _, line = next(read_lines(path))
    pairs = (word.partition('=')[::2] for word in line[1:].split()) if line[0] == '#' else ()
    return counts, dict(pairs)


def _rows(path: str | Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    return read_table(path, columns, whole=True, comment='#', ending='.csv')


def _frame(row: Mapping[str, str], where: str) -> Frame:
    scene, camera = row['scene_name'], row['camera_name']
    if not _SCENE.fullmatch(scene) or not _CAMERA_NAME.fullmatch(camera):
        raise ValueError(f'{where}: expected a scene ai_VVV_NNN and a camera cam_XX, but got {scene!r} and {camera!r}')
    return Frame(scene, camera, _whole(row, 'frame_id', where))


def _whole(row: Mapping[str, str], name: str, where: str) -> int:
    try:
        return int(row[name])
    except ValueError as error:
        raise ValueError(f'{where}: expected {name} to be a whole number, but got {row[name]!r}') from error


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


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
        plain_maps: Folder in which ``prepare_hypersim.py --plain-maps`` wrote the ids uncompressed (relative to
            data_root): the same items, read in a sixth of the time. None reads them as downloaded.
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
        plain_maps: str | None = None,
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
        self.plain_maps = plain_maps
        super().__init__(data_root=data_root, **{'subset': partition or 'all', **kwargs})

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        folder = HypersimFolder.open(self.data_root, self.layout)
        if self.plain_maps is not None:
            folder = replace(folder, plain_maps=self._path(self.plain_maps))
            if not folder.plain_maps.is_dir():
                make = f'{MAKE_INDEX.format(root=self.data_root, out=self._path("index.csv"))} --plain-maps'
                raise FileNotFoundError(f'HypersimDataset: no folder {folder.plain_maps}. Make it with: {make} FOLDER')
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
