"""Every resize in every config: pictures with antialiasing, maps of ids by PIL's nearest, one way everywhere."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from genseg_mm.datasets.transforms.images import AntialiasedResize, nearest
from genseg_mm.registry import TRANSFORMS

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path
    for path in (ROOT / 'configs').rglob('*.py')
    if path.parent.name not in ('models', 'schedules') and path.stem != 'default_runtime'
)


def transforms_of(value: object) -> list[dict]:
    """All transforms' configs in a config, whatever joins their datasets."""
    if isinstance(value, dict):
        own = [value] if isinstance(value.get('type'), str) else []
        return own + [found for inner in value.values() for found in transforms_of(inner)]
    if isinstance(value, list | tuple):
        return [found for inner in value for found in transforms_of(inner)]
    return []


def resizes_of(path: Path) -> list[dict]:
    """Those that change the size of a picture."""
    found = transforms_of(Config.fromfile(path).to_dict())
    return [one for one in found if 'resize' in one['type'].lower() and one['type'] != 'model_resize']


def test_resizes_of_every_config_are_antialiased(monkeypatch: pytest.MonkeyPatch):
    """All configs in one test, because reading them is what takes the time."""
    monkeypatch.setenv('GENSEG_DATA', '/somewhere')
    kinds, checked = Counter(), set()
    for path in CONFIGS:
        for cfg in resizes_of(path):
            kinds[cfg['type']] += 1
            text = json.dumps(cfg)
            if text in checked:  # one resize, though many configs have it
                continue
            checked.add(text)
            if cfg['type'] == 'genseg_mm.NetworkResize':
                TRANSFORMS.build(cfg)  # always antialiased: test_jobs.py, test_as_published.py
                continue
            assert cfg['type'] == 'genseg_mm.AntialiasedResize' and cfg['backend'] in ('pillow', 'torch'), path
            check_resize(cfg)
    # Were the search above blind, it would find nothing.
    assert kinds['genseg_mm.AntialiasedResize'] > 50
    assert kinds['genseg_mm.NetworkResize'] > 10


