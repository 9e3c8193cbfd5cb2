"""Inference on tiles: settings, the sizes that the network sees, small objects that only tiles show."""

import pytest
import torch
from mmseg.structures import SegDataSample
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from genseg_mm.models import Gen2Seg
from genseg_mm.models.tiled_maps import DEFAULTS, checked_tiles, tiled_resize, whole_sizes
from genseg_mm.registry import MODELS


@MODELS.register_module()
class ErodingColorer(nn.Module):
    """Shows what is at least five pixels wide, in colours that change with the mean of what it sees."""

    def __init__(self, longer_side: int = 0, width: int = 5, change: float = 0.0) -> None:
        super().__init__()
        self.longer_side, self.width, self.change, self.seen = longer_side, width, change, []

    def network_resize(self, size: int | None = None) -> dict:
        return dict(longer_side=self.longer_side if size is None else size, multiples=(2, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += [tuple(images.shape[-2:])] * len(images)
        eroded = -F.max_pool2d(-images, self.width, 1, self.width // 2)
        opened = F.max_pool2d(eroded, self.width, 1, self.width // 2)
        shift = self.change * opened.mean((1, 2, 3), keepdim=True)
        return opened * (1 + shift) + shift


def model_of(tiles: object = None, **colorer: object) -> Gen2Seg:
    return Gen2Seg(dict(type='ErodingColorer', **colorer), normalize='none', tiles=tiles).eval()


def map_of(model: Gen2Seg, picture: torch.Tensor, **meta: object) -> torch.Tensor:
    sample = SegDataSample()
    sample.set_metainfo(meta)
    return model(picture[None], [sample], mode='predict')[0].pred_color_map.data


@pytest.fixture
def scene() -> torch.Tensor:
    """Red squares of 12 and of 4 pixels on black."""
    picture = torch.zeros(3, 24, 36)
    picture[0, 2:14, 14:26] = picture[0, 18:22, 28:32] = 1
    return picture


def test_a_small_object_that_only_the_tiles_show(scene: torch.Tensor):
    plain, tiled = (map_of(model_of(tiles), scene) for tiles in (None, True))
    assert torch.equal(plain, map_of(model_of(False), scene))
    assert torch.equal(plain, map_of(model_of(dict(blend=0)), scene))
    large, small = (slice(4, 12), slice(16, 24)), (slice(19, 21), slice(29, 31))
    assert plain[0][large].min() == 255 and plain[0][small].max() == 0
    assert tiled[0][large].min() > 240 and tiled[0][small].min() > 60


def test_colours_that_differ_from_tile_to_tile_are_fitted():
    picture = torch.rand(3, 24, 36, generator=torch.Generator().manual_seed(0))
    same, changed = (map_of(model_of(True, width=1, change=own), picture) for own in (0.0, 0.8))
    assert_close(changed, same, atol=0.01, rtol=0)
    assert (same - map_of(model_of(width=1), picture)).abs().mean() > 1


def test_large_pictures_are_seen_one_by_one(scene: torch.Tensor, monkeypatch: pytest.MonkeyPatch):
    together = map_of(model_of(True), scene)
    monkeypatch.setattr('genseg_mm.models.tiled_maps.PIXELS_AT_ONCE', 24 * 36)
    model = model_of(True)
    calls, run = [], model.colorer.forward
    monkeypatch.setattr(model.colorer, 'forward', lambda images: calls.append(len(images)) or run(images))
    assert torch.equal(map_of(model, scene), together) and calls == [1] * 5


def test_sizes_that_the_network_sees(scene: torch.Tensor):
    model = model_of(True, longer_side=18)
    assert model.network_resize() == dict(longer_side=27, multiples=(2, 2))
    assert model_of(longer_side=18).network_resize() == dict(longer_side=18, multiples=(2, 2))
    # As the pipeline brings it: 24 x 36 to 18 x 28, of which a tile is 12 x 18.
    large = F.interpolate(scene[None], (18, 28), mode='bilinear', antialias=True)[0]
    result = map_of(model, large, img_shape=(18, 28), ori_shape=(24, 36))
    assert model.colorer.seen == [(12, 18)] * 5 and result.shape == (3, 24, 36)
    model.colorer.seen.clear()
    # Of any other size: it is the network's, and tiles are enlarged to it. Padding is no part of the picture.
    padded = F.pad(scene, (0, 4, 0, 6), value=1.0)
    result = map_of(model, padded, img_shape=(24, 36), ori_shape=(24, 36))
    assert model.colorer.seen == [(24, 36)] * 5 and torch.equal(result, map_of(model, scene))
    tiles = checked_tiles(dict(size=0.5))
    assert tiled_resize(dict(size=(64, 96)), tiles) == dict(size=(128, 192))
    assert whole_sizes((128, 192), (400, 400), dict(size=(64, 96)), tiles) == ((64, 96), (64, 96))
    padding = dict(longer_side=0, multiples=(8, 8), pad=True)
    assert whole_sizes((20, 30), (20, 30), padding, tiles) == ((20, 30), (24, 32))


@pytest.mark.parametrize(
    ('tiles', 'message'),
    [
        (3, 'tiles: expected settings out of size, overlap, blend, True or None, but got 3'),
        (dict(side=64), 'tiles: expected settings out of size, overlap, blend, but got side'),
        (dict(size=64), r'tiles: expected size to be a share of the picture in \(0, 1\), but got 64'),
        (dict(overlap=1.0), r'tiles: expected overlap to be a share of a tile in \[0, 1\), but got 1.0'),
        (dict(blend='half'), r"tiles: expected blend to be a share in \[0, 1\], but got 'half'"),
    ],
)
def test_settings_are_checked(tiles: object, message: str):
    with pytest.raises(ValueError, match=message):
        model_of(tiles)
    assert checked_tiles(True) == DEFAULTS and checked_tiles(dict(blend=1))['size'] == 2 / 3
