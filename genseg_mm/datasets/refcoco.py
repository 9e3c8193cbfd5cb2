"""RefCOCO, RefCOCO+ and RefCOCOg, read from their published files (https://github.com/lichengunc/refer).

``refs(*).p`` is a pickled list of dicts, one for each referred object, with several sentences each; ``instances.json``
has the pictures and all their objects in COCO's format. Every error names the file and the entry.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short_repr

from genseg_mm.datasets.annotation_files import (
    FLAGS,
    ID,
    IMAGE,
    SEGMENTATION,
    Field,
    check_entry,
    is_integer,
    is_number,
    picture_path,
    read_lists,
    where_configs_look,
)
from genseg_mm.datasets.published_counts import Count, exclusion_note
from genseg_mm.datasets.seeded_access import CountedVisits, checked_choice
from genseg_mm.files import read_json
from genseg_mm.files.pickles import load_plain_pickle
from genseg_mm.registry import DATASETS

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


@DATASETS.register_module()
class RefCOCODataset(CountedVisits):
    """Referring expressions on COCO-2014 pictures (https://github.com/lichengunc/refer).

    In test every (image, object, sentence) is one item, as the literature counts: 10,834 on
    RefCOCO val. In training every (image, object) is one item, whose sentence is drawn anew at each
    access from a generator seeded by (seed, index, visit). The visit number comes with the index if
    the sampler hands out such indices (``genseg_mm.Visit``), which makes a resumed run draw what an
    uninterrupted one does; otherwise the dataset counts its accesses itself, over all workers of
    this process, starting from 0 in a new run.

    The same files of RefCOCO+ (``refcoco+/refs(unc).p``) and RefCOCOg are read by setting ``ann_file``
    and ``split_file``: ``refcocog/refs(umd).p`` has train, val and test; ``refcocog/refs(google).p``
    has train and val, which divide the objects, so that a picture can be in both.

    An item has ``img_path, img_id, height, width`` (as annotated), ``text, sent_id``, ``sentences,
    sent_ids`` (all of the object), ``ref_id, ann_ids``, ``segmentations`` (a list of COCO polygon
    lists or RLE dicts whose union is the target), ``task='mask'``, ``subset`` (its split),
    ``seg_fields=[]``, and in training ``visit``.

    A file that lists several ``ann_id`` per expression is read as well: their union is the
    target, and ``[-1]`` means that nothing is referred to (no segmentations).

    Sentences that are no text (null, NaN, missing, empty, or with a lone surrogate) are left out, and references
    without any other as well: ``left_out`` names them by reason, and they are counted in a warning.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: ``instances.json``, COCO format.
        split_file: ``refs(unc).p``, ``refs(umd).p`` ...: a pickled (or ``.json``) list of dicts.
        data_prefix: ``img_path`` is the folder of the pictures.
        split: ``'train'``, ``'val'``, ``'testA'`` ... as written in ``split_file``. ``'test'`` is
            all test splits together where there is none of that very name, as in the refer API.
        text_field: ``'sent'``, the cleaned text (LISA, CRIS), or ``'raw'``, as typed (LAVT,
            ReLA). Blanks at both ends are removed; the case is kept.
        sentence: ``'all'`` (default in test), ``'random'`` (default in training) or ``'first'``,
            one item per object with its first sentence (mmdet's evaluation, not that of papers).
        exclude_images: Pictures to leave out of training, lest a test picture of one dataset is a
            training picture of another: image ids, refs files, whose pictures of any other split
            than train are meant, id lists, or presets such as ``'unc+umd'``; all ``sources`` of
            :func:`genseg_mm.datasets.leakage.evaluation_image_ids`, relative to ``data_root``.
        check_images: Missing picture files are an error. Otherwise they are counted in a warning.
        allow_outside: Whether the paths of pictures may leave data_root and the folder of the pictures.
        test_mode: See above.
        **kwargs: As for :class:`CountedVisits`: seed, pipeline, and those of ``mmengine.dataset.BaseDataset``.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If an argument or the content of a file is wrong.
    """

    LAYOUT = LAYOUT  # for messages
    BARE_NO_TARGET = False  # whether ann_id -1 means no target without a list around it

    # By refs file and split: references (objects) and their sentences, None where no number is published. CRIS
    # utils/dataset.py, the TFDS catalog, notebooks of lichengunc/refer; sentences of single splits of RefCOCO+ and
    # RefCOCOg agree with the published totals.
    PUBLISHED = {
        'refcoco/refs(unc).p': dict(
            train=(42_404, 120_624), val=(3_811, 10_834), testA=(1_975, 5_657), testB=(1_810, 5_095)
        ),
        'refcoco/refs(google).p': dict(train=(40_000, None), val=(5_000, None), test=(5_000, None)),
        'refcoco+/refs(unc).p': dict(
            train=(42_278, 120_191), val=(3_805, 10_758), testA=(1_975, 5_726), testB=(1_798, 4_889)
        ),
        'refcocog/refs(umd).p': dict(train=(42_226, 80_512), val=(2_573, 4_896), test=(5_023, 9_602)),
        'refcocog/refs(google).p': dict(train=(44_822, 85_474), val=(5_000, 9_536)),
    }

    def __init__(
        self,
        data_root: str = '',
        ann_file: str = 'refcoco/instances.json',
        split_file: str = 'refcoco/refs(unc).p',
        data_prefix: Mapping = dict(img_path='train2014/'),
        split: str = 'train',
        text_field: str = 'sent',
        sentence: str | None = None,
        exclude_images: str | int | Sequence[str | int] | None = None,
        check_images: bool = False,
        allow_outside: bool = False,
        test_mode: bool = False,
        **kwargs,
    ) -> None:
        sentence = sentence or ('all' if test_mode else 'random')
        sentence = checked_choice('sentence', sentence, test_mode)
        if text_field not in ('sent', 'raw'):
            raise ValueError(f"text_field must be 'sent' or 'raw', but got {text_field!r}")
        if exclude_images is not None and split != 'train':
            raise ValueError(
                "exclude_images is for split='train': leaving pictures out of an evaluation split "
                f'makes its numbers incomparable, but got split={split!r}'
            )
        self.split_file, self.split = split_file, split
        self.text_field, self.sentence = text_field, sentence
        self.check_images, self.allow_outside = check_images, allow_outside
        self.dropped: Counter[str] = Counter()
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            exclude_images=exclude_images,
            test_mode=test_mode,
            **kwargs,
        )

    def _join_prefix(self) -> None:
        super()._join_prefix()
        self.split_file = os.path.join(self.data_root or '', self.split_file)

    def load_data_list(self) -> list[dict]:
        """Reads the files; of the annotations only those of the chosen split are kept."""
        if self.data_root and not os.path.isdir(self.data_root):
            raise FileNotFoundError(
                f'data_root {self.data_root!r} is not a folder, expected {self.LAYOUT}. {where_configs_look()}'
            )
        self.left_out.clear()
        refs = read_refs(existing_file(self.split_file, 'split_file', self.LAYOUT), self.text_field, self.usable_text)
        refs = self.drop_excluded(self._select_split(refs), lambda ref: (ref['image_id'],), 'referred objects')
        images, annotations = read_instances(
            existing_file(self.ann_file, 'ann_file', self.LAYOUT),
            {ref['image_id'] for ref in refs},
            {ann_id for ref in refs for ann_id in as_list(ref['ann_id'])},
        )
        outlines = {}
        items = [self._parse_ref(ref, images, annotations, outlines) for ref in refs]
        self.log_left_out()
        for what, count in self.dropped.items():
            self._log(f'left out {count} {what}', logging.WARNING)
        self.check_pictures({item['img_path'] for item in items}, self.LAYOUT, self.check_images)
        if self.sentence != 'random':
            items = [
                dict(item, text=text, sent_id=sent_id)
                for item in items
                for text, sent_id in self._shown_sentences(item)
            ]
        self._log(f'{len(items)} items of {len(refs)} referred objects')
        return items

    def published_items(self) -> int | None:
        """Items of the complete split, None where no number is published."""
        path = Path(self.split_file)
        splits = self.PUBLISHED.get(f'{path.parent.name}/{path.name}', {})
        names = [self.split]
        if self.split == 'test' and 'test' not in splits:
            names = [name for name in splits if name.startswith('test')]
        counts = [splits[name][self.sentence == 'all'] for name in names if name in splits]
        return sum(counts) if counts and None not in counts else None

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        published = self.published_items()
        if published is not None:
            what = 'sentences' if self.sentence == 'all' else 'references'
            yield Count(len(self), what, published, note=exclusion_note(self))

    def _shown_sentences(self, item: dict) -> list[tuple[str, int]]:
        pairs = list(zip(item['sentences'], item['sent_ids'], strict=True))
        return pairs if self.sentence == 'all' else pairs[:1]

    def _select_split(self, refs: list[dict]) -> list[dict]:
        counts = Counter(ref['split'] for ref in refs)
        wanted = {self.split} & set(counts)
        if self.split == 'test' and not wanted:
            wanted = {name for name in counts if name.startswith('test')}
        if not wanted:
            known = ', '.join(f'{name} ({count} refs)' for name, count in sorted(counts.items()))
            raise ValueError(f'{self.split_file} has no split {self.split!r}; its splits are {known}')
        return [ref for ref in refs if ref['split'] in wanted]

    def _parse_ref(
        self, ref: dict, images: dict[int, dict], annotations: dict[int, dict], outlines: dict[int, list]
    ) -> dict:
        """One item per reference, still without the choice of a sentence; fills in outlines."""
        ann_ids = as_list(ref['ann_id'])
        where = f'ref_id {ref["ref_id"]} (ann_id {ref["ann_id"]}) of {self.split_file}'
        image = images.get(ref['image_id'])
        if image is None:
            raise ValueError(f'{self.ann_file} has no image {ref["image_id"]}, asked for by {where}')
        if ann_ids == [-1] and (isinstance(ref['ann_id'], list) or self.BARE_NO_TARGET):
            ann_ids = []
        segmentations = []
        for ann_id in ann_ids:
            annotation = annotations.get(ann_id)
            if annotation is None:
                raise ValueError(f'{self.ann_file} has no annotation {ann_id}, asked for by {where}')
            if annotation['image_id'] != image['id']:
                raise ValueError(
                    f'{self.ann_file}: annotation {ann_id} lies in image '
                    f'{annotation["image_id"]}, but {where} expects it in image {image["id"]}'
                )
            if ann_id not in outlines:
                outlines[ann_id] = self._outline(annotation, image)
            segmentations += outlines[ann_id]
        folder, name = self.data_prefix['img_path'], image['file_name']
        place = f'{self.ann_file}, image {image["id"]}'
        return dict(
            img_path=picture_path(folder, name, self.data_root, place, self.allow_outside),
            img_id=image['id'],
            height=image['height'],
            width=image['width'],
            ref_id=ref['ref_id'],
            ann_ids=ann_ids,
            segmentations=segmentations,
            sentences=[sentence[self.text_field].strip() for sentence in ref['sentences']],
            sent_ids=[sentence['sent_id'] for sentence in ref['sentences']],
            task='mask',
            subset=ref['split'],
            seg_fields=[],
        )

    def _outline(self, annotation: dict, image: dict) -> list[list | dict]:
        """Polygons or RLEs of one object, whose union it is; counts what it leaves out."""
        parts, num_empty = parse_segmentation(annotation, image, self.ann_file)
        if num_empty:
            self.dropped['polygons of fewer than 3 points (no area)'] += num_empty
        return parts

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} {self.split!r}'

    def get_data_info(self, idx: int) -> dict:
        """Item ``idx``; in training with a newly drawn sentence (see the class)."""
        info = super().get_data_info(idx)
        return self._with_drawn_sentence(info) if self.sentence == 'random' else info


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
