"""Point prompts against loops over pixels in float64, hand-worked maps and OpenCV's filter."""

import numpy as np
import pytest
import torch

from genseg_mm.functional import joint_bilateral, point_prompting
from genseg_mm.functional.joint_bilateral import joint_bilateral_filter
from genseg_mm.functional.point_prompting import (
    color_distances,
    masks_from_points,
    query_colors,
    similarity_levels,
)


def reflect_101(position, size):
    while size > 1 and not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position if size > 1 else 0


def plain_filter(guide, src, diameter=9, sigma_color=75.0, sigma_space=75.0):
    """One 8-bit map, (H, W), guided by (3, H, W): pixel by pixel."""
    height, width = src.shape
    radius, guide = diameter // 2, guide.astype(np.float64)
    out = np.zeros_like(src)
    for y in range(height):
        for x in range(width):
            total = norm = 0.0
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if dy**2 + dx**2 > radius**2:
                        continue
                    v, u = reflect_101(y + dy, height), reflect_101(x + dx, width)
                    distance = np.abs(guide[:, v, u] - guide[:, y, x]).sum()
                    weight = np.exp(-(distance**2) / (2 * sigma_color**2))
                    weight *= np.exp(-(dy**2 + dx**2) / (2 * sigma_space**2))
                    total += weight * src[v, u]
                    norm += weight
            out[y, x] = np.rint(total / norm)
    return out


def plain_query(color_map, point, sigma=0.01):
    """Gaussian over the whole map on linspace(0, 1) grids."""
    height, width = color_map.shape[1:]
    x = np.linspace(0, 1, width)[None] - point[0] / (width - 1)
    y = np.linspace(0, 1, height)[:, None] - point[1] / (height - 1)
    heat = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return (color_map * heat).sum((1, 2)) / (heat.sum() + 1e-6)


def plain_levels(color_map, query, rule):
    distance = np.sqrt(((color_map - query[:, None, None]) ** 2).sum(0))
    similarity = 1 / (distance + 1e-6) if rule == 'reference' else 1 / np.maximum(distance, 1)
    low, high = similarity.min(), similarity.max()
    return ((similarity - low) / (high - low + 1e-6) * 255).astype(np.uint8)


def plain_mask(color_map, points, labels, rule='reference', smooth=True):
    """One prompt: (P, 2) points with (P,) labels."""
    queries = [plain_query(color_map, point) for point in points]
    value = np.zeros(color_map.shape[1:], np.uint8)
    nearest = {0: np.full(value.shape, np.inf), 1: np.full(value.shape, np.inf)}
    for query, label in zip(queries, labels, strict=True):
        distance = np.sqrt(((color_map - query[:, None, None]) ** 2).sum(0))
        nearest[label] = np.minimum(nearest[label], distance)
        if label:
            levels = plain_levels(color_map, query, rule)
            value = np.maximum(value, plain_filter(color_map, levels) if smooth else levels)
    return (value > 3) & ~(nearest[0] < nearest[1])


