"""Writes a tiny gRefCOCO on the six pictures of the tiny RefCOCO, in the published layout.

    python tools/dataset_tools/make_tiny_grefcoco.py tiny_data

It has what gRefCOCO has and RefCOCO has not: expressions of several objects and of none, ``ann_id`` as a list, as a
bare number and ``[-1]``, a crowd region among the targets and polygons of two points. The tiny RefCOCO is written too.
"""

import json
import runpy
from pathlib import Path

from genseg_mm.launch import ToolParser, run_tool

_SIBLING = Path(__file__).with_name('make_tiny_refcoco.py')

# place of the picture, split, places of its objects (None: nothing), sentences
REFERENCES = (
    (0, 'train', (0, 1), ['The square and the cross', 'both on top']),
    (0, 'train', None, ['The yellow square.']),
    (0, 'train', (2,), ['green triangle']),
    (1, 'train', (0, 1, 'crowd'), ['everything']),
    (2, 'train', (1,), ['left shape']),
    (3, 'val', (0, 1), ['both things', 'the cross and the green one', 'all']),
    (3, 'val', None, ['red square', 'person on the right']),
    (3, 'val', (1,), ['Right one']),
    (4, 'testA', (0,), ['the only one']),
    (4, 'testA', None, ['two squares']),
    (5, 'testB', (0, 1), ['blue triangle and red square']),
)
CROWD = 9001


def make_tiny_grefcoco(data_root: str | Path) -> Path:
    """Writes ``grefcoco/instances.json``, ``grefcoco/grefs(unc).json`` and the tiny RefCOCO.

    11 references with 15 sentences: train 5 / 6, val 3 / 6, testA 2 / 2, testB 1 / 1; 4 sentences have no target and
    7 have several.

    Args:
        data_root: Folder to write into; made if it does not exist.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    refcoco = runpy.run_path(str(_SIBLING))
    refcoco['make_tiny_refcoco'](data_root)
    content = json.loads((data_root / 'refcoco' / 'instances.json').read_text())
    images, annotations = content['images'], content['annotations']
    own = [[ann['id'] for ann in annotations if ann['image_id'] == im['id']] for im in images]
    annotations[0]['segmentation'].append([1.0, 1.0, 9.0, 9.0])  # a line: covers nothing
    size = [images[1]['height'], images[1]['width']]
    runs = [0, 20 * size[0], (size[1] - 20) * size[0]]  # the first twenty columns
    annotations.append(
        dict(annotations[0], id=CROWD, image_id=images[1]['id'], segmentation=dict(counts=runs, size=size), iscrowd=1)
    )
    refs = []
    for place, split, objects, sentences in REFERENCES:
        ids = [CROWD if at == 'crowd' else own[place][at] for at in objects or ()] or [-1]
        named = [ann for ann in annotations if ann['id'] in ids]
        like = dict(id=ids[0], image_id=images[place]['id'], category_id=-1)
        ref = refcoco['_reference'](refs, like, images[place]['file_name'], split, sentences)
        ref['category_id'] = [ann['category_id'] for ann in named] or [-1]
        # Old copies have a bare number for a single object
        ref['ann_id'] = ids[0] if place == 2 else ids
        refs.append(ref)
    folder = data_root / 'grefcoco'
    folder.mkdir(exist_ok=True)
    (folder / 'instances.json').write_text(json.dumps(content))
    (folder / 'grefs(unc).json').write_text(json.dumps(refs))
    return data_root


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder coco/')
    print(f'wrote {make_tiny_grefcoco(Path(parser.parse_args().out) / "coco")}')


if __name__ == '__main__':
    run_tool(main)
