"""Pictures, data and weights that the documents' code takes for granted, made small: street.jpg, data/, hub ids."""

import runpy
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_released import make_mae_folder, make_sd_folder

from genseg_mm.datasets import ShapesDataset

ROOT = Path(__file__).parents[2]
STREET_SIZE, ZOOM = (480, 640), 10
STREET_POINTS = ((320, 240), (80, 200))  # of the documents, (x, y)
SCENE_TEXT = 'the leftmost circle'
# folder in data/ -> makers that write into it, in this order
DATA = {
    '': ('captions', 'reasonseg'),
    'hypersim': ('hypersim',),
    'vkitti2': ('virtual_kitti2',),
    'coco': ('refcoco', 'grefcoco', 'coco'),
    'clevrtex': ('clevrtex',),
    'DRAM_processed': ('dram',),
    'egohos': ('egohos',),
    'ishape_dataset': ('ishape',),
    'pidray': ('pidray',),
    'BSDS500': ('bsds500',),
}


def make_street(path: Path) -> np.ndarray:
    """A picture of 480 x 640 with objects under the documents' points.

    Returns:
        Masks of these two, (2, 480, 640) bool.
    """
    picture, masks = _street()
    picture.save(path, quality=95)
    return masks


@cache
def _street() -> tuple[Image.Image, np.ndarray]:
    scenes = ShapesDataset(num_scenes=3000, image_size=(48, 64), task='instance', split='test')
    for number in range(len(scenes)):
        scene = scenes.scene(number)
        around = [_around(scene.ids, x // ZOOM, y // ZOOM) for x, y in STREET_POINTS]
        first, second = (part.flat[0] for part in around)
        if first and second and first != second and all((part == part.flat[0]).all() for part in around):
            break
    ids = np.kron(scene.ids, np.ones((ZOOM, ZOOM), int))
    picture = Image.fromarray(scene.image[..., ::-1]).resize(STREET_SIZE[::-1], Image.Resampling.NEAREST)
    return picture, np.stack([ids == first, ids == second])


def _around(ids: np.ndarray, x: int, y: int, reach: int = 4) -> np.ndarray:
    """Ids near a point, which has to lie deep in an object."""
    return ids[y - reach : y + reach + 1, x - reach : x + reach + 1]


def make_scene(path: Path) -> np.ndarray:
    """A picture of 64 x 64 with a leftmost circle; its mask, (64, 64) bool."""
    picture, mask = _scene()
    picture.save(path)
    return mask


@cache
def _scene() -> tuple[Image.Image, np.ndarray]:
    scenes = ShapesDataset(num_scenes=500, task='referring', split='test')
    for number in range(500):
        scene = scenes.scene(number)
        found = [one for one in scenes.scene_expressions(number) if one.text == SCENE_TEXT]
        if found and (scene.ids == found[0].target + 1).sum() > 150:
            break
    return Image.fromarray(scene.image[..., ::-1]), scene.ids == found[0].target + 1


def make_hub(place: Path) -> None:
    """Folders named as the hub ids of gen2seg's released weights: tiny random models of the same classes."""
    make_sd_folder(place / 'reachomk/gen2seg-sd')
    make_mae_folder(place / 'reachomk/gen2seg-mae-h')


def make_data(root: Path) -> None:
    """Tiny copies of the datasets that the documents name."""
    for folder, names in DATA.items():
        for name in names:
            tool = runpy.run_path(str(ROOT / f'tools/dataset_tools/make_tiny_{name}.py'))
            tool[f'make_tiny_{name}'](root / folder)
