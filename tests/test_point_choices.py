"""Points of instances by hand: spread, deepest, and random ones that do not depend on what else is loaded."""

from collections import Counter

import numpy as np
import pytest

from genseg_mm.datasets.transforms import PackGenSegInputs, PointPrompt
from genseg_mm.datasets.transforms.instances import LoadInstanceMap
from genseg_mm.point_choices import (
    as_points,
    deepest_pixel,
    instance_pixels,
    picture_name,
    random_pixels,
    spread_pixels,
)


def square(left: int, top: int, side: int) -> list[list[float]]:
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


INSTANCES = {
    11: dict(ann_id=11, area=16.0, mask=square(2, 2, 4), ignore_flag=0),
    5: dict(ann_id=5, area=100.0, mask=square(10, 1, 10), ignore_flag=0),
    30: dict(ann_id=30, area=36.0, mask=square(30, 20, 6), ignore_flag=0),
}


def prompted(ann_ids: tuple = (11, 5, 30), folder: str = '/data/a', **meta: object) -> dict:
    """The pipeline's result for some of the annotations."""
    results = dict(
        height=40, width=50, instances=[INSTANCES[own] for own in ann_ids], img_path=f'{folder}/1.jpg', **meta
    )
    return PointPrompt()(LoadInstanceMap()(results))


def points_of(results: dict) -> dict[int, list]:
    return dict(zip(results['point_keys'].tolist(), results['points'].tolist(), strict=True))


def test_an_object_has_its_point_whatever_else_is_loaded():
    everything = prompted()
    points = points_of(everything)
    assert everything['point_ids'].tolist() == [1, 2, 3]
    assert everything['point_keys'].tolist() == [11, 5, 30]
    assert everything['point_areas'].tolist() == [16.0, 100.0, 36.0]
    for own in points:  # number 1 in its own map
        assert points_of(prompted((own,))) == {own: points[own]}
    assert points_of(prompted((30, 5, 11))) == points
    assert points_of(prompted(sample_idx=77, folder='/elsewhere', img_id=3)) == points
    other = PointPrompt(seed=1)(LoadInstanceMap()(dict(everything_again())))
    assert points_of(other) != points


def everything_again() -> dict:
    return dict(height=40, width=50, instances=list(INSTANCES.values()), img_path='1.jpg')


def test_a_point_moves_only_when_it_is_covered():
    """Of ten covers of a square's half, about five cover its point; the others leave it."""
    pixels = np.arange(100)
    moved = 0
    for picture in map(str, range(40)):
        whole = random_pixels(pixels, 1, 0, picture, 3)[0]
        half = random_pixels(pixels[:50], 1, 0, picture, 3)[0]
        assert half < 50 and (half == whole) == (whole < 50)
        moved += half != whole
    assert 10 <= moved <= 30


def test_random_pixels_are_uniform_and_seeded():
    pixels = np.array([3, 4, 9, 200, 300_000])
    drawn = random_pixels(pixels, 4000, 0, 'a.jpg', 7)
    counts = Counter(drawn.tolist())
    assert set(counts) == set(pixels.tolist())
    assert all(abs(count - 800) < 120 for count in counts.values())  # 4.7 standard deviations
    assert random_pixels(pixels, 4000, 0, 'a.jpg', 7).tolist() == drawn.tolist()
    for other in ((1, 'a.jpg', 7), (0, 'b.jpg', 7), (0, 'a.jpg', 8)):
        assert random_pixels(pixels, 4000, *other).tolist() != drawn.tolist()
    # For good: another machine or version must draw the same.
    assert random_pixels(np.arange(1000), 4, 0, 'a.jpg', 7).tolist() == GOLDEN


GOLDEN = [889, 727, 773, 604]


