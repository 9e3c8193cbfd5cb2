"""Scenes of recognisable objects for both methods: nothing is labelled by hand, everything about them is known."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from genseg_mm.datasets.drawn_scenes import MAX_REDRAWS, SPLITS, DrawnScenesDataset
from genseg_mm.datasets.object_bank import open_bank
from genseg_mm.datasets.object_expressions import KINDS, WORDINGS, Expression, SceneLanguage, caption
from genseg_mm.datasets.object_scenes import Cast, ObjectScene, SceneStyle, draw_object_scene
from genseg_mm.datasets.scene_grounds import checked_kinds, find_photos
from genseg_mm.registry import DATASETS

# Tasks of one number have the same scenes.
SCENE_FAMILY = {'referring': 0, 'instance': 1, 'unlabelled': 1, 'text_to_image': 2}
OBJECT_SIZE = {
    'referring': (0.14, 0.6),
    'instance': (0.08, 0.6),
    'unlabelled': (0.08, 0.6),
    'text_to_image': (0.3, 0.6),
}
ALONE_SIZE, ALONE_PROB = (0.6, 0.92), 0.7  # of the pictures to generate, most show one object, large
_CAST, _POINTS, _EACH = 1, 2, 3  # streams of random numbers beside that of the composition


@DATASETS.register_module()
class ObjectScenesDataset(DrawnScenesDataset):
    """Procedural scenes of recognisable objects with exact masks, sentences and captions.

    The objects come from a bank, which ``tools/dataset_tools/prepare_objects.py`` makes. Scene ``i`` depends only on
    (seed, split, task, i), the bank and the settings of the drawing; not on num_scenes, the order of access or the
    process. Two datasets that differ in their ``groups``, ``exclude_groups``, ``names`` or ``exclude_names`` alone have
    the same compositions of other objects: places, sizes, grounds and light of scene ``i`` agree (an object that is
    hidden in one may show in the other).

    Items are those of :class:`~genseg_mm.ShapesDataset` (images BGR): img, img_shape, ori_shape, img_path (''), img_id
    (the scene), subset, sample_idx, ``object_names`` (of the ids 1, 2, ... of the map) and

    - referring: text, kind, task = 'mask', gt_seg_map (uint8, 1 on the targets, of which there may be none or several),
      gt_instance_map;
    - text_to_image: text ('a zebra', 'two apples and a pear on grass'), task = 'image';
    - instance: gt_instance_map (int32, 0 is the ground); in test mode also one random pixel of each instance: points
      (K, 1, 2) float32 (x, y), point_labels (K, 1), point_ids (K,); and instances in mmdet's form;
    - unlabelled: the pictures of the instance task alone.

    In test mode ``seg_fields`` is empty, so that a Resize in the pipeline leaves the ground truth at the original size.

    Args:
        num_scenes: Number of scenes.
        image_size: (height, width), or one number for both; objects scale with the short side.
        task: 'referring', 'text_to_image', 'instance' or 'unlabelled'.
        split: 'train', 'val' or 'test': disjoint streams of scenes.
        seed: Seed of everything.
        bank: The bank of objects; None is the one that ``prepare_objects.py`` leaves in the cache folder.
        groups: Kinds to draw from: groups, subgroups or their beginnings ('animal', 'food-fruit', 'Objects').
        exclude_groups: Kinds to leave out, likewise.
        names: Names of single kinds to draw from.
        exclude_names: Names of single kinds to leave out.
        num_names: Draw from so many of these kinds alone, chosen by ``names_seed``; a smaller number chooses some of
            those of a larger one.
        names_seed: See above.
        kinds: Kinds of expressions to use (task='referring'), one or several of ``KINDS``.
        kind_weights: How much likelier than others (1) a kind is drawn, e.g. ``dict(name=3)``. Kinds are drawn first,
            then one of the expressions of that kind.
        wordings: 'train', or 'held_out': every sentence has a word or a phrase that 'train' never has.
        grounds: 'all', or one or several of ``genseg_mm.datasets.scene_grounds.GROUNDS``.
        ground_folder: Photographs (in subfolders, too), which are half of the grounds then.
        shadows: True, False, or None for half of the scenes.
        object_size: Least and largest side of an object in short sides of the picture. Default: by task.
        num_objects: Least and largest number of objects. Default: 2 to 6; one to three for text_to_image.
        expressions: 'random': one item per scene, whose expression is drawn again at each access from (seed, scene,
            visit), see :class:`~genseg_mm.ShapesDataset`; 'each-kind': one item per scene and kind that it has; 'all':
            one item per expression. Default: 'random' for the training split, else 'each-kind'.
        caption: Captions (task='text_to_image'): 'full' lists everything, with the ground; 'random' as much as is drawn
            at each access; 'all': one item per (scene, caption). Default: 'random' for training, else 'full'.
        subset: Name of the part of an evaluation set. Default: the split.
        max_items: Keep a random (seeded) choice of at most so many items, in order.
        cache: Keep drawn scenes in memory (4 bytes per pixel).
        metainfo: Overrides the dataset's meta information (classes, palette).
        pipeline: Transforms.
        test_mode: See ``BaseDataset``; adds points and keeps ground truth out of ``seg_fields``.
        **kwargs: indices, lazy_init, serialize_data, max_refetch of ``BaseDataset``.

    Raises:
        FileNotFoundError: If there is no bank, or no photograph.
        ValueError: If a setting has no meaning.
    """

    def __init__(
        self,
        num_scenes: int = 1000,
        image_size: int | Sequence[int] = (96, 96),
        task: str = 'referring',
        split: str = 'train',
        seed: int = 0,
        bank: str | os.PathLike | None = None,
        groups: str | Collection[str] | None = None,
        exclude_groups: str | Collection[str] | None = None,
        names: str | Collection[str] | None = None,
        exclude_names: str | Collection[str] | None = None,
        num_names: int | None = None,
        names_seed: int = 0,
        kinds: Sequence[str] | None = None,
        kind_weights: Mapping[str, float] | None = None,
        wordings: str = 'train',
        grounds: str | Sequence[str] = 'all',
        ground_folder: str | os.PathLike | None = None,
        shadows: bool | None = None,
        object_size: Sequence[float] | None = None,
        num_objects: Sequence[int] | None = None,
        expressions: str | None = None,
        caption: str | None = None,
        subset: str | None = None,
        max_items: int | None = None,
        cache: bool = False,
        metainfo: Mapping | None = None,
        pipeline: Sequence = (),
        test_mode: bool = False,
        **kwargs: Any,
    ) -> None:
        self.num_scenes = self._whole('num_scenes', num_scenes, 1)
        self.image_size = self._checked_size(image_size)
        self.task = self._one_of('task', task, tuple(SCENE_FAMILY))
        self.split = self._one_of('split', split, SPLITS)
        self.bank = bank
        self.chosen = dict(groups=groups, exclude_groups=exclude_groups, names=names, exclude_names=exclude_names)
        self.num_names = None if num_names is None else self._whole('num_names', num_names, 1)
        self.names_seed = self._whole('names_seed', names_seed, 0)
        self._check_task('kinds', kinds, 'referring', kinds is None)
        kinds = KINDS if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
        self.kinds = tuple(self._one_of('kinds', own, KINDS) for own in kinds or ('',))
        self.wordings = self._one_of('wordings', wordings, WORDINGS)
        self._check_task('wordings', wordings, 'referring', wordings == 'train')
        self._check_task('expressions', expressions, 'referring', expressions is None)
        expressions = expressions or ('random' if split == 'train' else 'each-kind')
        self.expressions = self._one_of('expressions', expressions, ('random', 'each-kind', 'all'))
        self.kind_weights = self._checked_weights(kind_weights)
        self._check_task('caption', caption, 'text_to_image', caption is None)
        caption = caption or ('random' if split == 'train' else 'full')
        self.caption = self._one_of('caption', caption, ('random', 'full', 'all'))
        self.styles = self._checked_styles(grounds, ground_folder, shadows, object_size, num_objects)
        self.subset = subset or split
        self.max_items = None if max_items is None else self._whole('max_items', max_items, 1)
        self._cast: Cast | None = None
        self._cache: dict[int, ObjectScene] | None = {} if cache else None
        self._last: tuple[int, ObjectScene] | None = None
        super().__init__(seed, metainfo, pipeline, test_mode, **kwargs)

    def _checked_weights(self, kind_weights: Mapping[str, float] | None) -> list[float]:
        weights = dict.fromkeys(self.kinds, 1.0)
        if not kind_weights:
            return list(weights.values())
        self._check_task('kind_weights', dict(kind_weights), 'referring', False)
        if self.expressions != 'random':
            raise ValueError(
                f"ObjectScenesDataset: kind_weights need expressions='random', but got expressions={self.expressions!r}"
            )
        for kind, weight in kind_weights.items():
            self._one_of('kind_weights', kind, self.kinds)
            if not weight > 0:
                raise ValueError(f'ObjectScenesDataset: kind_weights must be positive, but got {kind}={weight!r}')
            weights[kind] = float(weight)
        return list(weights.values())

    def _checked_styles(
        self,
        grounds: str | Sequence[str],
        ground_folder: str | os.PathLike | None,
        shadows: bool | None,
        object_size: Sequence[float] | None,
        num_objects: Sequence[int] | None,
    ) -> tuple[tuple[float, SceneStyle], ...]:
        """How scenes look, and how likely each look is."""
        if shadows not in (True, False, None):
            raise ValueError(f'ObjectScenesDataset: shadows must be True, False or None, but got {shadows!r}')
        photos = () if ground_folder is None else find_photos(ground_folder)
        shared = dict(shadows=shadows, grounds=checked_kinds(grounds), photos=photos)
        size = self._pair('object_size', OBJECT_SIZE[self.task] if object_size is None else object_size, 0.02, 1)
        if self.task == 'text_to_image':
            some = SceneStyle(size, self._counts(num_objects, (2, 3)), **shared)
            if num_objects is not None or object_size is not None:
                return ((1.0, some),)
            return ((ALONE_PROB, SceneStyle(ALONE_SIZE, (1, 1), **shared)), (1 - ALONE_PROB, some))
        inside = self.task == 'referring'
        return ((1.0, SceneStyle(size, self._counts(num_objects, (2, 6)), inside=inside, **shared)),)

    @property
    def cast(self) -> Cast:
        """The kinds of objects that scenes are drawn from."""
        if self._cast is None:
            bank = open_bank(self.bank)
            cast = Cast(bank, bank.select(**self.chosen))
            if self.num_names is not None:
                if self.num_names > len(cast.names):
                    raise ValueError(
                        f'ObjectScenesDataset: num_names must be at most {len(cast.names)}, the kinds that are left, '
                        f'but got {self.num_names}'
                    )
                order = np.random.default_rng(self.names_seed).permutation(len(cast.names))
                names = sorted(cast.names[place] for place in order[: self.num_names])
                cast = Cast(bank, [index for name in names for index in cast.objects_of(name)])
            self._cast = cast
        return self._cast

    def load_data_list(self) -> list[dict]:
        """Lists the items: the scene's index, and the sentence where it is fixed."""
        items: list[dict] = []
        _ = self.cast  # a missing bank is an error now, not at the first item
        if self.task == 'referring' and self.expressions != 'random':
            for index in range(self.num_scenes):
                items += [dict(scene=index, **own._asdict()) for own in self.scene_expressions(index)]
        elif self.task == 'text_to_image' and self.caption == 'all':
            for index in range(self.num_scenes):
                items += [dict(scene=index, text=text) for text in self.scene_captions(index)]
        else:
            items = [dict(scene=index) for index in range(self.num_scenes)]
        return self._some(items)

    def scene(self, index: int) -> ObjectScene:
        """Image, instance ids and objects of a scene (shared with the cache: leave unchanged)."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        if self._last is None or self._last[0] != index:
            self._last = index, self._draw(index)
        if self._cache is not None:
            self._cache[index] = self._last[1]
        return self._last[1]

    def scene_expressions(self, index: int) -> list[Expression]:
        """The expressions of the wanted kinds for a scene: one of each, or with expressions='all' all."""
        language = self._language(index, self.scene(index))
        if self.expressions == 'all':
            return language.expressions(self.kinds)
        return language.of_each_kind(self._stream(index, _EACH), self.kinds)

    def scene_captions(self, index: int) -> list[str]:
        """All captions of a scene, the shortest first."""
        scene = self.scene(index)
        count = len({own.name for own in scene.objects})
        return [
            caption(scene, num, with_ground)
            for num in range(1, count + 1)
            for with_ground in ((False, True) if scene.ground else (False,))
        ]

    def get_data_info(self, idx: int) -> dict:
        """One item as the pipeline gets it."""
        item = super().get_data_info(idx)
        index = item['scene']
        scene = self.scene(index)
        info = self._picture(item, scene.image)
        info['object_names'] = [own.name for own in scene.objects]
        if self.task == 'unlabelled':
            return info
        if self.task == 'text_to_image':
            return dict(info, text=self._caption(item), task='image')
        info['gt_instance_map'] = scene.ids.astype(np.int32)
        if self.task == 'referring':
            chosen = item if 'text' in item else self._drawn_expression(item)._asdict()
            info.update(text=chosen['text'], kind=chosen['kind'], task='mask')
            is_target = np.zeros(len(scene.objects) + 1, np.uint8)
            is_target[[number + 1 for number in chosen['targets']]] = 1
            info['gt_seg_map'] = is_target[scene.ids]
        elif self.test_mode:
            self._prompted(info, scene.ids, [self.seed, index, _POINTS])
        return self._with_fields(info)

    def _caption(self, item: dict) -> str:
        if 'text' in item:
            return item['text']
        captions = self.scene_captions(item['scene'])
        if not self._is_drawn:
            return captions[-1]
        generator = np.random.default_rng([self.seed, item['scene'], item['visit']])
        return captions[int(generator.integers(len(captions)))]

    def _drawn_expression(self, item: dict) -> Expression:
        generator = np.random.default_rng([self.seed, item['scene'], item['visit']])
        language = self._language(item['scene'], self.scene(item['scene']))
        found = language.draw(generator, self.kinds, self.kind_weights)
        assert found is not None, 'a scene without an expression is drawn anew'
        return found

    def _language(self, index: int, scene: ObjectScene) -> SceneLanguage:
        return SceneLanguage(scene, self.cast, self.wordings, (self.seed, SPLITS.index(self.split), index))

    def _stream(self, index: int, stream: int, attempt: int = 0) -> np.random.Generator:
        # NumPy pads seeds with zeros; the last word keeps this stream apart from shorter seeds.
        family = SCENE_FAMILY[self.task]
        return np.random.default_rng([self.seed, SPLITS.index(self.split), family, index, stream, attempt + 1])

    def _draw(self, index: int) -> ObjectScene:
        weights = [weight for weight, _ in self.styles]
        for attempt in range(MAX_REDRAWS):
            rng = self._stream(index, 0, attempt)
            look = int(np.searchsorted(np.cumsum(weights)[:-1], rng.random(), side='right'))
            style = self.styles[look][1]
            scene = draw_object_scene(rng, self._stream(index, _CAST, attempt), self.cast, self.image_size, style)
            if self.task != 'referring' or self._has_expression(index, scene):
                return scene
        raise ValueError(
            f'ObjectScenesDataset: no scene of kinds={self.kinds} in {MAX_REDRAWS} draws of {len(self.cast.names)} '
            'kinds of objects; allow other kinds, or more objects'
        )

    def _has_expression(self, index: int, scene: ObjectScene) -> bool:
        if 'no-target' in self.kinds and len(self.cast.names) > 50:
            return True  # there is always something that is not there
        rng = np.random.default_rng([self.seed, index])
        return self._language(index, scene).draw(rng, self.kinds, self.kind_weights) is not None

    def _pair(self, name: str, value: Sequence[float], least: float, most: float) -> tuple[float, float]:
        is_pair = (
            isinstance(value, Sequence) and len(value) == 2 and all(isinstance(own, (int, float)) for own in value)
        )
        if not is_pair or not least <= value[0] <= value[1] <= most:
            raise ValueError(
                f'{type(self).__name__}: {name} must be two numbers from {least} to {most} in order, but got {value!r}'
            )
        return tuple(value)

    def _counts(self, value: Sequence[int] | None, default: tuple[int, int]) -> tuple[int, int]:
        value = default if value is None else value
        for own in value if isinstance(value, Sequence) else (value,):
            self._whole('each of num_objects', own, 1)
        return self._pair('num_objects', value, 1, 20)