def patches(height=22, width=27, seed=0, noise=12.0):
    """Noisy patches of five colours, (3, H, W) float64 in [0, 255], and every pixel's patch."""
    rng = np.random.default_rng(seed)
    seeds, colors = rng.uniform(0, 1, (5, 2)) * [height, width], rng.uniform(0, 255, (5, 3))
    y, x = np.mgrid[:height, :width]
    patch = ((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2).argmin(-1)
    color_map = colors[patch].transpose(2, 0, 1) + rng.normal(0, noise, (3, height, width))
    return color_map.clip(0, 255), patch


POINTS = torch.tensor([[3.0, 4.0], [20.0, 2.0], [25.5, 20.25], [0.0, 21.0], [12.0, 11.0]])


@pytest.mark.parametrize('size', [(3, 40, 50), (3, 31, 90), (3, 25, 1)])
def test_query_is_the_gaussian_mean_over_the_whole_map(size):
    rng = np.random.default_rng(0)
    color_map = rng.uniform(0, 255, size)
    color_map[:, :, :1] = 200  # a border, so that width 1 has a hand-worked answer
    points = np.stack([rng.uniform(0, size[2] - 1, 20), rng.uniform(0, size[1] - 1, 20)], 1)
    points[:10] = points[:10].round()
    for sigma in (0.01, 0.05):
        queries = query_colors(torch.from_numpy(color_map), torch.from_numpy(points), sigma)
        if size[2] == 1:
            expected = np.full((20, 3), 200.0)
        else:
            expected = np.stack([plain_query(color_map, point, sigma) for point in points])
        assert queries.numpy() == pytest.approx(expected, rel=5e-6)
        rounded = query_colors(
            torch.from_numpy(color_map).float(), torch.from_numpy(points).float(), sigma
        )
        assert rounded.dtype == torch.float32
        assert rounded.numpy() == pytest.approx(expected, rel=5e-6)


def test_query_at_integers_is_exact():
    color_map, _ = patches(200, 310)
    points = np.array([[0, 0], [309, 199], [17, 150], [200, 3]])
    queries = query_colors(torch.from_numpy(color_map), torch.from_numpy(points))
    expected = np.stack([plain_query(color_map, point) for point in points])
    assert queries.numpy() == pytest.approx(expected, rel=1e-12)


def test_query_between_the_pixels_of_a_tiny_map_is_not_black():
    color_map = torch.zeros(3, 8, 8)
    color_map[0], color_map[1, :, 4:] = 90, 60
    queries = query_colors(color_map, torch.tensor([[3.5, 3.5], [3.0, 3.0], [4.0, 3.0]]))
    expected = [[90, 30, 0], [90, 0, 0], [90, 60, 0]]
    assert torch.allclose(queries, torch.tensor(expected, dtype=torch.float32), atol=1e-3)


def test_distances_by_hand():
    color_map = torch.tensor([[[0.0, 3.0]], [[0.0, 4.0]], [[0.0, 12.0]]])  # one row, two pixels
    distances = color_distances(color_map, torch.tensor([[0.0, 0, 0], [3, 4, 0], [255, 255, 255]]))
    assert distances[0].tolist() == [[0, 13]]
    assert distances[1].tolist() == [[5, 12]]
    assert distances[2, 0].tolist() == pytest.approx(
        [255 * 3**0.5, (252**2 + 251**2 + 243**2) ** 0.5]
    )


def grey_row(*values):
    """One row of colours (value, 0, 0)."""
    row = torch.zeros(3, 1, len(values))
    row[0, 0] = torch.tensor(values)
    return row


def test_levels_by_hand():
    """255 (1/d - 1/255) / (1/1 - 1/255) is 126.996 at d = 2, 4.12 at 50, 3.26 at 60."""
    distances = [1.0, 2.0, 10.0, 50.0, 60.0, 85.0, 255.0]
    levels = similarity_levels(grey_row(*distances), torch.zeros(1, 3))
    assert levels.tolist() == [[[254, 126, 24, 4, 3, 2, 0]]]
    # The paper's clamp: d = 0.01 and d = 1 are the same; unclamped, everything else drops.
    row = grey_row(0.01, *distances)
    assert similarity_levels(row, torch.zeros(1, 3), 'paper').tolist() == [
        [[254, 254, 126, 24, 4, 3, 2, 0]]
    ]
    levels = similarity_levels(row.double(), torch.zeros(1, 3))  # 254.9999975, 2.54, 1.27, 0.25 ...
    assert levels.tolist() == [[[254, 2, 1, 0, 0, 0, 0, 0]]]


def test_mask_is_where_the_level_exceeds_three():
    """Levels 254, 126, 24, 4, 3, 2, 0 as above; the query is next to black at the first pixel."""
    row = grey_row(0.0, 1.0, 2.0, 10.0, 50.0, 60.0, 85.0, 255.0)
    arguments = {'sigma': 1e-3, 'rule': 'paper', 'smooth': False}
    mask = masks_from_points(row, [[0, 0]], **arguments)
    assert mask.tolist() == [[[True] * 5 + [False] * 3]]
    mask = masks_from_points(row, [[0, 0]], threshold=2 / 255, **arguments)
    assert mask.tolist() == [[[True] * 6 + [False] * 2]]
    mask = masks_from_points(row, [[0, 0]], threshold=0.4, **arguments)  # level 102
    assert mask.tolist() == [[[True] * 3 + [False] * 5]]


# cv2.ximgproc.jointBilateralFilter (opencv-contrib 5.0.0) on the maps of opencv_maps():
#   cv2.ximgproc.jointBilateralFilter(guide, src, 9, 75, 75) and (guide, src, 5, 20, 3)
OPENCV = {
    (9, 75.0, 75.0): [
        [104, 111, 110, 119, 120, 123, 124],
        [116, 124, 122, 121, 127, 128, 129],
        [107, 115, 107, 121, 126, 119, 130],
        [105, 113, 110, 121, 132, 124, 137],
        [109, 115, 116, 117, 116, 122, 133],
    ],
    (5, 20.0, 3.0): [
        [25, 41, 76, 111, 148, 169, 198],
        [95, 128, 163, 201, 232, 33, 58],
        [161, 206, 14, 41, 83, 112, 144],
        [33, 59, 91, 129, 159, 190, 232],
        [90, 143, 180, 189, 38, 54, 88],
    ],
}


def opencv_maps():
    y, x = np.mgrid[:5, :7]
    guide = np.stack([x * 30, y * 40, (x * y) % 5 * 9])
    return guide.astype(np.uint8), ((x * 37 + y * 91) % 256).astype(np.uint8)


@pytest.mark.parametrize('setting', list(OPENCV))
def test_filter_equals_opencv(setting):
    guide, src = opencv_maps()
    out = joint_bilateral_filter(torch.from_numpy(guide), torch.from_numpy(src)[None], *setting)
    assert out.dtype == torch.uint8
    assert out[0].tolist() == OPENCV[setting]


@pytest.mark.parametrize('size', [(12, 14), (3, 6), (1, 5), (1, 1)])
@pytest.mark.parametrize('setting', [(9, 75.0, 75.0), (4, 30.0, 2.0)])
def test_filter_equals_the_plain_loop(size, setting):
    rng = np.random.default_rng(3)
    guide = rng.integers(0, 256, (3, *size)).astype(np.uint8)
    src = rng.integers(0, 256, (3, *size)).astype(np.uint8)
    src[1] = 0
    out = joint_bilateral_filter(torch.from_numpy(guide), torch.from_numpy(src), *setting)
    expected = np.stack([plain_filter(guide, one, *setting) for one in src])
    assert np.array_equal(out.numpy(), expected)


def test_filter_of_floats_is_not_rounded():
    guide, src = (torch.from_numpy(array) for array in opencv_maps())
    out = joint_bilateral_filter(guide, src[None].double() / 255)
    assert out.dtype == torch.float64
    assert (out[0] * 255).round().tolist() == OPENCV[(9, 75.0, 75.0)]
    constant = joint_bilateral_filter(guide, torch.full((1, 5, 7), 0.3))
    assert torch.allclose(constant, torch.tensor(0.3))


def test_filter_does_not_depend_on_its_tiles(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    guide = torch.rand(3, 40, 33, generator=generator) * 255
    src = torch.randint(0, 256, (7, 40, 33), generator=generator, dtype=torch.uint8)
    src[2, :30] = 0
    expected = joint_bilateral_filter(guide, src)
    monkeypatch.setattr(joint_bilateral, '_tile_shape', lambda *_: (3, 2))
    assert torch.equal(joint_bilateral_filter(guide, src), expected)


@pytest.mark.parametrize('rule', ['reference', 'paper'])
@pytest.mark.parametrize('smooth', [True, False])
def test_masks_equal_the_plain_loop(rule, smooth):
    color_map, _ = patches()
    masks = masks_from_points(torch.from_numpy(color_map), POINTS, rule=rule, smooth=smooth)
    for mask, point in zip(masks.numpy(), POINTS.numpy(), strict=True):
        assert np.array_equal(mask, plain_mask(color_map, [point], [1], rule, smooth))
    assert 0.02 < masks.float().mean() < 0.9  # neither side is trivial


def test_several_and_negative_points_equal_the_plain_loop():
    color_map, _ = patches()
    points = POINTS[torch.tensor([[0, 1, 2], [3, 4, 0], [1, 1, 1]])]
    labels = [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    masks = masks_from_points(torch.from_numpy(color_map), points, labels)
    for mask, prompt, label in zip(masks.numpy(), points.numpy(), labels, strict=True):
        assert np.array_equal(mask, plain_mask(color_map, prompt, label))


def test_flat_patches_are_found():
    color_map, patch = patches(60, 80, seed=2, noise=0.0)
    x, y = 10, 12
    truth = torch.from_numpy(patch == patch[y, x])
    color_map = torch.from_numpy(color_map).float()
    assert torch.equal(masks_from_points(color_map, [[x, y]], radius=20.0)[0], truth)
    assert torch.equal(masks_from_points(color_map, [[x, y]], smooth=False)[0], truth)
    # The filter lets the mask grow by at most its window.
    smooth = masks_from_points(color_map, [[x, y]])[0]
    grown = torch.nn.functional.max_pool2d(truth[None].float(), 9, 1, 4)[0] > 0
    assert (smooth | truth).equal(smooth) and (smooth & grown).equal(smooth)


def test_points_are_x_then_y():
    color_map = torch.zeros(3, 40, 90)
    color_map[:, 10:20, 60:70] = 200
    mask = masks_from_points(color_map, torch.tensor([[65, 15]]), radius=50.0)[0]
    assert torch.equal(mask, color_map[0] == 200)


def test_a_batch_is_its_prompts_one_at_a_time(monkeypatch):
    color_map = torch.from_numpy(patches()[0]).float()
    together = masks_from_points(color_map, POINTS)
    singles = [masks_from_points(color_map, point[None])[0] for point in POINTS]
    assert torch.equal(together, torch.stack(singles))
    assert torch.equal(together, masks_from_points(color_map, POINTS[:, None]))
    points, labels = POINTS[torch.tensor([[0, 1], [2, 3], [4, 0]])], [[1, 0], [1, 1], [1, 0]]
    expected = [masks_from_points(color_map, points, labels, radius=r) for r in (None, 70.0)]
    monkeypatch.setattr(
        point_prompting,
        '_parts',
        lambda num_maps, *_, **__: (slice(start, start + 1) for start in range(num_maps)),
    )
    for radius, masks in zip((None, 70.0), expected, strict=True):
        parts = masks_from_points(color_map, points, labels, radius=radius)
        assert torch.equal(parts, masks)


def test_several_points_are_the_union():
    color_map = torch.from_numpy(patches()[0])
    masks = masks_from_points(color_map, POINTS)
    assert torch.equal(masks_from_points(color_map, POINTS[None])[0], masks.any(0))
    masks = masks_from_points(color_map, POINTS, radius=60.0)
    assert torch.equal(masks_from_points(color_map, POINTS[None], radius=60.0)[0], masks.any(0))


def test_radius_by_hand():
    row = grey_row(0.0, 9.0, 10.0, 11.0, 200.0)
    prompts = [[[0, 0], [4, 0]]]
    query = {'sigma': 1e-3}  # the pixel itself, but for 1e-6 of it
    assert masks_from_points(row, [[0, 0]], radius=10.0, **query).tolist() == [
        [[True, True, False, False, False]]
    ]
    assert masks_from_points(row, prompts, radius=10.5, **query).tolist() == [
        [[True, True, True, False, True]]
    ]
    negative = masks_from_points(row, prompts, [[1, 0]], radius=300.0, **query)
    assert negative.tolist() == [[[True, True, True, True, False]]]


def test_a_tie_with_a_negative_point_stays():
    row = grey_row(0.0, 100.0, 200.0)
    mask = masks_from_points(row, [[[0, 0], [0, 0]]], [[1, 0]], radius=300.0)
    assert mask.tolist() == [[[True, True, True]]]


def test_one_color_gives_an_empty_mask_unless_a_radius_is_given():
    color_map = torch.full((3, 20, 30), 77.0)
    assert masks_from_points(color_map, [[3, 4]]).sum() == 0
    assert masks_from_points(color_map, [[3, 4]], rule='paper').sum() == 0
    assert masks_from_points(color_map, [[3, 4]], radius=1.0).sum() == 600


def test_types_of_maps_and_no_prompt():
    color_map = torch.from_numpy(patches()[0].round())
    expected = masks_from_points(color_map, POINTS, rule='paper')
    for dtype in (torch.uint8, torch.float32, torch.bfloat16):
        masks = masks_from_points(color_map.to(dtype), POINTS.numpy(), rule='paper')
        assert (masks != expected).float().mean() < 1e-3
    assert masks_from_points(color_map, torch.zeros(0, 2)).shape == (0, 22, 27)
    assert masks_from_points(color_map, torch.zeros(0, 3, 2), torch.zeros(0, 3)).numel() == 0


def test_autocast_changes_nothing():
    color_map = torch.from_numpy(patches()[0]).float().requires_grad_()
    expected = masks_from_points(color_map, POINTS)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        masks = masks_from_points(color_map, POINTS)
    assert torch.equal(masks, expected) and masks.any()


GOOD = {'color_map': torch.zeros(3, 4, 5), 'points': [[1.0, 2.0]]}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'color_map': torch.zeros(4, 4, 5)}, r'color_map: .*\(4, 4, 5\)'),
        ({'color_map': torch.zeros(1, 3, 4, 5)}, r'color_map: .*\(1, 3, 4, 5\)'),
        ({'color_map': torch.zeros(3, 4, 5, dtype=torch.int32)}, 'color_map: .*torch.int32'),
        ({'color_map': torch.full((3, 4, 5), torch.nan)}, 'color_map: .*NaN'),
        ({'points': [1.0, 2.0]}, r'points: .*\(2,\)'),
        ({'points': torch.zeros(2, 3)}, r'points: .*\(2, 3\)'),
        ({'points': torch.zeros(2, 0, 2)}, r'points: .*\(2, 0, 2\)'),
        ({'points': [[5.0, 2.0]]}, r'points: .*width 5 and height 4, but got \(5.0, 2.0\)'),
        ({'points': [[2.0, -1.0]]}, r'points: .*\(2.0, -1.0\)'),
        ({'points': [[2.0, torch.nan]]}, r'points: .*\(2.0, nan\)'),
        ({'points': [[True, False]]}, 'points: .*torch.bool'),
        ({'point_labels': [[1]]}, r'point_labels: expected \(1,\).*\(1, 1\)'),
        ({'point_labels': [2]}, r'point_labels: .*\[2\]'),
        ({'point_labels': [0]}, 'point_labels: .*prompt 0 has none'),
        ({'rule': 'papers'}, "rule: .*'papers'"),
        ({'threshold': 3.0}, r'threshold: .*3\.0'),
        ({'radius': 0.0}, r'radius: .*0\.0'),
        ({'sigma': 0.0}, r'sigma: .*0\.0'),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        masks_from_points(**{**GOOD, **change})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'guide': torch.zeros(4, 5)}, r'guide: .*\(4, 5\)'),
        ({'src': torch.zeros(1, 5, 4)}, r'src: expected \(K, 4, 5\).*\(1, 5, 4\)'),
        ({'src': torch.zeros(1, 4, 5, dtype=torch.int64)}, 'src: .*torch.int64'),
        ({'diameter': 0}, 'diameter: .*0'),
        ({'sigma_color': -1.0}, r'sigma_color: .*-1\.0'),
    ],
)
def test_bad_filter_arguments_are_named(change, message):
    good = {'guide': torch.zeros(3, 4, 5), 'src': torch.zeros(1, 4, 5)}
    with pytest.raises(ValueError, match=message):
        joint_bilateral_filter(**{**good, **change})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_equals_cpu():
    color_map = torch.from_numpy(patches()[0])
    points, labels = (
        POINTS[torch.tensor([[0, 1, 2], [3, 4, 0]])],
        torch.tensor([[1, 1, 0], [1, 0, 0]]),
    )
    expected = masks_from_points(color_map, points, labels)
    masks = masks_from_points(color_map.cuda(), points, labels)
    assert (masks.cpu() != expected).float().mean() < 1e-3


@pytest.mark.parametrize('shape', [(0, 2), (0, 3, 2)])
@pytest.mark.parametrize('settings', [{}, {'radius': 5.0}])
def test_no_prompt_gives_no_mask(shape, settings):
    labels = torch.ones(shape[:-1])
    for point_labels in (None, labels):
        masks = masks_from_points(torch.zeros(3, 4, 5), torch.zeros(shape), point_labels, **settings)
        assert masks.tolist() == [] and masks.shape == (0, 4, 5)
