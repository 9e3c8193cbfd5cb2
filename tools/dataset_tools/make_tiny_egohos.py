"""Writes a tiny EgoHOS: seven painted pictures in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_egohos.py tiny_data

It has what trips readers of the real files: roles in place of objects (one role in two regions, an object that both
hands hold), the folder ``contact``, files of macOS (``._*``) beside the others, and a picture with hands only.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from genseg_mm.launch import ToolParser, run_tool

SIZE = (96, 128)
LEFT, RIGHT, BY_LEFT, BY_RIGHT, BY_BOTH, SECOND_LEFT, SECOND_RIGHT = 1, 2, 3, 4, 5, 6, 7
SKIN = (205, 150, 125)
PAINTS = {3: (60, 90, 190), 4: (200, 60, 50), 5: (70, 160, 80), 6: (230, 200, 70), 7: (150, 70, 160)}
HANDS = ((LEFT, 'hand', (4, 50, 44, 96)), (RIGHT, 'hand', (84, 50, 124, 96)))
# split, name, shapes in the order of painting: role, kind, box (x0, y0, x1, y1)
PICTURES = (
    ('train', 'ego4d_0001', (*HANDS, (BY_BOTH, 'box', (40, 30, 88, 64)))),
    ('train', 'epick_0002', (*HANDS, (BY_RIGHT, 'disk', (76, 30, 108, 62)))),
    ('val', 'thu_0003', HANDS),
    ('test_indomain', 'ego4d_0004', (*HANDS, (BY_LEFT, 'box', (20, 24, 48, 60)),
                                     (SECOND_LEFT, 'disk', (44, 8, 76, 36)))),
    ('test_indomain', 'ego4d_0005', (*HANDS, (BY_BOTH, 'box', (30, 36, 98, 60)))),
    # the right hand's object is cut in two by the left hand's
    ('test_indomain', 'escape_0006', (*HANDS, (BY_RIGHT, 'box', (30, 20, 110, 34)),
                                      (BY_LEFT, 'box', (56, 10, 74, 60)))),
    ('test_outdomain', 'youtube_0007', ((RIGHT, 'hand', (60, 50, 110, 96)), (BY_RIGHT, 'box', (52, 28, 90, 56)),
                                        (SECOND_RIGHT, 'box', (20, 10, 54, 40)))),
)  # fmt: skip


def make_tiny_egohos(data_root: str | Path) -> Path:
    """Writes ``{train,val,test_indomain,test_outdomain}/{image/*.jpg, label/*.png, contact/*.png}``.

    2, 1, 3 and 1 pictures; the test splits have 11 and 3 roles, in 12 and 3 regions.

    Args:
        data_root: Folder to write into; made if it does not exist.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    for number, (split, name, shapes) in enumerate(PICTURES):
        labels, picture = _paint(number, shapes)
        folder = data_root / split
        for kind in ('image', 'label', 'contact'):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / 'image' / f'{name}.jpg', quality=95)
        Image.fromarray(labels).save(folder / 'label' / f'{name}.png')
        Image.fromarray(_contact(labels)).save(folder / 'contact' / f'{name}.png')
    for folder, name in (('image', 'ego4d_0004.jpg'), ('label', 'ego4d_0004.png')):
        (data_root / 'test_indomain' / folder / f'._{name}').write_bytes(b'\0\5\x16\7Mac OS X')
    return data_root


def _paint(seed: int, shapes: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Roles (H, W) uint8 and the picture (H, W, 3) RGB."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(SIZE, np.uint8)
    picture = generator.integers(90, 120, (*SIZE, 3)).astype(np.uint8)
    for role, kind, (x0, y0, x1, y1) in shapes:
        mask = np.zeros(SIZE, np.uint8)
        if kind == 'box':
            mask[y0:y1, x0:x1] = 1
        else:  # a hand's ellipse leaves the picture below
            height = 2 * (y1 - y0) if kind == 'hand' else y1 - y0
            centre = (x0 + x1) // 2, y0 + height // 2
            cv2.ellipse(mask, centre, ((x1 - x0) // 2, height // 2), 0, 0, 360, 1, -1)
        labels[mask == 1] = role
        noise = generator.integers(-12, 12, (int(mask.sum()), 3))
        picture[mask == 1] = np.clip(np.array(PAINTS.get(role, SKIN)) + noise, 0, 255)
    return labels, picture


def _contact(labels: np.ndarray) -> np.ndarray:
    """1 on pixels of objects near a hand."""
    hands = np.isin(labels, (LEFT, RIGHT)).astype(np.uint8)
    near = cv2.dilate(hands, np.ones((5, 5), np.uint8))
    return (near.astype(bool) & (labels > RIGHT)).astype(np.uint8)


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder egohos/')
    print(f'wrote {make_tiny_egohos(Path(parser.parse_args().out) / "egohos")}')


if __name__ == '__main__':
    run_tool(main)
