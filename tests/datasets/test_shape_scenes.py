"""Drawing of scenes, referring expressions, and that colours do not give the instances."""

import numpy as np
import pytest

from genseg_mm.datasets.shape_scenes import (
    COLORS,
    Scene,
    SceneObject,
    box,
    ellipse,
    finish,
    place,
    random_interior_points,
    rasterise,
)
from genseg_mm.datasets.shapes_dataset import KINDS, ShapesDataset, caption, expressions


def obj(shape='circle', color='red', size='large', x=32.0, y=32.0, area=100, visible=100):
    return SceneObject(shape, (x, y), 8.0, area, visible, color, size)


def scene_of(*objects: SceneObject) -> Scene:
    return Scene(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8), objects)


def said_of(text: str, objects: tuple[SceneObject, ...], margin: float) -> list[int]:
    """Objects that a sentence can mean, by its words alone; without the margin, nobody leads."""
    words = text.split()[1:]
    noun = words[-1]
    group = [i for i, o in enumerate(objects) if noun in ('shape', o.shape)]
    for word in words[:-1]:
        if word in COLORS:
            group = [i for i in group if objects[i].color == word]
        elif word in ('small', 'large'):
            group = [i for i in group if objects[i].size == word]
        else:
            axis = 0 if word in ('leftmost', 'rightmost') else 1
            sign = 1 if word in ('leftmost', 'topmost') else -1
            assert word in ('leftmost', 'rightmost', 'topmost', 'bottom')
            ranked = sorted(group, key=lambda i: sign * objects[i].center[axis])
            first, second = (sign * objects[i].center[axis] for i in ranked[:2])
            group = ranked[:1] if second - first > margin else []
    return group


@pytest.mark.parametrize('shapes', ['seen', 'unseen'])
@pytest.mark.parametrize('size', [64, (48, 80)])
def test_every_expression_means_its_object_only(shapes, size):
    data = ShapesDataset(60, size, split='val', shapes=shapes, seed=1)
    margin = 4 / 64 * min(data.image_size)
    count = 0
    for index in range(60):
        objects = data.scene(index).objects
        found = data.scene_expressions(index)
        assert len({e.text for e in found}) == len(found)
        for text, target, _ in found:
            assert said_of(text, objects, margin) == [target], text
            assert 2 * objects[target].visible >= objects[target].area
        count += len(found)
    assert len(data) == count > 60 * 10
    assert {data.get_data_info(i)['kind'] for i in range(count)} == set(KINDS)


def test_expressions_of_a_scene_worked_by_hand():
    scene = scene_of(
        obj('circle', 'red', 'large', x=10, y=10),
        obj('circle', 'blue', 'small', x=14.5, y=14),  # 4.5 to the right, 4 below
        obj('square', 'blue', 'small', x=50, y=12),
    )
    texts = [[e.text for e in expressions(scene) if e.target == i] for i in range(3)]
    assert texts[0] == [
        'the red circle',
        'the red shape',
        'the large red circle',
        'the large circle',
        'the leftmost circle',
        'the leftmost shape',
    ]
    assert texts[1] == ['the blue circle', 'the small blue circle', 'the small circle', 'the rightmost circle']
    assert texts[2] == [
        'the blue square',
        'the square',
        'the small blue square',
        'the small square',
        'the rightmost shape',
    ]
    assert caption(scene) == ('a scene with a large red circle, a small blue circle, a small blue square')


@pytest.mark.parametrize(
    ('area', 'visible', 'named'), [(100, 50, True), (100, 49, False), (20, 20, True), (19, 19, False)]
)
def test_hidden_objects_are_not_named_but_stay_rivals(area, visible, named):
    scene = scene_of(obj('circle', area=area, visible=visible), obj('circle', 'blue', x=60))
    targets = {e.target for e in expressions(scene)}
    assert targets == ({0, 1} if named else {1})
    assert 'the circle' not in {e.text for e in expressions(scene)}


@pytest.mark.parametrize('task', ['referring', 'instance'])
@pytest.mark.parametrize('size', [(64, 64), (40, 72)])
def test_ids_are_contiguous_and_agree_with_the_objects(task, size):
    data = ShapesDataset(50, size, task=task, seed=2)
    for index in range(50):
        scene = data.scene(index)
        assert np.bincount(scene.ids.ravel())[1:].tolist() == [o.visible for o in scene.objects]
        assert all(0 < o.visible <= o.area for o in scene.objects)
        assert scene.objects[-1].visible == scene.objects[-1].area  # nothing is in front of it
        if task == 'instance':
            assert min(o.visible for o in scene.objects) >= 16 / 64**2 * min(size) ** 2


def test_colours_have_their_names_in_bgr():
    data = ShapesDataset(100, seed=5)
    table = np.array(list(COLORS.values()))
    right = []
    for index in range(100):
        scene = data.scene(index)
        for number, thing in enumerate(scene.objects, start=1):
            rgb = scene.image[scene.ids == number].mean(axis=0)[::-1]
            nearest = list(COLORS)[np.abs(table - rgb).sum(axis=1).argmin()]
            right.append(nearest == thing.color)
    assert np.mean(right) > 0.97  # yellow and orange come near each other


