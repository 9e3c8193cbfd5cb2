"""gRefCOCO: expressions of no, one or several objects."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from reprlib import repr as short_repr

from genseg_mm.datasets.published_counts import Count, exclusion_note, num_pictures
from genseg_mm.datasets.refcoco import RefCOCODataset, parse_segmentation
from genseg_mm.registry import DATASETS

KINDS = ('no-target', 'one-target', 'multi-target')


@DATASETS.register_module()
class GRefCOCODataset(RefCOCODataset):
    """Generalised referring expressions (GRES; https://github.com/henghuiding/ReLA, ``grefcoco.py``).

    The splits are train, val, testA and testB; the pictures are RefCOCO's (UNC). What differs from RefCOCO:

    - ``ann_id`` is a list (or a bare int in some copies); the target is the union of those objects. ``[-1]`` says
      that nothing in the picture is meant: no segmentations.
    - Crowd regions (``iscrowd``) are no targets. Polygons of fewer than 6 or of an odd number of coordinates are left
      out, objects that have no other as well. ``dropped`` counts all three, each object once, and it is logged. An
      expression of which no object is left stays, with an empty mask, and a warning says how many those are (the
      authors' code stops there).
    - Every sentence is one item in training too.
    - ``kind`` is ``'no-target'``, ``'one-target'`` or ``'multi-target'``, for a breakdown by ``ReferringMetric``.

    Measure it with ``ReferringMetric(protocol='grefcoco')``.

    Args:
        data_root: See :class:`RefCOCODataset`.
        ann_file: gRefCOCO's own ``instances.json``.
        split_file: ``grefs(unc).json``; older copies come as ``grefs(unc).p``, with other ids.
        text_field: ``'raw'``, as ReLA, or ``'sent'``, as GSVA.
        sentence: ``'all'`` (default), ``'random'`` (in training, as RefCOCO) or ``'first'``.
        **kwargs: Further arguments of :class:`RefCOCODataset`.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If an argument or the content of a file is wrong.
    """

    LAYOUT = (
        '<data_root>/grefcoco/instances.json, <data_root>/grefcoco/grefs(unc).json and '
        '<data_root>/train2014/COCO_train2014_*.jpg'
    )
    BARE_NO_TARGET = True

    # Pictures, which are those of RefCOCO (UNC); sentences are published for all splits together (278,232).
    PUBLISHED = dict(train=16_994, val=1_500, testA=750, testB=750)

    def __init__(
        self,
        data_root: str = '',
        ann_file: str = 'grefcoco/instances.json',
        split_file: str = 'grefcoco/grefs(unc).json',
        text_field: str = 'raw',
        sentence: str = 'all',
        **kwargs,
    ) -> None:
        self.num_left_empty = 0
        super().__init__(
            data_root=data_root,
            ann_file=ann_file,
            split_file=split_file,
            text_field=text_field,
            sentence=sentence,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """See :class:`RefCOCODataset`."""
        items = super().load_data_list()
        if self.num_left_empty:
            self._log(
                f'{self.num_left_empty} references have an empty mask: all their objects were left out', logging.WARNING
            )
        counts = Counter(item['kind'] for item in items)
        self._log('items: ' + ', '.join(f'{counts[kind]} {kind}' for kind in KINDS))
        return items

    def published_items(self) -> None:
        """Not known: sentences are published for all splits together."""

    def published_counts(self) -> Iterator[Count]:
        """See :class:`RefCOCODataset`."""
        if self.split in self.PUBLISHED:
            published, note = self.PUBLISHED[self.split], exclusion_note(self)
            yield Count(num_pictures(self), 'pictures', published, note=note)

    def _parse_ref(self, ref: dict, *files: Mapping) -> dict:
        item = super()._parse_ref(ref, *files)
        self.num_left_empty += bool(item['ann_ids']) and not item['segmentations']
        return dict(item, kind=KINDS[min(len(set(item['ann_ids'])), 2)])

    def _outline(self, annotation: dict, image: dict) -> list[list | dict]:
        if annotation.get('iscrowd'):
            self.dropped['crowd regions'] += 1
            return []
        segmentation = annotation['segmentation']
        if isinstance(segmentation, dict) or any(isinstance(part, dict) for part in segmentation):
            return super()._outline(annotation, image)
        if not all(isinstance(part, list) for part in segmentation):
            raise ValueError(
                f'{self.ann_file}, annotation {annotation["id"]}: expected polygons, but got {short_repr(segmentation)}'
            )
        kept = [part for part in segmentation if len(part) >= 6 and len(part) % 2 == 0]
        if len(kept) < len(segmentation):
            self.dropped['polygons of fewer than 6 or an odd number of coordinates'] += len(segmentation) - len(kept)
        if not kept:
            self.dropped['objects without a polygon'] += 1
            return []
        return parse_segmentation(dict(annotation, segmentation=kept), image, self.ann_file)[0]
