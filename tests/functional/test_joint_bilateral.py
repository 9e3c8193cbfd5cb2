"""The joint bilateral filter against OpenCV's numbers and a loop over pixels."""

import numpy as np
import pytest
import torch
from plain_prompting import plain_filter

from genseg_mm.functional import joint_bilateral
from genseg_mm.functional.joint_bilateral import joint_bilateral_filter

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
    monkeypatch.setattr(joint_bilateral, '_tile_shape', lambda *_: (3, 5, 2))
    assert torch.equal(joint_bilateral_filter(guide, src), expected)


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
