"""Writes a tiny ReasonSeg: seven drawn pictures in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_reasonseg.py tiny_data

It has what trips readers of the real files: regions to ignore around and inside of targets, shapes labelled 'flag',
a picture without any polygon, one that its EXIF data turn, an annotation in Windows-1252, one or several wordings,
and written answers for some training pictures.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from genseg_mm.launch import ToolParser, run_tool

ORIENTATION, TURNED = 0x0112, 6  # EXIF: turn by 90 degrees clockwise to show


def _box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


# split, name, (height, width) as shown, wordings, is_sentence, shapes (label, points)
SCENES = (
    ('train', '1000', (48, 64), ['What could roll away first?', 'the part most likely to roll away'], True,
     [('target', _box(4, 6, 20, 22))]),
    ('train', '1001', (40, 56), ['the café chair'], False,
     [('ignore', _box(30, 4, 50, 24)), ('target', _box(36, 10, 42, 16)), ('flag', _box(0, 0, 9, 9))]),
    ('train', '1002', (48, 64), ['Which side would one sit on?', 'the seat', 'where to sit'], True,
     [('target', _box(8.9, 8.9, 40.9, 30.9)), ('Ignored', _box(20, 12, 28, 20))]),
    ('val', '2000', (64, 48), ['What stands upright?'], True, [('target', _box(5, 40, 25, 60))]),
    ('val', '2001', (48, 64), ['two lamps', 'the lamps'], False,
     [('target', _box(4, 4, 12, 12)), ('target', _box(44, 4, 52, 12))]),
    ('test', '3000', (48, 64), ['What is missing here?'], True, []),
    ('test', '3001', (48, 64), ['the warm thing', 'what warms the room'], False,
     [('target', [[10, 40], [50, 40], [10, 5]]), ('ignore', _box(52, 2, 62, 12))]),
)  # fmt: skip
TURNED_NAMES, WINDOWS_NAMES = ('2000',), ('1001',)
ANSWERS = (('1000', 'What could roll away first?', 'The ball: it is round and lies on a slope.'),)


def make_tiny_reasonseg(data_root: str | Path) -> Path:
    """Writes ``ReasonSeg/{train,val,test}/<name>.jpg``, ``<name>.json`` and ``ReasonSeg/explanatory/train.json``.

    Train has 3 pictures with 6 wordings, val 2 with 3, test 2 with 3.

    Args:
        data_root: Folder to write into; made if it does not exist.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    for number, (split, name, (height, width), text, is_sentence, shapes) in enumerate(SCENES):
        folder = data_root / 'ReasonSeg' / split
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(90, 130, (height, width, 3))
        picture = noise.astype(np.uint8)
        for label, points in shapes:
            colour = (220, 60, 40) if label == 'target' else (60, 60, 60)
            cv2.fillPoly(picture, np.array([points], np.int32), colour)
        image, exif = Image.fromarray(picture), Image.Exif()
        if name in TURNED_NAMES:
            image = image.transpose(Image.Transpose.ROTATE_90)  # the EXIF data turn it back
            exif[ORIENTATION] = TURNED
        image.save(folder / f'{name}.jpg', quality=95, exif=exif)
        entry = dict(
            text=text, is_sentence=is_sentence, shapes=[_shape(label, points, name) for label, points in shapes]
        )
        encoding = 'cp1252' if name in WINDOWS_NAMES else 'utf-8'
        content = json.dumps(entry, ensure_ascii=False)
        (folder / f'{name}.json').write_text(content, encoding=encoding)
    answers = [dict(image=f'{name}.jpg', query=query, outputs=out) for name, query, out in ANSWERS]
    folder = data_root / 'ReasonSeg' / 'explanatory'
    folder.mkdir(exist_ok=True)
    (folder / 'train.json').write_text(json.dumps(answers))
    return data_root


def _shape(label: str, points: list, name: str) -> dict:
    return dict(
        label=label,
        labels=[label],
        shape_type='polygon',
        image_name=f'{name}.jpg',
        points=points,
        group_id=None,
        group_ids=[None],
        flags={},
    )


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA')
    print(f'wrote {make_tiny_reasonseg(Path(parser.parse_args().out))}')


if __name__ == '__main__':
    run_tool(main)
