"""Sentences about a scene of coloured shapes: unique referring expressions and a caption."""

from collections.abc import Sequence
from typing import NamedTuple

from genseg_mm.datasets.shapes.shape_scenes import MIN_VISIBLE, Scene

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
