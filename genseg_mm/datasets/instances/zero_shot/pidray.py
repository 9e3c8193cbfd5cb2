"""PIDray: X-ray pictures of luggage with prohibited items, for zero-shot point prompts."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genseg_mm.datasets.annotation_files import where_configs_look
from genseg_mm.datasets.instances.coco_instances import CocoInstanceDataset
from genseg_mm.datasets.published_counts import Count
from genseg_mm.registry import DATASETS

SPLITS = ('train', 'easy', 'hard', 'hidden')
_DIFFICULTY = re.compile(r'xray_(easy|hard|hidden)\d+\.png')
_WHOLE_TEST = 'annotations/test.json'


@DATASETS.register_module()
class PIDRayDataset(CocoInstanceDataset):
    """PIDray (Wang et al., ICCV 2021) and its second version (Zhang et al., 2022).

    Layout of version 1: ``<data_root>/{train,easy,hard,hidden}/*.png`` with
    ``annotations/{xray_train,xray_test_easy,xray_test_hard,xray_test_hidden}.json``; of version 2:
    ``{train,test}/*.png`` with ``annotations/{train,test}.json`` and, in some copies, ``test_{easy,hard,hidden}.json``;
    without those a picture's name says what it is (``xray_hidden00012.png``). Files of macOS (``._*``), which some
    archives have beside the others, are never read: only what the json names is.

    **Stated by the source**: easy is one prohibited item, hard several, hidden deliberately hidden ones; 12 classes;
    the number of pictures (``PUBLISHED``).

    **Ours**: ids of pictures restart in each file, so ``img_id`` is ``<split>/<id>``; masks may be polygons or RLE.

    **Unknown**: version and split of gen2seg's evaluation (arXiv 2505.15263); all three test splits are one benchmark
    here, with one ``subset`` each.

    Args:
        data_root: Folder ``pidray``.
        split: ``'train'``, ``'easy'``, ``'hard'`` or ``'hidden'``.
        version: 1, 2, or None: the one whose annotations are there.
        subset: Name of the items' part in an evaluation of several. Default: the split.
        **kwargs: As for ``CocoInstanceDataset`` (classes, filter_cfg, pipeline, ...).

    Raises:
        FileNotFoundError: If the annotations or the folder of the pictures are missing.
        ValueError: If an argument or an entry of the json is wrong, or both versions are there.
    """

    # Pictures by version and split. 1: bywang2018/security-dataset, README: 29,457 + 18,220 test pictures; how many of
    # those are easy, hard and hidden (the three add up) is not confirmed. 2: lutao2021/PIDray, README.
    PUBLISHED = {
        1: dict(train=29_457, easy=9_482, hard=3_733, hidden=5_005),
        2: dict(train=76_913, easy=24_758, hard=9_746, hidden=13_069),
    }
    UNCONFIRMED = {(1, 'easy'), (1, 'hard'), (1, 'hidden')}

    def __init__(
        self, data_root: str, split: str = 'hard', version: int | None = None, subset: str | None = None, **kwargs: Any
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, but got {split!r}')
        if version not in (1, 2, None):
            raise ValueError(f'version must be 1, 2 or None, but got {version!r}')
        self.split = split
        candidates = _candidates(split)
        wanted = (1, 2) if version is None else (version,)
        found = {
            own: next(path for path in candidates[own] if Path(data_root, path).is_file())
            for own in wanted
            if any(Path(data_root, path).is_file() for path in candidates[own])
        }
        if not found:
            names = ' or '.join(path for own in wanted for path in candidates[own])
            raise FileNotFoundError(
                f'PIDRayDataset: {data_root} has no annotations of {split!r}, expected {names}. {where_configs_look()}'
            )
        if len(found) > 1:
            raise ValueError(
                f'{data_root} holds both versions of PIDray ({found[1]}, {found[2]}): set version=1 or version=2, but '
                'got None'
            )
        ((self.version, ann_file),) = found.items()
        folder = split if self.version == 1 or split == 'train' else 'test'
        super().__init__(
            data_root=data_root, ann_file=ann_file, data_prefix=dict(img=f'{folder}/'), subset=subset or split, **kwargs
        )

    def published_items(self) -> int:
        """Pictures of the complete split."""
        return self.PUBLISHED[self.version][self.split]

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        sure = (self.version, self.split) not in self.UNCONFIRMED
        yield Count(self.num_pictures, 'pictures', self.published_items(), sure)

    def _read(self) -> dict:
        content = super()._read()
        if not self.ann_file.endswith(_WHOLE_TEST):
            return content
        kept = []
        for image in content['images']:
            match = _DIFFICULTY.fullmatch(os.path.basename(image['file_name']))
            if match is None:
                raise ValueError(
                    f'{self.ann_file}: expected names xray_easy*.png, xray_hard*.png or xray_hidden*.png, which say '
                    f'the split, but got {image["file_name"]!r}'
                )
            if match[1] == self.split:
                kept.append(image)
        ids = {image['id'] for image in content['images']} - {image['id'] for image in kept}
        annotations = [own for own in content['annotations'] if own['image_id'] not in ids]
        return dict(content, images=kept, annotations=annotations)

    def _item(self, image: dict, annotations: list[dict], wanted: set[int]) -> dict:
        item = super()._item(image, annotations, wanted)
        return dict(item, img_id=f'{self.split}/{image["id"]}')


def _candidates(split: str) -> dict[int, tuple[str, ...]]:
    """Names of the annotations by version, the better one first."""
    if split == 'train':
        return {1: ('annotations/xray_train.json',), 2: ('annotations/train.json',)}
    return {1: (f'annotations/xray_test_{split}.json',), 2: (f'annotations/test_{split}.json', _WHOLE_TEST)}
