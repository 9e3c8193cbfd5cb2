"""Readers of data sets, on drawn copies at the size of the real pictures."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from dataset_tools.make_tiny_hypersim import make_tiny_hypersim
from dataset_tools.make_tiny_refcoco import make_tiny_refcoco
from PIL import Image
from speed.measuring import Row

from genseg_mm.config_file import find_config, read_config_file
from genseg_mm.datasets.hypersim import HypersimFolder
from genseg_mm.datasets.instance_maps import read_instance_map, write_plain_map
from genseg_mm.registry import DATASETS

SCALE = 10  # of the tiny RefCOCO, whose pictures are 48 x 64
_FOLDERS: list[tempfile.TemporaryDirectory] = []  # until the program ends


def _folder() -> Path:
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix='speed'))
    return Path(_FOLDERS[-1].name)


def large_refcoco(root: Path) -> None:
    """The tiny RefCOCO, its pictures and outlines as large as COCO's, with the noise of a photograph."""
    make_tiny_refcoco(root)
    rng = np.random.default_rng(0)
    for path in (root / 'train2014').glob('*.jpg'):
        picture = cv2.imread(str(path))
        picture = cv2.resize(picture, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
        noisy = np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
    file = root / 'refcoco' / 'instances.json'
    content = json.loads(file.read_text())
    for image in content['images']:
        image.update(height=image['height'] * SCALE, width=image['width'] * SCALE)
    for own in content['annotations']:
        own['segmentation'] = [[value * SCALE for value in part] for part in own['segmentation']]
        own.update(bbox=[value * SCALE for value in own['bbox']], area=own['area'] * SCALE**2)
    file.write_text(json.dumps(content))


def training_pipeline(config: str) -> list[dict]:
    """The pipeline of a config's first data set."""
    return read_config_file(find_config(config)).train_dataloader.dataset.datasets[0].pipeline


def refcoco(_options: Any) -> Mapping[str, Callable]:
    """Sentences with picture and mask at 512 x 512, as a training reads them; and reading the pictures alone."""
    root = _folder()
    large_refcoco(root)
    dataset = DATASETS.build(
        dict(
            type='genseg_mm.RefCOCODataset', data_root=str(root), ann_file='refcoco/instances.json',
            split_file='refcoco/refs(unc).p', data_prefix=dict(img_path='train2014/'), split='train',
            pipeline=training_pipeline('refcoco'),
        )
    )  # fmt: skip
    paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    return dict(ours=lambda: _read(dataset), **{'decoding alone': lambda: _decode(paths)})


def hypersim(_options: Any) -> Mapping[str, Callable]:
    """Pictures of 768 x 1024 with their plain maps, at 224 x 224, as MAE trains; compressed maps; pictures alone."""
    root = make_tiny_hypersim(_folder(), image_size=(768, 1024), num_frames=2)
    folder = HypersimFolder.open(root)
    for frame in folder.frames():
        write_plain_map(folder.plain_map(frame, root / 'plain'), read_instance_map(folder.instance_map(frame)))
    plain, compressed = (
        DATASETS.build(
            dict(
                type='genseg_mm.HypersimDataset', data_root=str(root), index_file=None, plain_maps=where,
                pipeline=training_pipeline('gen2seg_mae-h_hypersim-vkitti2'),
            )
        )
        for where in ('plain', None)
    )  # fmt: skip
    paths = [plain.get_data_info(index)['img_path'] for index in range(len(plain))]
    others = {'compressed maps': lambda: _read(compressed), 'decoding alone': lambda: _decode(paths)}
    return dict(ours=lambda: _read(plain), **others)


def _read(dataset: Any) -> None:
    for index in range(len(dataset)):
        dataset[index]


def _decode(paths: list[str]) -> None:
    for path in paths:
        with Image.open(path) as image:
            image.convert('RGB').load()


LOADERS = (
    Row('refcoco_loader', '7 objects of RefCOCO, 480x640 to 512x512', refcoco),
    Row('hypersim_loader', '12 frames of Hypersim with plain maps, 768x1024 to 224x224', hypersim),
)