def check_resize(cfg: dict) -> None:
    """A picture is resized as by PIL with antialiasing (by torch: nearly), maps of ids as by PIL's nearest."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (1100, 1300, 3), dtype=np.uint8)
    ids = rng.integers(0, 70_000, (1100, 1300)).astype(np.int32)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (1100, 1300))
    with DefaultScope.overwrite_default_scope('genseg_mm'):
        resize = TRANSFORMS.build(cfg)
    fields = dict(gt_instance_map=ids, gt_seg_map=mask)
    results = resize(dict(fields, img=picture, seg_fields=list(fields)))
    size = results['img'].shape[1::-1]
    assert results['img_shape'] == size[::-1]
    if cfg.get('keep_ratio'):
        assert size == (round(1300 * min(cfg['scale']) / 1100), min(cfg['scale']))
    else:
        assert size == tuple(cfg['scale'])
    by_pil = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    off = np.abs(results['img'].astype(int) - by_pil)
    assert off.max() <= (2 if cfg['backend'] == 'torch' else 0) and (off > 0).mean() < 0.02
    # Noise that shrinks fades; without antialiasing its contrast stays.
    assert results['img'].astype(float).std() < 0.8 * picture.astype(float).std()
    for key, values in fields.items():
        expected = Image.fromarray(values).resize(size, Image.Resampling.NEAREST)
        assert np.array_equal(results[key], expected)
        assert results[key].dtype == values.dtype


def test_nearest_by_hand_and_of_every_type():
    """4 -> 2: PIL takes the pixel at the centre, floor((i + 0.5) * 2) = 1 and 3; OpenCV would take 0 and 2."""
    row = np.array([[10, 20, 30, 40]])
    for dtype in (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.uint32):
        small = nearest(row.astype(dtype), (1, 2))
        assert small.tolist() == [[20, 40]] and small.dtype == dtype
    assert nearest(row > 15, (1, 2)).tolist() == [[True, True]]
    large = np.array([[70_000, -3, 2**31 - 1, 5]])
    assert nearest(large, (1, 2)).tolist() == [[-3, 5]]
    wide = np.array([[1, 2**40, 3, -(2**50)]])
    assert nearest(wide, (1, 2)).tolist() == [[2**40, -(2**50)]]
    with pytest.raises(ValueError, match=r'bool or integers, but got \(1, 2, 3\) uint8'):
        nearest(np.zeros((1, 2, 3), np.uint8), (1, 1))


def test_an_edge_stays_where_it_is_by_torch():
    """A step at 301 of 700 columns lies at 301 * 2 / 7 = 86 of 200, as by Pillow, and its ids with it."""
    picture = np.zeros((70, 700, 3), np.uint8)
    picture[:, 301:] = 200
    ids = (picture[..., 0] > 0).astype(np.int32)
    for backend in ('pillow', 'torch'):
        resize = AntialiasedResize(scale=(200, 20), backend=backend)
        results = resize(dict(img=picture, gt_instance_map=ids, seg_fields=['gt_instance_map']))
        row = results['img'][0, :, 0].astype(float)
        # The sum of a row is the step's place: no part of a pixel is gained or lost at either end.
        assert 200 - row.sum() / 200 == pytest.approx(301 * 2 / 7, abs=0.02)
        assert np.array_equal(results['gt_instance_map'][0], np.arange(200) >= 86)
        mirrored = resize(dict(img=picture[:, ::-1]))['img'][0, ::-1, 0]
        assert np.array_equal(mirrored, row)
        assert results['img_shape'] == (20, 200) and results['scale_factor'] == pytest.approx((2 / 7, 2 / 7))


@pytest.mark.parametrize(
    'change', [dict(backend='cv2'), dict(interpolation='area'), dict(backend='torch', interpolation='box')]
)
def test_other_ways_are_refused(change: dict):
    with pytest.raises(ValueError, match="works with backend 'pillow' and interpolation bilinear"):
        AntialiasedResize(scale=(4, 4), **change)


def test_the_warm_up_counts_in_updates():
    """Update k of the reference has k / 100 of the peak, then exp decay to 0.05 at update 40,000."""
    import torch
    from mmengine.optim import ExponentialLR, LinearLR

    cfg = Config.fromfile(ROOT / 'configs/gen2seg/gen2seg_mae-h_hypersim-vkitti2.py')
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    kinds = dict(LinearLR=LinearLR, ExponentialLR=ExponentialLR)
    schedulers = [kinds[one.pop('type')](optimizer, **one) for one in cfg.to_dict()['param_scheduler']]
    optimizer.step()
    for update in range(300):
        expected = update / 100 if update < 100 else 0.05 ** ((update - 100) / 39900)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected, abs=2e-8)
        for scheduler in schedulers:
            scheduler.step()
    assert (cfg.default_hooks.checkpoint.interval, cfg.train_cfg.max_iters) == (1000, 30000)


@pytest.mark.parametrize('shape', [(30, 20), (30, 20, 3), (1, 20, 3), (30, 1, 3), (1, 1, 3)])
def test_grey_pictures_and_sides_of_one_pixel_are_resized_by_either(shape):
    """Also mirrored and read-only ones: NumPy calls a side of one pixel contiguous, however its stride points."""
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mirrored = picture[:, ::-1]
    mirrored.flags.writeable = False
    for keep_ratio, scale in ((False, (9, 7)), (True, (40, 90))):
        by_pillow, by_torch = (
            AntialiasedResize(scale=scale, keep_ratio=keep_ratio, backend=own)(dict(img=mirrored))
            for own in ('pillow', 'torch')
        )
        off = np.abs(by_pillow.pop('img').astype(int) - by_torch.pop('img'))
        assert off.shape[2:] == shape[2:] and off.max() <= 2 and by_pillow == by_torch
