"""Reading and checking of the files of RefCOCO, RefCOCO+ and RefCOCOg.

``refs(*).p`` is a pickled list of dicts, one for each referred object, with several sentences each;
``instances.json`` has the pictures and all their objects in COCO's format
(https://github.com/lichengunc/refer, data/README.md). Every error names the file and the entry.
"""

import os
from collections.abc import Callable, Collection
from reprlib import repr as short_repr

from genseg_mm.datasets.annotation_files import is_integer, is_number
from genseg_mm.datasets.coco_annotations import FLAGS, ID, IMAGE, SEGMENTATION, Field, check_entry, read_lists
from genseg_mm.datasets.safe_pickle import load_plain_pickle
from genseg_mm.files import read_json

LAYOUT = (
    '<data_root>/refcoco/instances.json, <data_root>/refcoco/refs(unc).p and <data_root>/train2014/COCO_train2014_*.jpg'
)
_RLE = dict(
    counts=Field('list or str', lambda value: isinstance(value, (list, str))),
    size=Field('list', lambda value: isinstance(value, list)),
)
_REF = dict(
    ref_id=ID,
    ann_id=Field('int or list', lambda value: is_integer(value) or isinstance(value, list)),
    image_id=ID,
    split=Field('str', lambda value: isinstance(value, str)),
    sentences=Field('list', lambda value: isinstance(value, list)),
)
_FIELDS = dict(images=IMAGE, annotations=dict(id=ID, image_id=ID, segmentation=SEGMENTATION, **FLAGS))


def existing_file(path: str, argument: str, layout: str = LAYOUT) -> str:
    """Returns ``path``.

    Raises:
        FileNotFoundError: If there is no such file; says what lies beside it.
    """
    if os.path.isfile(path):
        return path
    folder, beside = os.path.dirname(path), ''
    if os.path.isdir(folder):
        beside = f'; {folder} holds {short_repr(sorted(os.listdir(folder)))}'
    raise FileNotFoundError(f'{argument}: no file {path!r}, expected {layout}{beside}')


def as_list(ann_id: int | list[int]) -> list[int]:
    """Annotation ids of a reference: one in RefCOCO, a list in files with several targets."""
    return list(ann_id) if isinstance(ann_id, list) else [ann_id]


def read_refs(path: str, text_field: str, usable: Callable[[object, str], str]) -> list[dict]:
    """Reads a list of references (``.json``, else a pickle of plain data).

    Args:
        path: The existing file.
        text_field: Key of the text of a sentence, ``'sent'`` or ``'raw'``.
        usable: Takes a text and its place, and gives it back, or ``''`` for what is none and is left out.

    Returns:
        The references with the sentences that have a text; those without any are left out.

    Raises:
        ValueError: If the file is refused, damaged, or lacks a key.
    """
    refs = read_json(path) if path.endswith('.json') else load_plain_pickle(path)
    if not isinstance(refs, list) or not refs:
        raise ValueError(f'{path}: expected a list of references, but got {short_repr(refs)}')
    kept, num_texts = [], 0
    for index, ref in enumerate(refs):
        where = f'{path}, reference {index}'
        check_entry(ref, _REF, where)
        if not all(map(is_integer, as_list(ref['ann_id']))):
            raise ValueError(f'{where}: ann_id must be of int, but got {short_repr(ref["ann_id"])}')
        if ref['ann_id'] == []:
            raise ValueError(f'{where}: ann_id must name objects, or be [-1] for none, but got []')
        if not ref['sentences']:
            raise ValueError(f'{where} (ref_id {ref["ref_id"]}) has no sentence')
        sentences = []
        for number, sentence in enumerate(ref['sentences']):
            place = f'{where}, sentence {number}'
            check_entry(sentence, dict(sent_id=ID), place)
            num_texts += text_field in sentence
            if usable(sentence.get(text_field), f'{place}: {text_field}'):
                sentences.append(sentence)
        if sentences:
            kept.append(dict(ref, sentences=sentences))
    if not num_texts:
        sentence = refs[0]['sentences'][0]
        raise ValueError(
            f'{path}, reference 0, sentence 0 lacks the key {text_field!r}, as all others do; it has '
            f'{sorted(map(str, sentence))}'
        )
    if not kept:
        raise ValueError(f'{path}: no reference has a text as {text_field!r}')
    return kept


def read_instances(
    path: str, image_ids: Collection[int], ann_ids: Collection[int]
) -> tuple[dict[int, dict], dict[int, dict]]:
    """Reads the asked pictures and annotations of ``instances.json``.

    Returns:
        Pictures by id and annotations by id; ids that the file does not have are absent.

    Raises:
        ValueError: If the file is damaged, or one of the asked entries lacks a key, has a wrong value, or is there
            twice with different content.
    """
    content = read_lists(path, ('images', 'annotations'))
    found = {}
    for key, ids in (('images', image_ids), ('annotations', ann_ids)):
        found[key] = {}
        for index, entry in enumerate(content[key]):
            where = f'{path}, {key}[{index}]'
            check_entry(entry, dict(id=ID), where)
            if entry['id'] in ids:
                check_entry(entry, _FIELDS[key], where)
                if found[key].setdefault(entry['id'], entry) != entry:
                    raise ValueError(f'{path}: two {key} have the same id {entry["id"]}')
    return found['images'], found['annotations']


def parse_segmentation(annotation: dict, image: dict, path: str) -> tuple[list[list | dict], int]:
    """Checks the outline of one object.

    Args:
        annotation: Entry of ``annotations``, whose ``segmentation`` is a list of polygons, an RLE,
            or a list of RLEs (RefCLEF).
        image: Entry of ``images``.
        path: File of both, for messages.

    Returns:
        ``[polygons]`` or ``[RLE, ...]``, whose union is the object, and how many polygons of fewer
        than three points, which cover nothing, were left out.

    Raises:
        ValueError: If nothing is left or a part is malformed.
    """
    where = f'{path}, annotation {annotation["id"]}'
    segmentation = annotation['segmentation']
    parts = [segmentation] if isinstance(segmentation, dict) else segmentation
    if parts and all(isinstance(part, dict) for part in parts):
        size = [image['height'], image['width']]
        for part in parts:
            check_entry(part, _RLE, where)
            if part['size'] != size:
                raise ValueError(
                    f'{where}: expected an RLE of the size of image {image["id"]}, {size} '
                    f'(height, width), but got {part["size"]}'
                )
        return list(parts), 0
    polygons = []
    for part in parts:
        if not isinstance(part, list) or len(part) % 2 or not all(map(is_number, part)):
            raise ValueError(f'{where}: expected polygons [x0, y0, x1, y1, x2, y2, ...], but got {short_repr(part)}')
        if len(part) >= 6:
            polygons.append(part)
    if not polygons:
        raise ValueError(f'{where}: expected at least one polygon of 3 points, but got {short_repr(segmentation)}')
    return [polygons], len(parts) - len(polygons)
