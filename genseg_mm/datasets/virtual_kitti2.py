"""Virtual KITTI 2: rendered streets with an id of every vehicle."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genseg_mm.datasets.instance_maps import InstanceMapDataset
from genseg_mm.registry import DATASETS

# With both cameras the 21,260 pairs of the paper: no clone, no turned cameras.
SCENES = ('Scene01', 'Scene02', 'Scene06', 'Scene18', 'Scene20')
VARIATIONS = ('morning', 'fog', 'rain', 'sunset', 'overcast')
# Public readers of the archives use the first spelling, the official page writes the second.
INSTANCE_FOLDERS = ('instanceSegmentation', 'instancesegmentation')

_IMAGE = re.compile(r'rgb_(\d+)\.jpg')
_INSTANCES = re.compile(r'instancegt_(\d+)\.png')


@DATASETS.register_module()
class VirtualKITTI2Dataset(InstanceMapDataset):
    """Virtual KITTI 2 (Cabon et al., 2020), as its archives unpack.

    ``SceneXX/<variation>/frames/rgb/Camera_{0,1}/rgb_%05d.jpg`` (1242 x 375) with
    ``SceneXX/<variation>/frames/instanceSegmentation/Camera_{0,1}/instancegt_%05d.png``, whose palette *indices* are
    the instances: 0 = none, else track id + 1. Only cars, trucks and vans have one, so the background is ignored by
    default. Frames without any vehicle exist; ``empty`` is the rule for them (the reference trains on them, and with
    the background ignored their loss is zero).

    Items have, besides those of every ``InstanceMapDataset``, ``scene``, ``variation``, ``camera`` (0 or 1) and
    ``frame``.

    Args:
        data_root: Folder of the scenes.
        scenes: Names of the scenes.
        variations: Names of the variations: weather and time of day as in the paper; there are also clone,
            15-deg-left, 15-deg-right, 30-deg-left and 30-deg-right.
        cameras: Numbers of the cameras.
        ignore_background: See ``InstanceMapDataset``.
        **kwargs: As for ``InstanceMapDataset``.

    Raises:
        FileNotFoundError: If a folder that the settings ask for does not exist (unless ``missing='skip'``).
        ValueError: If an instance map holds colours (when ``LoadInstanceMap`` reads it).
    """

    PUBLISHED = 2_126  # frames of all scenes, per variation and camera (total of the official page)

    def __init__(
        self,
        data_root: str,
        scenes: Sequence[str] = SCENES,
        variations: Sequence[str] = VARIATIONS,
        cameras: Sequence[int] = (0, 1),
        ignore_background: bool = True,
        **kwargs: Any,
    ) -> None:
        for name, values in dict(scenes=scenes, variations=variations, cameras=cameras).items():
            if isinstance(values, str) or not values or len(set(values)) != len(values):
                raise ValueError(f'{name} must be a list of different entries, but got {values!r}')
        self.scenes, self.variations, self.cameras = scenes, variations, cameras
        super().__init__(data_root=data_root, ignore_background=ignore_background, **kwargs)

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        for scene in self.scenes:
            for variation in self.variations:
                for camera in self.cameras:
                    yield from self._camera_pairs(scene, variation, camera)

    def published_items(self) -> int | None:
        """Pairs of all scenes with these variations and cameras; of single scenes no number is published."""
        known = len(set(self.scenes)) == len(SCENES)
        return self.PUBLISHED * len(self.variations) * len(self.cameras) if known else None

    def _camera_pairs(self, scene: str, variation: str, camera: int) -> Iterator[dict]:
        frames = Path(self.data_root) / scene / variation / 'frames'
        images = frames / 'rgb' / f'Camera_{camera}'
        maps = [frames / name / f'Camera_{camera}' for name in INSTANCE_FOLDERS]
        instances = next((folder for folder in maps if folder.is_dir()), maps[0])
        for folder in (images, instances):
            if not folder.is_dir():
                self.skip(folder, 'no folder')
        if not (images.is_dir() and instances.is_dir()):
            return
        numbers = _numbers(images, _IMAGE) | _numbers(instances, _INSTANCES)
        if not numbers:
            self.skip(images, 'no picture in the folder')
        for number in sorted(numbers):
            yield dict(
                img_path=str(images / f'rgb_{number:05d}.jpg'),
                instance_map_path=str(instances / f'instancegt_{number:05d}.png'),
                ids_are_indices=True,
                scene=scene,
                variation=variation,
                camera=camera,
                frame=number,
            )


def _numbers(folder: Path, pattern: re.Pattern) -> set[int]:
    return {int(match[1]) for match in map(pattern.fullmatch, os.listdir(folder)) if match}
