"""Writes tiny pictures with captions in every layout that is read, for tests and first tries.

    python tools/dataset_tools/make_tiny_captions.py tiny_data

- ``coco/annotations/captions_{train,val}{2014,2017}.json`` with ``coco/{train,val}{2014,2017}/*.jpg``, COCO's layout;
- ``image_text/folder/``: pictures with a ``.txt`` or ``.json`` of the same name, some in a folder below;
- ``image_text/list.jsonl`` and ``image_text/list.csv``: paths and texts;
- ``image_text/shards/tiny-{000000,000001}.tar``: WebDataset's layout.

Five of the eight pictures are those of make_tiny_refcoco.py, so that both can be written into one folder: 122, 129 and
136 are evaluated there, and lie in the training split of 2017 here, as real pictures of RefCOCO's test splits do.
"""

import csv
import io
import json
import runpy
import tarfile
from pathlib import Path

import cv2
import numpy as np

from genseg_mm.launch import ToolParser, run_tool

REFCOCO = runpy.run_path(str(Path(__file__).with_name('make_tiny_refcoco.py')))
SIZES = ((48, 64), (40, 56), (64, 48))  # (height, width) of the pictures that RefCOCO has not
# id, split of 2014, split of 2017, shapes (None: RefCOCO's). Most of val2014 is in train2017, and the ids stay.
PICTURES = (
    (101, 'train', 'train', None),
    (108, 'train', 'train', None),
    (122, 'train', 'train', None),
    (129, 'train', 'train', None),
    (136, 'train', 'train', None),
    (143, 'val', 'train', (('green', 'circle', 5, 22),)),
    (150, 'val', 'val', (('blue', 'circle', 22, 8), ('red', 'square', 2, 20))),
    (157, 'val', 'val', (('green', 'square', 12, 12),)),
)


def make_tiny_captions(root: str | Path) -> Path:
    """Writes all layouts of the eight pictures: 5 + 3 in the splits of 2014, 6 + 2 in those of 2017.

    Picture k has 1 + k % 3 captions in COCO's files, and its first one elsewhere.

    Args:
        root: Folder to write into; made if it does not exist.

    Returns:
        ``root``.
    """
    root = Path(root)
    samples = []
    for index, (image_id, _, _, shapes) in enumerate(PICTURES):
        picture, words = _refcoco(image_id) if shapes is None else _draw(index, shapes)
        samples.append((image_id, picture, _captions(index, words)))
    _write_coco(root / 'coco', samples)
    _write_folder(root / 'image_text' / 'folder', samples)
    _write_lists(root / 'image_text', samples)
    _write_shards(root / 'image_text' / 'shards', samples)
    return root


def _refcoco(image_id: int) -> tuple[np.ndarray, list[str]]:
    """A picture of the tiny RefCOCO, and its objects in words."""
    index = (image_id - REFCOCO['FIRST_ID']) // REFCOCO['STEP']
    _, _, objects = REFCOCO['SCENES'][index]
    return REFCOCO['draw'](index), [f'a {colour} {category}' for colour, category, *_ in objects]


def _draw(index: int, shapes: tuple) -> tuple[np.ndarray, list[str]]:
    noise = np.random.default_rng(index).integers(90, 130, (*SIZES[index % len(SIZES)], 3))
    picture = noise.astype(np.uint8)
    for name, shape, x, y in shapes:
        colour = REFCOCO['COLOURS'][name]
        if shape == 'square':
            cv2.rectangle(picture, (x, y), (x + 15, y + 15), colour, -1)
        else:
            cv2.circle(picture, (x + 8, y + 8), 8, colour, -1)
    return picture, [f'a {name} {shape}' for name, shape, _, _ in shapes]


def _captions(index: int, words: list[str]) -> list[str]:
    captions = [f'{" and ".join(words).capitalize()} on a grey ground.']
    captions.append(f'A picture of {len(words)} shape{"s" * (len(words) > 1)}')
    captions.append(f'There is {words[0]}')
    return captions[: 1 + index % 3]


def _write_coco(root: Path, samples: list) -> None:
    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    for year, column in ((2014, 1), (2017, 2)):
        for split in ('train', 'val'):
            images, annotations = [], []
            folder = root / f'{split}{year}'
            folder.mkdir(exist_ok=True)
            for entry, (image_id, picture, captions) in zip(PICTURES, samples, strict=True):
                if entry[column] != split:
                    continue
                prefix = f'COCO_{split}2014_' if year == 2014 else ''
                name = f'{prefix}{image_id:012d}.jpg'
                height, width = picture.shape[:2]
                images.append(dict(license=4, file_name=name, height=height, width=width, id=image_id))
                annotations += [
                    dict(image_id=image_id, id=10 * image_id + number, caption=caption)
                    for number, caption in enumerate(captions)
                ]
                (folder / name).write_bytes(_encoded(picture, '.jpg'))
            # As in the real files, captions are not in the order of their pictures.
            annotations.sort(key=lambda entry: (entry['id'] % 10, entry['id']))
            content = dict(info=dict(year=year), licenses=[], images=images, annotations=annotations)
            (root / 'annotations' / f'captions_{split}{year}.json').write_text(json.dumps(content))


def _write_folder(root: Path, samples: list) -> None:
    (root / 'more').mkdir(parents=True, exist_ok=True)
    for number, (_, picture, captions) in enumerate(samples):
        path = (root if number < 5 else root / 'more') / f'{number:04d}'
        path.with_suffix('.png').write_bytes(_encoded(picture, '.png'))
        if number % 4 == 3:
            path.with_suffix('.json').write_text(json.dumps(dict(text=captions[0])))
        else:
            path.with_suffix('.txt').write_text(captions[0] + '\n')


def _write_lists(root: Path, samples: list) -> None:
    rows = []
    for number, (_, _, captions) in enumerate(samples):
        folder = 'folder' if number < 5 else 'folder/more'
        rows.append(dict(image=f'{folder}/{number:04d}.png', text=captions[0]))
    (root / 'list.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    with (root / 'list.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, ['image', 'text'])
        writer.writeheader()
        writer.writerows(rows)


def _write_shards(root: Path, samples: list) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        with tarfile.open(root / f'tiny-{shard:06d}.tar', 'w') as tar:
            for number in range(4 * shard, 4 * shard + 4):
                _, picture, captions = samples[number]
                ending = ('.jpg', '.png', '.webp')[number % 3]
                members = [(f'{number:09d}{ending}', _encoded(picture, ending))]
                if number % 2:
                    members.append((f'{number:09d}.json', json.dumps(dict(text=captions)).encode()))
                else:
                    members.append((f'{number:09d}.txt', captions[0].encode()))
                for name, data in members:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def _encoded(picture: np.ndarray, ending: str) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if ending == '.jpg' else []
    return cv2.imencode(ending, picture, options)[1].tobytes()


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument(
        'out', writes='folder', help='folder for GENSEG_DATA; coco/ and image_text/ are written into it'
    )
    print(f'wrote {make_tiny_captions(parser.parse_args().out)}')


if __name__ == '__main__':
    run_tool(main)
