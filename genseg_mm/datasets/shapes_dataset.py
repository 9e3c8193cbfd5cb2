"""The procedural dataset: no files, no downloads, the same scenes everywhere; and the sentences about its scenes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from genseg_mm.datasets.drawn_scenes import MAX_REDRAWS, SPLITS, DrawnScenesDataset
from genseg_mm.datasets.shape_scenes import (
    MIN_VISIBLE,
    SEEN_SHAPES,
    UNSEEN_SHAPES,
    Scene,
    draw_shape_scene,
)
from genseg_mm.datasets.textured_scenes import GROUNDS, SEEN_TEXTURED, UNSEEN_TEXTURED, draw_textured_scene
from genseg_mm.registry import DATASETS

SCENE_FAMILY = {'referring': 0, 'text_to_image': 0, 'instance': 1}
KIND_GROUPS = {'size': ('size-shape', 'size-color-shape')}
SPATIAL = {  # word: axis of the centre, sign that makes the extreme one the smallest
    'leftmost': (0, 1),
    'rightmost': (0, -1),
    'topmost': (1, 1),
    'bottom': (1, -1),
}
SPATIAL_MARGIN = 4 / 64  # an extreme object leads by this share of the short side
ATTRIBUTES = {  # kind of expression: template and the attributes that have to single the object out
    'color-shape': ('the {color} {shape}', ('color', 'shape')),
    'shape': ('the {shape}', ('shape',)),
    'color': ('the {color} shape', ('color',)),
    'size-color-shape': ('the {size} {color} {shape}', ('size', 'color', 'shape')),
    'size-shape': ('the {size} {shape}', ('size', 'shape')),
}
KINDS = (*ATTRIBUTES, 'spatial')
CAPTION_OBJECTS = 3


class Expression(NamedTuple):
    """A sentence that is true of exactly one object: ``scene.objects[target]``."""

    text: str
    target: int
    kind: str


@DATASETS.register_module()
class ShapesDataset(DrawnScenesDataset):
    """Procedural scenes with exact ground truth, for GenMask and gen2seg.

    Scene ``i`` depends only on (seed, split, task, i) and the settings of the drawing (image_size,
    shapes, grounds): not on num_scenes, the order of access or the process. 'referring' and
    'text_to_image' share their scenes: coloured shapes on noisy grounds. 'instance' has look-alike
    textured objects whose colours do not tell one from another.

    Items (before the pipeline; images BGR): img, img_shape, ori_shape, img_path (''), img_id (the
    scene), subset, sample_idx and

    - referring: text, kind, task = 'mask', gt_seg_map (uint8, 1 where the referred object shows),
      gt_instance_map;
    - text_to_image: text (a caption of the one to three objects that show most, see ``caption``), task = 'image';
    - instance: gt_instance_map (int32, 0 is the ground); in test mode also one random pixel of each
      instance: points (K, 1, 2) float32 (x, y), point_labels (K, 1), point_ids (K,); and instances
      in mmdet's form.

    In test mode ``seg_fields`` is empty, so that a Resize in the pipeline leaves the ground truth
    at the original size.

    Args:
        num_scenes: Number of scenes.
        image_size: (height, width), or one number for both; objects scale with the short side.
        task: 'referring', 'text_to_image' or 'instance'.
        split: 'train', 'val' or 'test': disjoint streams of scenes.
        shapes: 'seen' or 'unseen': two disjoint sets of shape types. In the referring task seen and
            unseen scenes of one index share ground, sizes, places and colours of the objects.
        seed: Seed of everything.
        kinds: Kinds of expressions to use (task='referring'), one or several of ``KINDS``;
            'size' stands for both kinds with a size. Scenes without any such expression are drawn
            anew, so that each scene has one.
        kind_weights: How much likelier than others (1) a kind is drawn where the expression of a scene is random, e.g.
            ``dict(shape=4)``.
        grounds: 'plain' or (task='instance') 'textured', where the ground has the objects' palette,
            too.
        expressions: 'all': one item per (scene, expression); 'random': one item per scene, whose
            expression is drawn again at each access from (seed, scene, visit), where visit is the
            index's own ``visit`` (see ``genseg_mm.Visit``) or else the number of accesses so far.
            Default: 'random' for the training split, else 'all'.
        caption: Captions (task='text_to_image') of one to three objects. 'full': of three; 'random': of as many as are
            drawn at each access as above, since nobody lists everything; 'all': one item per (scene, caption).
            Default: 'random' for the training split, else 'full'.
        subset: Name of the part of an evaluation set. Default: the shapes for the test split, else
            the split.
        max_items: Keep a random (seeded) choice of at most so many items, in order.
        cache: Keep drawn scenes in memory (4 bytes per pixel). 'all' draws them at initialisation,
            so that workers share them; otherwise each process draws a scene when it is first asked
            for.
        metainfo: Overrides the dataset's meta information (classes, palette).
        pipeline: Transforms.
        test_mode: See ``BaseDataset``; adds points and keeps ground truth out of ``seg_fields``.
        **kwargs: indices, lazy_init, serialize_data, max_refetch of ``BaseDataset``.

    Raises:
        ValueError: If a setting has no meaning.
    """

    def __init__(
        self,
        num_scenes: int = 1000,
        image_size: int | Sequence[int] = (64, 64),
        task: str = 'referring',
        split: str = 'train',
        shapes: str = 'seen',
        seed: int = 0,
        kinds: Sequence[str] | None = None,
        kind_weights: Mapping[str, float] | None = None,
        grounds: str = 'plain',
        expressions: str | None = None,
        caption: str | None = None,
        subset: str | None = None,
        max_items: int | None = None,
        cache: bool = True,
        metainfo: Mapping | None = None,
        pipeline: Sequence = (),
        test_mode: bool = False,
        **kwargs: Any,
    ) -> None:
        self.num_scenes = self._whole('num_scenes', num_scenes, 1)
        self.image_size = self._checked_size(image_size)
        self.task = self._one_of('task', task, tuple(SCENE_FAMILY))
        self.split = self._one_of('split', split, SPLITS)
        self.shapes = self._one_of('shapes', shapes, ('seen', 'unseen'))
        self.kinds = self._checked_kinds(kinds)
        self.grounds = self._one_of('grounds', grounds, GROUNDS)
        self._check_task('grounds', grounds, 'instance', grounds == 'plain')
        self._check_task('expressions', expressions, 'referring', expressions is None)
        if expressions is None:
            expressions = 'random' if split == 'train' else 'all'
        self.expressions = self._one_of('expressions', expressions, ('all', 'random'))
        self._check_task('caption', caption, 'text_to_image', caption is None)
        caption = caption or ('random' if split == 'train' else 'full')
        self.caption = self._one_of('caption', caption, ('random', 'full', 'all'))
        self.kind_weights = self._checked_weights(kind_weights)
        self.subset = subset or (shapes if split == 'test' else split)
        self.max_items = None if max_items is None else self._whole('max_items', max_items, 1)
        self._cache = {} if cache else None
        super().__init__(seed, metainfo, pipeline, test_mode, **kwargs)

    def _checked_kinds(self, kinds: Sequence[str] | None) -> tuple[str, ...]:
        if kinds is None:
            return KINDS
        self._check_task('kinds', kinds, 'referring', False)
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        for kind in kinds or ('',):
            self._one_of('kinds', kind, (*KINDS, *KIND_GROUPS))
        return tuple(single for kind in kinds for single in KIND_GROUPS.get(kind, (kind,)))

    def _checked_weights(self, kind_weights: Mapping[str, float] | None) -> dict[str, float]:
        if not kind_weights:
            return {}
        self._check_task('kind_weights', dict(kind_weights), 'referring', False)
        if self.expressions != 'random':
            raise ValueError("ShapesDataset: kind_weights need expressions='random', but got expressions='all'")
        weights = {}
        for kind, weight in kind_weights.items():
            self._one_of('kind_weights', kind, (*KINDS, *KIND_GROUPS))
            if not weight > 0:
                raise ValueError(f'ShapesDataset: kind_weights must be positive, but got {kind}={weight!r}')
            weights.update(dict.fromkeys(KIND_GROUPS.get(kind, (kind,)), float(weight)))
        return weights

    def load_data_list(self) -> list[dict]:
        """Lists the items: the scene's index, and the expression where it is fixed."""
        if self.task == 'referring' and self.expressions == 'all':
            items = [
                dict(scene=index, **expression._asdict())
                for index in range(self.num_scenes)
                for expression in self.scene_expressions(index)
            ]
        elif self.task == 'text_to_image' and self.caption == 'all':
            items = [
                dict(scene=index, num_objects=num)
                for index in range(self.num_scenes)
                for num in range(1, min(CAPTION_OBJECTS, len(self.scene(index).objects)) + 1)
            ]
        else:
            items = [dict(scene=index) for index in range(self.num_scenes)]
        return self._some(items)

    def scene(self, index: int) -> Scene:
        """Image, instance ids and objects of a scene (shared with the cache: leave unchanged)."""
        return self._drawn(index)[0]

    def scene_expressions(self, index: int) -> list[Expression]:
        """All unique referring expressions of the wanted kinds for the scene of this index."""
        return self._drawn(index)[1]

    def get_data_info(self, idx: int) -> dict:
        """One item as the pipeline gets it."""
        item = super().get_data_info(idx)
        index = item['scene']
        scene = self.scene(index)
        info = self._picture(item, scene.image)
        if self.task == 'text_to_image':
            return dict(info, text=self._caption(item), task='image')
        info['gt_instance_map'] = scene.ids.astype(np.int32)
        if self.task == 'referring':
            chosen = item if 'text' in item else self._random_expression(item)._asdict()
            info.update(text=chosen['text'], kind=chosen['kind'], task='mask')
            info['gt_seg_map'] = (scene.ids == chosen['target'] + 1).astype(np.uint8)
        elif self.test_mode:
            self._prompted(info, scene.ids, [self.seed, index])
        return self._with_fields(info)

    def _caption(self, item: dict) -> str:
        if not self._is_drawn:
            return caption(self.scene(item['scene']), item.get('num_objects', CAPTION_OBJECTS))
        generator = np.random.default_rng([self.seed, item['scene'], item['visit']])
        return caption(self.scene(item['scene']), int(generator.integers(1, CAPTION_OBJECTS + 1)))

    def _random_expression(self, item: dict) -> Expression:
        found = self.scene_expressions(item['scene'])
        generator = np.random.default_rng([self.seed, item['scene'], item['visit']])
        if not self.kind_weights:
            return found[generator.integers(len(found))]
        weights = np.array([self.kind_weights.get(expression.kind, 1.0) for expression in found])
        return found[generator.choice(len(found), p=weights / weights.sum())]

    def _drawn(self, index: int) -> tuple[Scene, list[Expression]]:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        drawn = self._draw(index)
        if self._cache is not None:
            self._cache[index] = drawn
        return drawn

    def _draw(self, index: int) -> tuple[Scene, list[Expression]]:
        family = SCENE_FAMILY[self.task]
        for attempt in range(MAX_REDRAWS):
            # NumPy pads seeds with zeros; the last word keeps this stream apart from shorter seeds.
            key = [self.seed, SPLITS.index(self.split), family, index, attempt + 1]
            rng = np.random.default_rng(key)
            if self.task == 'instance':
                names = list(SEEN_TEXTURED if self.shapes == 'seen' else UNSEEN_TEXTURED)
                return draw_textured_scene(rng, self.image_size, names, self.grounds), []
            names = list(SEEN_SHAPES if self.shapes == 'seen' else UNSEEN_SHAPES)
            scene = draw_shape_scene(rng, self.image_size, names)
            found = expressions(scene, self.kinds)
            if found:
                return scene, found
        raise RuntimeError(f'no expression of the kinds {self.kinds} in {MAX_REDRAWS} scenes')


