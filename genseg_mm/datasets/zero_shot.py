"""Sets that gen2seg is evaluated on and never trained on, by point prompts: DRAM, EgoHOS, iShape and PIDRay.

What their sources state, what is our own rule and what nobody knows stands in each class.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genseg_mm.datasets.annotation_files import named_files, where_configs_look
from genseg_mm.datasets.coco_instances import CocoInstanceDataset
from genseg_mm.datasets.instance_maps import InstanceMapDataset
from genseg_mm.datasets.published_counts import Count
from genseg_mm.datasets.segmentations import label_rule
from genseg_mm.files import read_lines
from genseg_mm.registry import DATASETS

DRAM_MOVEMENTS = ('realism', 'impressionism', 'post_impressionism', 'expressionism')
DRAM_LISTS = ('dram', *DRAM_MOVEMENTS, 'unseen', 'dram_with_unseen')
# The ids of PASCAL VOC that DRAM evaluates; its twelfth class is the background.
DRAM_CLASSES = dict(
    bird=3, boat=4, bottle=5, cat=8, chair=9, cow=10, dog=12, horse=13, person=15, pottedplant=16, sheep=17
)  # fmt: skip
DRAM_LABELS = (*range(21), 255)
EGOHOS_SPLITS = ('train', 'val', 'test_indomain', 'test_outdomain')
HANDS, OBJECTS = (1, 2), (3, 4, 5, 6, 7, 8)
EGOHOS_ROLES = dict(all=(*HANDS, *OBJECTS), hands=HANDS, objects=OBJECTS)
ISHAPE_SUBSETS = ('antenna', 'branch', 'fence', 'hanger', 'log', 'wire')
ISHAPE_SPLITS = ('train', 'val')
ISHAPE_SOURCES = ('instance_map', 'coco')
ISHAPE_ANNOTATIONS = 'coco_format-mask_encoding=rle-instances_2017.json'
ISHAPE_SUFFIXES = ('.jpg', '.png')
PIDRAY_SPLITS = ('train', 'easy', 'hard', 'hidden')
_DIFFICULTY = re.compile(r'xray_(easy|hard|hidden)\d+\.png')
_WHOLE_TEST = 'annotations/test.json'


@DATASETS.register_module()
class DRAMDataset(InstanceMapDataset):
    """The labelled paintings of DRAM (Cohen et al., Semantic Segmentation in Art Paintings, 2022).

    Layout: ``<data_root>/test/<movement>/<artist>/<name>.jpg`` with ``labels/<movement>/<artist>/<name>.png``; what was
    not seen in training lies one level deeper, in ``unseen/<movement>/...``. ``<data_root>/test/<list>.txt`` names
    pictures, one a line, without ending. The archive holds a .rar. Names repeat across artists; ``img_id`` is the path
    from ``test/`` on, without ending.

    **Stated by the source** (the authors' loader): labels are PASCAL VOC's ids, 12 are evaluated (``DRAM_CLASSES`` and
    0), every other id and 255 is ignored. DRAM is semantic: it says nothing of instances.

    **Ours**: what is an instance (``instances``). Ignored pixels are background here, as nobody's; a mask that runs
    over them counts as wrong.

    **Unknown**: which list, which rule and which smallest region gen2seg's evaluation (arXiv 2505.15263) has.

    Items have, besides those of every ``InstanceMapDataset``, ``movement`` and ``artist``.

    Args:
        data_root: Folder ``DRAM_processed``.
        movement: List of pictures: ``'dram'`` (the four movements), one of them, ``'unseen'``, ``'dram_with_unseen'``.
        instances: ``'components'``: every connected region of a class is an instance; ``'classes'``: all pixels of a
            class are one. Ids: see ``genseg_mm/datasets/segmentations.py``.
        min_area: Smaller regions in pixels are no instance.
        **kwargs: As for ``InstanceMapDataset``.

    Raises:
        FileNotFoundError: If the list, or a file of a pair, is missing.
        ValueError: If an argument or a line of the list is wrong; if a label file holds colours or other ids (when
            ``LoadInstanceMap`` reads it).
    """

    subset: str | None = None  # the items have none of their own
    # Pictures by list, none of them confirmed: the paper's supplement has 135 unseen pictures, other readers 718 in
    # all; the movements' own numbers are not published.
    PUBLISHED = dict(dram=583, unseen=135, dram_with_unseen=718)

    def __init__(
        self,
        data_root: str,
        movement: str = 'dram_with_unseen',
        instances: str = 'components',
        min_area: int = 1,
        **kwargs: Any,
    ) -> None:
        if movement not in DRAM_LISTS:
            raise ValueError(f'movement must be one of {DRAM_LISTS}, but got {movement!r}')
        self.movement = movement
        self.label_rule = label_rule(tuple(DRAM_CLASSES.values()), DRAM_LABELS, instances, min_area)
        super().__init__(data_root=data_root, **kwargs)

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        path = Path(self.data_root) / 'test' / f'{self.movement}.txt'
        if not path.is_file():
            raise FileNotFoundError(
                f'DRAMDataset: there is no list {path}, expected <data_root>/test/{{{",".join(DRAM_LISTS)}}}.txt. '
                f'{where_configs_look()}'
            )
        seen = set()
        for number, line in read_lines(path):
            name = line.strip()
            if not name:
                continue
            parts = name.split('/')
            if len(parts) != 3 + (parts[0] == 'unseen') or '..' in parts or '' in parts:
                raise ValueError(
                    f'{path}, line {number}: expected <movement>/<artist>/<name> or '
                    f'unseen/<movement>/<artist>/<name>, but got {name!r}'
                )
            if name in seen:
                raise ValueError(f'{path}, line {number}: {name!r} is in it twice')
            seen.add(name)
            yield self._pair(name, *parts[-3:-1])

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        if self.movement in self.PUBLISHED:
            yield Count(len(self), 'pictures', self.PUBLISHED[self.movement], confirmed=False)

    def _pair(self, name: str, movement: str, artist: str) -> dict:
        return dict(
            img_path=str(Path(self.data_root, 'test', f'{name}.jpg')),
            instance_map_path=str(Path(self.data_root, 'labels', f'{name}.png')),
            ids_are_indices=True,
            label_rule=self.label_rule,
            img_id=name,
            movement=movement,
            artist=artist,
        )


@DATASETS.register_module()
class EgoHOSDataset(InstanceMapDataset):
    """EgoHOS (Zhang et al., Fine-Grained Egocentric Hand-Object Segmentation, ECCV 2022).

    Layout: ``<data_root>/<split>/image/<name>.jpg`` with ``<data_root>/<split>/label/<name>.png``, which is one channel
    of ids; ``contact/`` is not read. ``img_id`` is ``<split>/<name>``.

    **Stated by the source** (its README): 0 is the background, 1 and 2 the left and the right hand, 3, 4, 5 what the
    left, the right or both hands touch, 6, 7, 8 what is touched with that. An id is a *role*, not an object.

    **Ours**: what is an instance (``instances``), and both test splits as one benchmark.

    **Unknown**: rule and splits of gen2seg's evaluation (arXiv 2505.15263).

    Labels must be the original files: the authors' script resizes them with a filter that invents ids.

    Args:
        data_root: Folder of the splits.
        split: ``'train'``, ``'val'``, ``'test_indomain'`` or ``'test_outdomain'``.
        ids: Roles that are instances: ``'all'``, ``'hands'`` (1, 2), ``'objects'`` (3 to 8), or a list of roles.
        instances: ``'roles'``: all pixels of a role are one instance, with the role as id; ``'components'``: every
            connected region of a role is one. Ids: see ``genseg_mm/datasets/segmentations.py``.
        min_area: Smaller regions in pixels are no instance.
        **kwargs: As for ``InstanceMapDataset``.

    Raises:
        FileNotFoundError: If a folder, or a file of a pair, is missing.
        ValueError: If an argument is wrong; if a label file holds colours or other ids (when ``LoadInstanceMap`` reads
            it).
    """

    subset: str | None = None  # the items have none of their own
    # Pictures: 11,243 in the paper, which is train + val + test_indomain; the splits, and the 500 of test_outdomain,
    # are not confirmed.
    PUBLISHED = dict(train=8_993, val=1_124, test_indomain=1_126, test_outdomain=500)

    def __init__(
        self,
        data_root: str,
        split: str = 'test_indomain',
        ids: str | Sequence[int] = 'all',
        instances: str = 'roles',
        min_area: int = 1,
        **kwargs: Any,
    ) -> None:
        if split not in EGOHOS_SPLITS:
            raise ValueError(f'split must be one of {EGOHOS_SPLITS}, but got {split!r}')
        if instances not in ('roles', 'components'):
            raise ValueError(f"instances must be 'roles' or 'components', but got {instances!r}")
        if isinstance(ids, str) and ids not in EGOHOS_ROLES:
            raise ValueError(f'ids must be one of {tuple(EGOHOS_ROLES)} or a list of roles, but got {ids!r}')
        self.split = split
        self.label_rule = label_rule(
            EGOHOS_ROLES[ids] if isinstance(ids, str) else ids,
            (0, *EGOHOS_ROLES['all']),
            'classes' if instances == 'roles' else instances,
            min_area,
        )
        super().__init__(data_root=data_root, **kwargs)

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        yield Count(len(self), 'pictures', self.PUBLISHED[self.split], confirmed=False)

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        folder = Path(self.data_root) / self.split
        images, labels = folder / 'image', folder / 'label'
        absent = [own for own in (images, labels) if not own.is_dir()]
        for own in absent:
            self.skip(own, 'no folder')
        if absent:
            return
        names = named_files(images, ('.jpg',)) | named_files(labels, ('.png',))
        for name in sorted(names):
            yield dict(
                img_path=str(images / f'{name}.jpg'),
                instance_map_path=str(labels / f'{name}.png'),
                ids_are_indices=True,
                label_rule=self.label_rule,
                img_id=f'{self.split}/{name}',
            )


@DATASETS.register_module()
class IShapeDataset(InstanceMapDataset):
    """One of the six sub-datasets of iShape (Yang et al., 2021), 1024 x 1024.

    Layout: ``<data_root>/<subset>/<split>/image/`` with ``instance_map/<name>.png`` and
    ``coco_format-mask_encoding=rle-instances_2017.json``. The links of ``coco_format/`` (named train2017 in val, too)
    point to the same files; they are not needed, and archive tools often lose them.

    **Stated by the source** (its README): maps are 16-bit PNG, pixel value x is instance x; the json holds RLE masks,
    since outlines cannot say holes; each sub-dataset has one foreground class. 12,870 pictures, 175,840 instances.

    **Ours**: 0 is the background; all six sub-datasets are one benchmark, with one ``subset`` each.

    **Unknown**: sizes of train and val; whether a picture and its map have the same name up to the ending (expected
    here, an error names what has no partner); split of gen2seg's evaluation (arXiv 2505.15263).

    ``img_id`` is ``<subset>/<split>/<name>``. In the map every pixel is one instance's. With ``source='coco'`` items
    have ``instances`` as those of ``CocoInstanceDataset``, for ``mmdet.CocoMetric``.

    Args:
        data_root: Folder ``ishape_dataset``.
        subset: ``'antenna'`` (photographs), ``'branch'``, ``'fence'``, ``'hanger'``, ``'log'`` or ``'wire'``.
        split: ``'train'``, ``'val'``, or None for both.
        source: ``'instance_map'`` or ``'coco'``.
        **kwargs: As for ``InstanceMapDataset``.

    Raises:
        FileNotFoundError: If a folder, a file of a pair or the json is missing.
        ValueError: If an argument or an entry of the json is wrong.
    """

    # Pictures and instances of train and val together (12,870 and 175,840 in all; paper and README). The sizes of
    # train and val are not published.
    PUBLISHED = dict(
        antenna=(370, 3_036),
        branch=(2_500, 26_046),
        fence=(2_500, 7_870),
        hanger=(2_500, 49_275),
        log=(2_500, 72_144),
        wire=(2_500, 17_469),
    )

    def __init__(
        self,
        data_root: str,
        subset: str = 'antenna',
        split: str | None = 'val',
        source: str = 'instance_map',
        **kwargs: Any,
    ) -> None:
        for name, value, known in (
            ('subset', subset, ISHAPE_SUBSETS),
            ('split', split, (*ISHAPE_SPLITS, None)),
            ('source', source, ISHAPE_SOURCES),
        ):
            if value not in known:
                raise ValueError(f'{name} must be one of {known}, but got {value!r}')
        self.split, self.source = split, source
        super().__init__(data_root=data_root, subset=subset, **kwargs)

    def published_items(self) -> int | None:
        """Pictures of train and val together; of each alone no number is published."""
        return self.PUBLISHED[self.subset][0] if self.split is None else None

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        pictures, instances = self.PUBLISHED[self.subset]
        if self.split is None:
            yield Count(len(self), 'pictures', pictures)
            if self.source == 'coco':
                items = map(self.get_data_info, range(len(self)))
                yield Count(sum(len(item['instances']) for item in items), 'instances', instances)
            return
        folder = Path(self.data_root, self.subset)
        found = [len(named_files(folder / split / 'image', ISHAPE_SUFFIXES)) for split in ISHAPE_SPLITS]
        if 0 not in found:  # a copy of val alone cannot be checked: only the sum is published
            yield Count(sum(found), 'pictures', pictures, note='train and val together')

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        for split in ISHAPE_SPLITS if self.split is None else (self.split,):
            folder = Path(self.data_root) / self.subset / split
            if not (folder / 'image').is_dir():
                self.skip(folder / 'image', 'no folder')
                continue
            pairs = self._annotated if self.source == 'coco' else self._mapped
            for pair in pairs(folder):
                stem = Path(pair['img_path']).stem
                yield dict(pair, img_id=f'{self.subset}/{split}/{stem}')

    def _mapped(self, folder: Path) -> Iterator[dict]:
        images = named_files(folder / 'image', ISHAPE_SUFFIXES)
        maps = folder / 'instance_map'
        if not maps.is_dir():
            self.skip(maps, 'no folder')
            return
        for name in sorted(images | named_files(maps, ('.png',))):
            found = (folder / 'image' / f'{name}{suffix}' for suffix in ISHAPE_SUFFIXES)
            image = next((path for path in found if path.is_file()), None)
            yield dict(
                img_path=str(image or folder / 'image' / f'{name}{ISHAPE_SUFFIXES[0]}'),
                instance_map_path=str(maps / f'{name}.png'),
                ids_are_indices=True,
            )

    def _annotated(self, folder: Path) -> Iterator[dict]:
        dataset = CocoInstanceDataset(
            data_root=str(folder), ann_file=ISHAPE_ANNOTATIONS, data_prefix=dict(img='image/'), serialize_data=False
        )
        for index in range(len(dataset)):
            item = dataset.get_data_info(index)
            yield {key: item[key] for key in ('img_path', 'height', 'width', 'instances')}


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
        if split not in PIDRAY_SPLITS:
            raise ValueError(f'split must be one of {PIDRAY_SPLITS}, but got {split!r}')
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
