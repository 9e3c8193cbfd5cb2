"""Writes a tiny folder of cut-outs: drawn objects with a table of their names, for tests and first tries.

    python tools/dataset_tools/make_tiny_objects.py tiny_data
    python tools/dataset_tools/prepare_objects.py --folder tiny_data/objects --out tiny_data/objects.safetensors

It has what trips sentences about objects: names within names ('cat', 'black cat'), kinds that pass for each other
('car', 'taxi'), two pictures of one name, words for kinds, synonyms, and names without a plural.
"""

import csv
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from genseg_mm.datasets.shape_scenes import box, ellipse, heart, plus, star
from genseg_mm.launch import ToolParser, run_tool

SIDE = 96
DIAMOND = np.array([[0.0, -1.2], [0.8, 0.0], [0.0, 1.2], [-0.8, 0.0]])
TRIANGLE = np.array([[0.0, -1.1], [1.0, 0.7], [-1.0, 0.7]])
TEE = np.array([(-1, -1), (1, -1), (1, -0.3), (0.3, -0.3), (0.3, 1), (-0.3, 1), (-0.3, -0.3), (-1, -0.3)])
# file, name, group, synonyms, RGB, outline
OBJECTS = (
    ('cat', 'cat', 'animal', 'kitty;house cat', (230, 150, 60), star(5, 0.6, 1.1)),
    ('black_cat', 'black cat', 'animal', '', (40, 40, 50), star(5, 0.6, 1.1)),
    ('dog', 'dog', 'animal', 'hound;doggy', (150, 100, 60), star(7, 0.6, 1.1)),
    ('owl', 'owl', 'animal', 'hooter', (120, 90, 70), star(9, 0.7, 1.1)),
    ('zebra', 'zebra', 'animal', '', (220, 220, 220), plus(1.05, 0.4)),
    ('mouse', 'mouse', 'animal', '', (160, 160, 170), ellipse(0.8)),
    ('apple', 'apple', 'fruit', 'pippin;russet', (210, 40, 40), ellipse()),
    ('pear', 'pear', 'fruit', '', (170, 200, 60), DIAMOND),
    ('banana', 'banana', 'fruit', '', (245, 220, 70), box(-1, -0.4, 1, 0.4)),
    ('grapes', 'grapes', 'fruit', '', (130, 70, 170), star(12, 0.8, 1.0)),
    ('carrot', 'carrot', 'vegetable', '', (240, 130, 40), TRIANGLE),
    ('onion', 'onion', 'vegetable', '', (220, 190, 150), star(4, 0.7, 1.0)),
    ('car', 'car', 'vehicle', 'automobile;motor car', (60, 90, 220), box(-1, -0.6, 1, 0.6)),
    ('taxi', 'taxi', 'vehicle', 'cab', (250, 200, 50), box(-1, -0.55, 1, 0.55)),
    ('bus', 'bus', 'vehicle', 'coach', (200, 60, 60), box(-1, -0.8, 1, 0.8)),
    ('tractor', 'tractor', 'vehicle', '', (70, 160, 70), TEE),
    ('knife', 'kitchen knife', 'household', '', (190, 200, 210), box(-0.3, -1, 0.3, 1)),
    ('broom', 'broom', 'household', '', (180, 140, 80), TEE),
    ('chair', 'chair', 'household', '', (140, 90, 50), box(-0.8, -0.8, 0.8, 0.8)),
    ('clock1', 'clock', 'household', 'dial', (240, 240, 230), ellipse()),
    ('clock2', 'clock', 'household', 'dial', (60, 60, 60), ellipse()),
    ('red_heart', 'red heart', 'sign', '', (220, 30, 60), heart()),
    ('star', 'star', 'sign', '', (250, 220, 60), star(5, 0.45, 1.15)),
    ('ring', 'ring', 'sign', '', (240, 190, 60), DIAMOND),
)


def make_tiny_objects(folder: str | Path) -> Path:
    """Writes ``objects.csv`` and 24 pictures of 23 kinds in 6 groups.

    Args:
        folder: Folder to write into; made if it does not exist.

    Returns:
        ``folder``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'objects.csv', 'w', newline='', encoding='utf-8') as file:
        table = csv.writer(file)
        table.writerow(['file', 'name', 'group', 'synonyms'])
        for name, words, group, synonyms, color, outline in OBJECTS:
            Image.fromarray(draw(color, outline)).save(folder / f'{name}.png')
            table.writerow([f'{name}.png', words, group, synonyms])
    return folder


def draw(color: tuple[int, int, int], outline: np.ndarray) -> np.ndarray:
    """A shaded object with a dark rim, (96, 96, 4) uint8 RGBA."""
    points = np.rint((outline * 0.4 * SIDE + SIDE / 2) * 16).astype(np.int32)
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(alpha, [points], 255, lineType=cv2.LINE_AA, shift=4)
    shade = np.linspace(1.1, 0.7, SIDE)[:, None, None]
    picture = np.clip(np.array(color) * shade, 0, 255) * np.ones((SIDE, SIDE, 1))
    picture = picture.astype(np.uint8)
    cv2.polylines(picture, [points], True, (30, 30, 30), 3, cv2.LINE_AA, 4)
    return np.dstack([picture, alpha])


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder objects/')
    print(f'wrote {make_tiny_objects(Path(parser.parse_args().out) / "objects")}')


if __name__ == '__main__':
    run_tool(main)