def test_spread_pixels_by_hand():
    # A 3 x 3 instance at (1, 1) of a picture of width 10.
    pixels = np.array([11, 12, 13, 21, 22, 23, 31, 32, 33])
    assert spread_pixels(pixels, 10, 9).tolist() == pixels.tolist()
    assert spread_pixels(pixels, 10, 100).tolist() == pixels.tolist()
    assert spread_pixels(pixels, 10, 1).tolist() == [22]
    # Bands 11 12 13 21 22 and 23 31 32 33, by column 11 21 12 22 13 and 31 32 23 33; two of each.
    assert spread_pixels(pixels, 10, 4).tolist() == [21, 22, 32, 33]
    places = spread_pixels(np.arange(400), 20, 16)
    y, x = np.divmod(places, 20)  # four in each quarter of the rows, spread over the columns
    assert Counter((y // 5).tolist()) == {0: 4, 1: 4, 2: 4, 3: 4}
    assert Counter((x // 5).tolist()) == {0: 4, 1: 4, 2: 4, 3: 4}


def test_deepest_pixel_by_hand():
    ids = np.zeros((7, 9), np.int32)
    ids[1:6, 1:6] = 4
    ids[0:3, 6:9] = 7  # at the border, which is an edge
    four, seven = instance_pixels(ids, [4, 7])
    assert as_points([deepest_pixel(four, 9), deepest_pixel(seven, 9)], 9).tolist() == [[3, 3], [7, 1]]
    assert deepest_pixel(np.array([5]), 9) == 5


def test_deepest_pixel_is_that_of_all_distances():
    """Against the distance to every pixel outside, the border of the picture among them."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        mask = generator.random((9, 13)) < 0.85
        padded = np.pad(mask, 1)
        inside, outside = np.argwhere(padded), np.argwhere(~padded)
        depth = ((inside[:, None] - outside) ** 2).sum(-1).min(1)
        y, x = inside[depth.argmax()] - 1
        assert deepest_pixel(np.flatnonzero(mask), 13) == y * 13 + x


def test_names_of_pictures():
    assert picture_name(dict(img_path='/a/b/c.jpg', img_id=4)) == 'c.jpg'
    assert picture_name(dict(img_path='', img_id=4, sample_idx=9)) == '4'
    assert picture_name(dict(sample_idx=9)) == '9'
    assert picture_name({}) == '0'


def test_crowds_and_skipped_instances_do_not_shift_the_own_ids():
    crowd = dict(ann_id=70, area=9.0, mask=square(40, 30, 3), ignore_flag=1)
    broken = dict(ann_id=71, area=9.0, mask=[[1, 2]], ignore_flag=0)
    instances = [crowd, broken, INSTANCES[11], INSTANCES[30]]
    results = dict(height=40, width=50, instances=instances, img_path='1.jpg')
    results = PointPrompt()(LoadInstanceMap(invalid='skip')(results))
    assert results['map_ann_ids'].tolist() == [71, 11, 30]
    assert results['point_ids'].tolist() == [2, 3]  # of the broken one there is no pixel
    assert points_of(results) == points_of(prompted((11, 30)))
    packed = PackGenSegInputs()(dict(results, img=np.zeros((40, 50, 3), np.uint8)))
    meta = packed['data_samples'].metainfo
    assert (meta['point_keys'].tolist(), meta['point_areas'].tolist()) == ([11, 30], [16.0, 36.0])


def test_maps_without_annotations_give_their_own_ids():
    ids = np.zeros((4, 6), np.int32)
    ids[1, 2], ids[3, 3] = 70_000, 2
    results = PointPrompt()(dict(gt_instance_map=ids, img_path='a.png'))
    assert results['point_ids'].tolist() == results['point_keys'].tolist() == [2, 70_000]
    assert results['points'].tolist() == [[[3, 3]], [[2, 1]]]
    assert 'point_areas' not in results
    with pytest.raises(ValueError, match='a.png: map_ann_ids must name .*got 1 for the id 70000'):
        PointPrompt()(dict(gt_instance_map=ids, img_path='a.png', map_ann_ids=[5]))
    mixed = [INSTANCES[11], dict(mask=square(30, 20, 6), ignore_flag=0)]  # mmdet's have no ann_id
    results = LoadInstanceMap()(dict(height=40, width=50, instances=mixed))
    assert 'map_ann_ids' not in results and 'map_areas' not in results