def expressions(scene: Scene, kinds: Sequence[str] = KINDS) -> list[Expression]:
    """All unique referring expressions of a scene, in a fixed order.

    An expression is unique among all objects of the scene; but only objects of which at least half
    is visible (and not just a few pixels) are referred to.

    Args:
        scene: A scene of coloured shapes.
        kinds: Kinds to keep, from ``KINDS``.
    """
    found = []
    for target in _referable(scene):
        candidates = _by_attributes(scene, target) + _by_position(scene, target)
        found += [expression for expression in candidates if expression.kind in kinds]
    return found


def caption(scene: Scene, num_objects: int = CAPTION_OBJECTS) -> str:
    """Lists the objects that show most: 'a scene with a large red circle, a small blue cross'.

    Args:
        scene: A scene of coloured shapes.
        num_objects: How many at most, at least 1.
    """
    largest = sorted(scene.objects, key=lambda obj: obj.visible, reverse=True)[:num_objects]
    return 'a scene with ' + ', '.join(f'a {obj.size} {obj.color} {obj.shape}' for obj in largest)


def _referable(scene: Scene) -> list[int]:
    least = MIN_VISIBLE * min(scene.ids.shape) ** 2
    return [index for index, obj in enumerate(scene.objects) if obj.visible >= max(0.5 * obj.area, least)]


def _by_attributes(scene: Scene, target: int) -> list[Expression]:
    chosen = scene.objects[target]
    found = []
    for kind, (template, names) in ATTRIBUTES.items():
        alike = [o for o in scene.objects if all(getattr(o, n) == getattr(chosen, n) for n in names)]
        if len(alike) == 1:
            text = template.format(color=chosen.color, shape=chosen.shape, size=chosen.size)
            found.append(Expression(text, target, kind))
    return found


def _by_position(scene: Scene, target: int) -> list[Expression]:
    chosen = scene.objects[target]
    margin = SPATIAL_MARGIN * min(scene.ids.shape)
    others = [obj for index, obj in enumerate(scene.objects) if index != target]
    rivals = {chosen.shape: [obj for obj in others if obj.shape == chosen.shape], 'shape': others}
    found = []
    for word, (axis, sign) in SPATIAL.items():
        for noun, group in rivals.items():
            leads = [sign * (obj.center[axis] - chosen.center[axis]) for obj in group]
            if leads and min(leads) > margin:
                found.append(Expression(f'the {word} {noun}', target, 'spatial'))
    return found