@pytest.mark.parametrize('task', ['referring', 'instance'])
def test_scenes_are_alike_at_every_size(task):
    small, large = (ShapesDataset(40, size, task=task, seed=4) for size in (64, 192))
    low, high = (6 / 64, 15 / 64) if task == 'referring' else (0.08, 0.32)
    share = np.zeros(2)
    for index in range(40):
        pair = small.scene(index), large.scene(index)
        share += [(scene.ids > 0).mean() for scene in pair]
        if [len(scene.objects) for scene in pair] != [len(pair[0].objects)] * 2:
            continue  # an object that just shows enough at one size only
        for ours, theirs in zip(pair[0].objects, pair[1].objects, strict=True):
            assert (ours.shape, ours.color, ours.size) == (theirs.shape, theirs.color, theirs.size)
            assert low <= ours.radius / 64 <= high
            assert theirs.radius == pytest.approx(3 * ours.radius)
    assert share[1] == pytest.approx(share[0], rel=0.08)


def test_rasterised_areas():
    square = place([box(-1, -1, 1, 1)], (20.0, 20.0), (8.0, 8.0), 0.3)
    window, coverage = rasterise(square, (64, 64), supersample=4)
    # OpenCV fills the border pixels, too: half a sub-pixel on each side.
    assert coverage.sum() / 255 == pytest.approx(16.25**2, rel=0.01)
    y, x = np.mgrid[window]
    center = np.average(x, weights=coverage), np.average(y, weights=coverage)
    assert center == pytest.approx((20, 20), abs=0.125)
    ring = place([ellipse(1.0), ellipse(0.5)], (30.0, 20.0), (16.0, 16.0), 0.0)
    window, coverage = rasterise(ring, (64, 64), supersample=4)
    assert coverage.sum() / 255 == pytest.approx(np.pi * (16.125**2 - 7.875**2), rel=0.01)
    assert coverage[20 - window[0].start, 30 - window[1].start] == 0
    window, coverage = rasterise([box(-3, -3, 4, 4)], (64, 64))
    assert (window, int((coverage > 0).sum())) == ((slice(0, 6), slice(0, 6)), 25)
    _, coverage = rasterise([box(70, 70, 80, 80)], (64, 64))
    assert coverage.size == 0


def test_hidden_objects_leave_the_scene():
    ids = np.array([[0, 1, 3], [3, 3, 1]], np.uint8)
    fields = [dict(shape=name, center=(0, 0), radius=1, area=4) for name in 'abc']
    rgb = np.array([300.0, 20.0, -5.0]) * np.ones((2, 3, 1))
    scene = finish(rgb, ids, fields)
    assert scene.ids.tolist() == [[0, 1, 2], [2, 2, 1]]
    assert [(o.shape, o.visible) for o in scene.objects] == [('a', 2), ('c', 3)]
    assert scene.image[0, 0].tolist() == [0, 20, 255]


def test_interior_points_are_uniform():
    ids = np.zeros((4, 6), np.int32)
    ids[1, 2:6] = 7
    ids[3, 0] = 300
    found, points = random_interior_points(ids, np.random.default_rng(0), num_points=4000)
    assert found.tolist() == [7, 300]
    assert (points[1] == [0, 3]).all()
    assert (points[0, :, 1] == 1).all()
    shares = np.bincount(points[0, :, 0].astype(int), minlength=6) / 4000
    np.testing.assert_allclose(shares, [0, 0, 0.25, 0.25, 0.25, 0.25], atol=0.03)


def point_prompt_miou(features, scenes, thresholds):
    """Best mean IoU (percent) over thresholds of the disk around a random pixel's feature."""
    rng = np.random.default_rng(0)
    scores = []
    for scene in scenes:
        feature = features(scene)
        numbers, points = random_interior_points(scene.ids, rng)
        for number, (x, y) in zip(numbers, points[:, 0].astype(int), strict=True):
            target = scene.ids == number
            distance = np.linalg.norm(feature - feature[y, x], axis=2)[..., None]
            masks = distance < np.asarray(thresholds)
            inside = (masks & target[..., None]).sum((0, 1))
            scores.append(inside / (masks | target[..., None]).sum((0, 1)))
    return 100 * np.mean(scores, axis=0).max()


@pytest.mark.parametrize('shapes', ['seen', 'unseen'])
def test_raw_colours_do_not_give_the_instances(shapes):
    data = ShapesDataset(100, task='instance', split='test', shapes=shapes)
    scenes = [data.scene(i) for i in range(100)]
    thresholds = (5, 12, 20, 34, 56, 70, 90, 110, 140)
    colour = point_prompt_miou(lambda s: s.image.astype(float), scenes, thresholds)
    assert 12 < colour < 20  # prototype: 16
    grid = np.stack(np.meshgrid(*[np.linspace(0, 255, 64)] * 2), axis=2)
    position = point_prompt_miou(lambda s: grid, scenes, thresholds)
    assert 24 < position < 36  # prototype: 31 seen, 28 unseen
    oracle = point_prompt_miou(lambda s: np.dstack([grid, 1000 * (s.ids > 0)]), scenes, thresholds)
    assert 48 < oracle < 62  # prototype: 54
