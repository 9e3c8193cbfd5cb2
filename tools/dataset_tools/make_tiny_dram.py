"""Writes a tiny DRAM: six painted pictures in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_dram.py tiny_data

It has what trips readers of the real files: two artists with a picture of the same name, a movement one level deeper
(``unseen/``), labels as palette PNG (whose colours are no ids) and as grey PNG, pixels to ignore (255), classes that
are not evaluated, one class in several regions, two classes that touch, and a speck of three pixels.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from genseg_mm.launch import ToolParser, run_tool

SIZE = (96, 128)
IGNORED = 255
BOAT, CAT, TABLE, DOG, HORSE, PERSON, PLANT = 4, 8, 11, 12, 13, 15, 16  # ids of PASCAL VOC
PAINTS = {  # red, green, blue
    BOAT: (120, 80, 50), CAT: (70, 60, 60), TABLE: (140, 110, 70), DOG: (190, 160, 120), HORSE: (110, 60, 30),
    PERSON: (220, 170, 140), PLANT: (60, 120, 50),
}  # fmt: skip
# name, mode of the label file, shapes in the order of painting: label, kind, box (x0, y0, x1, y1)
PICTURES = (
    ('realism/courbet/portrait', 'P', ((TABLE, 'box', (10, 60, 118, 90)), (PERSON, 'disk', (44, 10, 84, 66)))),
    ('impressionism/manet/portrait', 'P', ((PERSON, 'disk', (10, 20, 50, 80)), (PERSON, 'disk', (70, 20, 118, 84)))),
    ('impressionism/monet/harbour', 'L', ((BOAT, 'box', (8, 50, 48, 70)), (BOAT, 'box', (70, 56, 120, 80)),
                                          (IGNORED, 'box', (0, 84, 128, 96)))),
    ('post_impressionism/gauguin/riders', 'L', ((HORSE, 'box', (20, 40, 70, 90)), (PERSON, 'box', (34, 12, 54, 40)),
                                                (DOG, 'disk', (86, 60, 120, 90)))),
    ('expressionism/marc/cat', 'P', ((CAT, 'disk', (30, 30, 100, 84)), (CAT, 'box', (2, 2, 5, 3)))),
    ('unseen/ukiyo_e/hokusai/portrait', 'P', ((PERSON, 'disk', (30, 10, 90, 80)), (PLANT, 'box', (4, 40, 22, 92)))),
)  # fmt: skip
COLOURS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128] * 4  # repeat: colours are no ids


def make_tiny_dram(data_root: str | Path) -> Path:
    """Writes ``test/**/*.jpg``, ``labels/**/*.png``, the lists ``test/*.txt`` and one unlabelled ``train`` picture.

    Five pictures of the four movements with 9 regions of at least 100 evaluated pixels, one unseen with 2; classes: 7
    and 2.

    Args:
        data_root: Folder to write into; made if it does not exist.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    for number, (name, mode, shapes) in enumerate(PICTURES):
        labels, picture = _paint(number, shapes)
        _save(Image.fromarray(picture), data_root / 'test' / f'{name}.jpg', quality=95)
        label = Image.fromarray(labels)
        if mode == 'P':
            label = Image.fromarray(labels, mode='P')
            label.putpalette(COLOURS)
        _save(label, data_root / 'labels' / f'{name}.png')
    blank = np.full((*SIZE, 3), 150, np.uint8)
    _save(Image.fromarray(blank), data_root / 'train/realism/courbet/study.jpg', quality=95)
    names = [name for name, _, _ in PICTURES]
    unseen = [name for name in names if name.startswith('unseen/')]
    seen = [name for name in names if name not in unseen]
    movements = sorted({name.split('/')[0] for name in seen})
    lists = {own: [name for name in seen if name.startswith(f'{own}/')] for own in movements}
    lists.update(dram=seen, unseen=unseen, dram_with_unseen=names)
    for own, lines in lists.items():
        (data_root / 'test' / f'{own}.txt').write_text(''.join(f'{line}\n' for line in lines))
    return data_root


def _paint(seed: int, shapes: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Labels (H, W) uint8 and the picture (H, W, 3) RGB."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(SIZE, np.uint8)
    picture = generator.integers(130, 175, (*SIZE, 3)).astype(np.uint8)
    for label, kind, (x0, y0, x1, y1) in shapes:
        mask = np.zeros(SIZE, np.uint8)
        if kind == 'box':
            mask[y0:y1, x0:x1] = 1
        else:
            centre, axes = ((x0 + x1) // 2, (y0 + y1) // 2), ((x1 - x0) // 2, (y1 - y0) // 2)
            cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
        labels[mask == 1] = label
        if label in PAINTS:
            strokes = generator.integers(-18, 18, (int(mask.sum()), 3))
            picture[mask == 1] = np.clip(np.array(PAINTS[label]) + strokes, 0, 255)
    return labels, picture


def _save(image: Image.Image, path: Path, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument(
        'out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder DRAM_processed/'
    )
    print(f'wrote {make_tiny_dram(Path(parser.parse_args().out) / "DRAM_processed")}')


if __name__ == '__main__':
    run_tool(main)
