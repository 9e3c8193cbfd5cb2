"""Scenes of recognisable objects: several of one kind, overlapping, with or without shadows, on any ground.

What is where (the composition) is drawn apart from which objects it is (the cast): one seed gives the same composition
with other objects. Everything is relative to the short side of the picture. Coordinates are pixels with pixel centres
at integers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from genseg_mm.datasets.object_bank import MIN_ALPHA, ObjectBank
from genseg_mm.datasets.scene_grounds import add_grain, draw_ground

MIN_VISIBLE = 20 / 96**2  # least visible area / short side squared of an object
MIN_SHARE = 0.35  # least share of its own area; what is hidden more is left out
NEARNESS = 0.62  # centres are so far apart, in sums of half extents
MAX_PLACEMENTS = 60
SAME_KIND_PROB, TWO_PAIRS_PROB, RELATED_PROB, ALIKE_SIZE_PROB = 0.6, 0.25, 0.4, 0.5
SHADOW_PROB, GRAIN_PROB = 0.5, 0.5
_SIDED = {'left', 'right', 'leftwards', 'rightwards'}


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """One object of a scene.

    Attributes:
        index: Its number in the bank.
        name: What it is.
        group: Its wide kind.
        subgroup: Its narrow kind.
        center: Centre (x, y) of what is visible, pixels.
        box: (x0, y0, x1, y1) of what is visible; x1 and y1 are the last pixels.
        extent: Side of the square around the whole object, pixels.
        area: Pixels that would show if nothing were in front of it and the picture had no border.
        visible: Pixels that show.
        hidden_by: Of each object that lies on it somewhere: number in the scene, and how many pixels of this object it
            hides that nothing else hides from it.
    """

    index: int
    name: str
    group: str
    subgroup: str
    center: tuple[float, float]
    box: tuple[int, int, int, int]
    extent: float
    area: int
    visible: int
    hidden_by: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectScene:
    """A drawn scene.

    Attributes:
        image: uint8 BGR, (H, W, 3).
        ids: uint8, (H, W); 0 is the ground, ``i + 1`` the visible pixels of ``objects[i]``.
        objects: From the farthest to the nearest.
        ground: What the ground is, as a caption says it ('on grass'); empty where it has no name.
    """

    image: np.ndarray
    ids: np.ndarray
    objects: tuple[PlacedObject, ...]
    ground: str = ''


class SceneStyle(NamedTuple):
    """How scenes look; see ``ObjectScenesDataset``.

    Attributes:
        object_size: Least and largest side of an object, in short sides of the picture; log-uniform.
        num_objects: Least and largest number.
        shadows: True, False, or None for half of the scenes.
        grounds: Kinds of ``scene_grounds``.
        photos: Photographs for grounds; where there are some, half of the grounds.
        inside: Whether objects lie wholly inside of the picture.
        repeats: Whether some kinds come several times.
    """

    object_size: tuple[float, float] = (0.1, 0.55)
    num_objects: tuple[int, int] = (2, 6)
    shadows: bool | None = None
    grounds: tuple[str, ...] = ('flat',)
    photos: tuple[str, ...] = ()
    inside: bool = True
    repeats: bool = True


@dataclass(slots=True)
class Spot:
    """Place of one object before it is known which object it is."""

    role: int  # objects of one role are of one kind
    side: float
    center: tuple[float, float]
    angle: float
    mirrored: bool
    aspect: float
    gain: float
    shift: float


@dataclass(slots=True)
class Layer:
    """An object as it is drawn, whole.

    Attributes:
        index: Its number in the bank.
        spot: Where it is, and how it looks there.
        planes: (4, h, w) uint8, premultiplied RGBA.
        window: Rows and columns of the picture that it is in.
        mask: (h, w) bool: whether it is there.
        area: Pixels of the mask, beyond the border of the picture as well.
        hides: What it lies on: number of the object, and of how many pixels it is the one that hides it.
    """

    index: int
    spot: Spot
    planes: np.ndarray
    window: tuple[slice, slice]
    mask: np.ndarray
    area: int
    hides: dict[int, int] = field(default_factory=dict)


class Cast:
    """The kinds that scenes are played by: names, and which objects of a bank have them.

    Args:
        bank: The bank.
        indices: Numbers of its objects that may be used.
    """

    def __init__(self, bank: ObjectBank, indices: Sequence[int]) -> None:
        self.bank = bank
        self._by_name: dict[str, list[int]] = {}
        for index in indices:
            self._by_name.setdefault(bank.names[index], []).append(index)
        self.names = tuple(self._by_name)
        self._by_group: dict[str, list[str]] = {}
        for name, own in self._by_name.items():
            self._by_group.setdefault(bank.subgroups[own[0]], []).append(name)

    def objects_of(self, name: str) -> list[int]:
        """Numbers of the objects of this name."""
        return self._by_name[name]

    def is_sided(self, name: str) -> bool:
        """Whether a name would be wrong of its mirror image."""
        return not _SIDED.isdisjoint(name.replace('-', ' ').split())

    def neighbours(self, name: str) -> list[str]:
        """All names of the same narrow kind, itself among them."""
        return self._by_group[self.bank.subgroups[self._by_name[name][0]]]

    def draw(self, rng: Generator, num_roles: int, related: bool) -> list[str]:
        """Different names for the roles of a scene; if related, of one narrow kind as far as it has so many."""
        first = self.names[int(rng.integers(len(self.names)))]
        chosen = [first]
        pools = [self.neighbours(first), self.names] if related else [self.names]
        for _ in range(20 * num_roles):
            if len(chosen) == num_roles:
                break
            pool = pools[0]
            if len(pools) > 1 and len(set(pool) - set(chosen)) == 0:
                pools.pop(0)
                continue
            name = pool[int(rng.integers(len(pool)))]
            if name not in chosen:
                chosen.append(name)
        return [chosen[role % len(chosen)] for role in range(num_roles)]


def draw_object_scene(
    rng: Generator, cast_rng: Generator, cast: Cast, image_size: tuple[int, int], style: SceneStyle
) -> ObjectScene:
    """A scene; none of its objects is hidden nearly.

    Args:
        rng: Source of the composition, the ground and the light.
        cast_rng: Source of which objects it is.
        cast: The kinds to draw from.
        image_size: (height, width).
        style: How it looks.
    """
    layers, ids = arrange(rng, cast_rng, cast, image_size, style)
    kinds = style.grounds
    if style.photos and rng.random() < 0.5:
        kinds = ('photo',)
    image, ground = draw_ground(rng, image_size, kinds, style.photos)
    if rng.random() < GRAIN_PROB:
        image = add_grain(rng, image, rng.uniform(1, 6))
    # By channel: NumPy is several times faster on long rows than on three values at a time.
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    has_shadows = rng.random() < SHADOW_PROB if style.shadows is None else style.shadows
    light = rng.uniform(-0.09, 0.09), rng.uniform(0.03, 0.1), rng.uniform(0.25, 0.55)
    for layer in layers:
        if has_shadows:
            _cast_shadow(planes, layer, light)
        _paint(planes, layer)
    np.minimum(planes, 255, out=planes)
    np.maximum(planes, 0, out=planes)
    picture = cv2.merge(list(planes[::-1].astype(np.uint8)))
    return ObjectScene(picture, ids, _facts(cast.bank, layers, ids), ground)


def arrange(
    rng: Generator, cast_rng: Generator, cast: Cast, image_size: tuple[int, int], style: SceneStyle
) -> tuple[list[Layer], np.ndarray]:
    """The objects of a scene from far to near, and the ids of what shows; see :func:`draw_object_scene`."""
    spots, related = _compose(rng, image_size, style)
    roles = cast.draw(cast_rng, 1 + max(own.role for own in spots), related)
    layers = []
    for spot in spots:
        variants = cast.objects_of(roles[spot.role])
        index = variants[int(cast_rng.integers(len(variants)))]
        if cast.is_sided(roles[spot.role]):
            spot.mirrored = False
        layer = _place(cast.bank, index, spot, image_size)
        if layer is not None:
            layers.append(layer)
    ids = _visible(layers, image_size)
    kept = _without_hidden(layers, ids, min(image_size))
    if len(kept) < len(layers):
        layers, ids = kept, _visible(kept, image_size)
    return layers, ids


def _compose(rng: Generator, image_size: tuple[int, int], style: SceneStyle) -> tuple[list[Spot], bool]:
    """Spots from far to near, and whether the kinds are related."""
    count = int(rng.integers(style.num_objects[0], style.num_objects[1] + 1))
    roles = _roles(rng, count) if style.repeats else list(range(count))
    short = min(image_size)
    low, high = (math.log(own * short) for own in style.object_size)
    sizes = np.exp(rng.uniform(low, high, count))
    if rng.random() < ALIKE_SIZE_PROB:  # of one kind, of one size
        sizes = np.array([sizes[role] for role in roles]) * rng.uniform(0.9, 1.1, count)
    spots: list[Spot] = []
    draws = iter(rng.random((MAX_PLACEMENTS, 2)).tolist())
    for role, side in zip(roles, sizes.tolist(), strict=True):
        side = min(max(side, style.object_size[0] * short), style.object_size[1] * short)
        margin = 0.5 * side if style.inside else 0.15 * side
        for u, v in draws:
            x = margin + (image_size[1] - 2 * margin) * u - 0.5
            y = margin + (image_size[0] - 2 * margin) * v - 0.5
            if all(math.hypot(x - a.center[0], y - a.center[1]) >= NEARNESS * 0.5 * (side + a.side) for a in spots):
                angle, aspect = math.radians(rng.normal(0, 12)), math.exp(rng.normal(0, 0.08))
                light = rng.uniform(0.85, 1.12), rng.uniform(-12, 12)
                spots.append(Spot(role, side, (x, y), angle, bool(rng.random() < 0.5), aspect, *light))
                break
    # What stands lower tends to be nearer.
    depth = [own.center[1] + 0.5 * own.side + rng.normal(0, 0.12) * short for own in spots]
    order = np.argsort(depth, kind='stable')
    renumbered = {role: number for number, role in enumerate(sorted({own.role for own in spots}))}
    for own in spots:
        own.role = renumbered[own.role]
    return [spots[number] for number in order], bool(rng.random() < RELATED_PROB)


def _roles(rng: Generator, count: int) -> list[int]:
    """Which objects are of one kind: [0, 0, 0, 1, 2] are three of a kind and two others."""
    if count < 2 or rng.random() >= SAME_KIND_PROB:
        return list(range(count))
    many = min(count, int(rng.integers(2, 5)))
    rest = count - many
    roles = [0] * many + list(range(1, rest + 1))
    if rest >= 2 and rng.random() < TWO_PAIRS_PROB:
        roles[-1] = roles[-2]
    return roles


def _place(bank: ObjectBank, index: int, spot: Spot, image_size: tuple[int, int]) -> Layer | None:
    """Draws an object into its window of the picture; None where the window is empty."""
    source = bank.picture(index, spot.side)
    scale = spot.side / source.shape[0]
    cos, sin = math.cos(spot.angle) * scale, math.sin(spot.angle) * scale
    sign = -1 if spot.mirrored else 1
    matrix = np.array([[cos * sign * spot.aspect, -sin, 0], [sin * sign * spot.aspect, cos, 0]])
    half = 0.5 * source.shape[0] * (abs(matrix[:, 0]) + abs(matrix[:, 1]))
    x0, y0 = (math.floor(spot.center[axis] - half[axis]) - 1 for axis in (0, 1))
    width, height = (math.ceil(2 * half[axis]) + 3 for axis in (0, 1))
    middle = 0.5 * (source.shape[0] - 1)
    matrix[:, 2] = np.array(spot.center) - (x0, y0) - matrix[:, :2] @ (middle, middle)
    rgba = cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_LINEAR)
    planes = np.stack(cv2.split(rgba))
    mask = planes[3] >= MIN_ALPHA
    top, left = max(-y0, 0), max(-x0, 0)
    bottom, right = min(height, image_size[0] - y0), min(width, image_size[1] - x0)
    if bottom <= top or right <= left:
        return None
    window = slice(y0 + top, y0 + bottom), slice(x0 + left, x0 + right)
    shows = slice(top, bottom), slice(left, right)
    return Layer(index, spot, planes[:, *shows], window, mask[shows], int(np.count_nonzero(mask)))


def _visible(layers: Sequence[Layer], image_size: tuple[int, int]) -> np.ndarray:
    """Ids of what shows; each layer learns what it hides."""
    ids = np.zeros(image_size, np.uint8)
    under = np.zeros(image_size, np.int32)  # bit i: object i is here, seen or not
    for number, layer in enumerate(layers):
        part, below = ids[layer.window], under[layer.window]
        covered = np.bincount(part[layer.mask], minlength=number + 1)
        lies_on = int(np.bitwise_or.reduce(below[layer.mask])) if layer.mask.any() else 0
        layer.hides = {own: int(covered[own + 1]) for own in range(number) if lies_on >> own & 1}
        part[layer.mask] = number + 1
        below[layer.mask] |= 1 << number
    return ids


def _without_hidden(layers: list[Layer], ids: np.ndarray, short: int) -> list[Layer]:
    """Leaves out what hardly shows; leaving out one object can only uncover others."""
    visible = np.bincount(ids.ravel(), minlength=len(layers) + 1)[1:].tolist()
    least = MIN_VISIBLE * short**2
    kept = [own for own, num in zip(layers, visible, strict=True) if num >= max(least, MIN_SHARE * own.area)]
    if not kept:  # tiny ones alone: the largest stays
        kept = [layers[int(np.argmax(visible))]]
    return kept


def _cast_shadow(planes: np.ndarray, layer: Layer, light: tuple[float, float, float]) -> None:
    """Darkens what lies behind an object, a little aside and softly."""
    side, strength = layer.spot.side, light[2]
    dx, dy = round(light[0] * side), round(light[1] * side)
    soft = max(1, round(0.08 * side))
    rows, columns = layer.window
    alpha = cv2.copyMakeBorder(layer.planes[3], soft, soft, soft, soft, cv2.BORDER_CONSTANT, value=0)
    alpha = cv2.blur(alpha, (2 * soft + 1, 2 * soft + 1))
    top, left = rows.start - soft + dy, columns.start - soft + dx
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + alpha.shape[0], planes.shape[1]), min(left + alpha.shape[1], planes.shape[2])
    if y1 <= y0 or x1 <= x0:
        return
    dark = alpha[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32)
    planes[:, y0:y1, x0:x1] *= 1 - dark * (strength / 255)


def _paint(planes: np.ndarray, layer: Layer) -> None:
    own = layer.planes.astype(np.float32)
    color, alpha = own[:3], own[3]
    color *= layer.spot.gain
    color += alpha * (layer.spot.shift / 255)
    np.minimum(color, alpha, out=color)
    np.maximum(color, 0, out=color)
    part = planes[:, layer.window[0], layer.window[1]]
    part *= 1 - alpha / 255
    part += color


def _facts(bank: ObjectBank, layers: Sequence[Layer], ids: np.ndarray) -> tuple[PlacedObject, ...]:
    objects = []
    for number, layer in enumerate(layers):
        shows = (ids[layer.window] == number + 1).view(np.uint8)
        y0, x0 = layer.window[0].start, layer.window[1].start
        sums = cv2.moments(shows, True)
        visible = int(sums['m00'])
        center = sums['m10'] / visible + x0, sums['m01'] / visible + y0
        left, top, width, height = cv2.boundingRect(shows)
        box = left + x0, top + y0, left + x0 + width - 1, top + y0 + height - 1
        hidden_by = tuple((other, own.hides[number]) for other, own in enumerate(layers) if number in own.hides)
        names = bank.names[layer.index], bank.groups[layer.index], bank.subgroups[layer.index]
        objects.append(PlacedObject(layer.index, *names, center, box, layer.spot.side, layer.area, visible, hidden_by))
    return tuple(objects)
