"""Every model that gives a colour map, behind the inferencer: all gen2seg configs, mmseg's segmentors and backbones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_models import dit_colorer_config
from tiny_released import make_mae_folder, make_sd_folder

from genseg_mm.datasets import ShapesDataset
from genseg_mm.datasets.transforms.network_pipeline import pipeline_of
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models import Gen2Seg
from genseg_mm.network_sizes import network_resize_of
from genseg_mm.registry import MODELS

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs/gen2seg').glob('*.py'))
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
HEAD = dict(type='genseg_mm.InstanceColoringHead', in_channels=[8, 16], in_index=[0, 1], channels=8)
BACKBONE = dict(
    type='mmseg.MixVisionTransformer',
    embed_dims=4,
    num_stages=2,
    num_layers=[1, 1],
    num_heads=[2, 4],
    patch_sizes=[7, 3],
    strides=[4, 2],
    sr_ratios=[8, 4],
    out_indices=(0, 1),
    mlp_ratio=2,
)


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Twins of what the configs would fetch."""
    root = tmp_path_factory.mktemp('folders')
    return dict(MAEColorer=str(make_mae_folder(root / 'mae')), SDColorer=str(make_sd_folder(root / 'sd')))


@pytest.fixture(scope='module')
def checked() -> set[str]:
    """Models and pipelines that were checked."""
    return set()


def check(infer: GenSegInferencer) -> dict:
    """A prediction with points, boxes and without prompts, of the image's size and with contrast."""
    points, boxes = [[20, 30], [70, 10]], [[5, 5, 50, 40], [40, 2, 88, 50]]
    (prediction,) = infer(IMAGE, points=points, boxes=boxes)['predictions']
    colors = prediction['color_map']
    assert colors.shape == (60, 90, 3) and 0 <= colors.min() < colors.max() <= 255.001
    assert prediction['masks'].shape == (2, 60, 90)
    inside = np.zeros((60, 90), bool)
    inside[5:40, 5:50] = True
    assert not prediction['masks'][0][~inside].any()
    assert infer(IMAGE, automatic=True)['predictions'][0]['masks'].shape[1:] == (60, 90)
    assert np.array_equal(infer.set_image(IMAGE), colors)
    assert np.array_equal(infer.prompt(points=points, boxes=boxes)['masks'], prediction['masks'])
    if isinstance(infer.model, Gen2Seg):
        check_tiles(infer, colors)
    return prediction


def check_tiles(infer: GenSegInferencer, colors: np.ndarray) -> None:
    """Tiles give a map of their own, of the image's size; without a share in the result, and off, the usual one."""
    wanted = infer.model.network_resize()
    tiled = GenSegInferencer(infer.model, tiles=dict(size=0.75, overlap=0)).set_image(IMAGE)
    assert tiled.shape == colors.shape and 0 <= tiled.min() < tiled.max() <= 255.001
    assert np.abs(tiled - colors).max() > 0.01
    longer = wanted.get('longer_side')
    assert infer.model.network_resize().get('longer_side') == (round(longer / 0.75) if longer else longer)
    assert np.array_equal(GenSegInferencer(infer.model, tiles=False).set_image(IMAGE), colors)
    assert infer.model.network_resize() == wanted


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings('ignore:no weights were given')
def test_every_config_of_gen2seg(path: Path, folders: dict[str, str], checked: set[str]):
    cfg = Config.fromfile(path)
    colorer = cfg.model.get('colorer', {})
    if colorer.get('pretrained'):
        colorer.pretrained = folders[colorer.type.rpartition('.')[2]]
        cfg.model.processing_size = 64  # of the tiny twin; 768 would take a minute
    if 'from_pretrained' in colorer.get('backbone', {}).get('transformer', {}).get('type', ''):
        cfg.model.colorer = dit_colorer_config(colorer.backbone.family)
        cfg.model.processing_size = 64
    if cfg.model.get('backbone', {}).get('embed_dims', 0) > 500:
        cfg.model.backbone.update(embed_dims=24, num_layers=4, num_heads=2, out_indices=(0, 1, 2, 3))
        cfg.model.backbone.img_size = (64, 96)  # 512 x 512 of noise has very many instances
        cfg.model.decode_head.update(in_channels=[24] * 4, channels=16)
    if cfg.model.type == 'genseg_mm.GenerativePretraining':
        with pytest.raises(ValueError, match='runs Gen2Seg and GenMask, but got GenerativePretraining'):
            GenSegInferencer(cfg, device='cpu')
        return
    text = json.dumps([cfg.model, pipeline_of(cfg)], default=str)
    if text in checked:  # the same model at the same size, for other data
        return
    checked.add(text)
    torch.manual_seed(0)
    infer = GenSegInferencer(cfg, device='cpu')
    check(infer)
    if 'vit' in path.stem:
        assert network_resize_of(infer.model)['size'] == tuple(cfg.model.backbone.img_size)


def segmentor(head: dict, **preprocessor: object) -> Config:
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(
                    type='SegDataPreProcessor', mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True, **preprocessor
                ),
                backbone=BACKBONE,
                decode_head=head,
                train_cfg=dict(),
                test_cfg=dict(mode='whole'),
            ),
        )
    )


@pytest.mark.filterwarnings('ignore:no weights were given')
def test_a_stock_segmentor_of_mmseg_behind_our_head():
    torch.manual_seed(0)
    infer = GenSegInferencer(segmentor(HEAD), device='cpu')
    prediction = check(infer)
    inputs = torch.from_numpy(IMAGE.copy()).permute(2, 0, 1)
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=(60, 90), ori_shape=(60, 90)))
    with torch.no_grad():
        direct = infer.model.segmentor.test_step(dict(inputs=[inputs], data_samples=[sample]))[0]
    assert np.array_equal(prediction['color_map'], direct.seg_logits.data.permute(1, 2, 0).numpy())
    sized = GenSegInferencer(segmentor(HEAD, size_divisor=16), device='cpu')
    assert network_resize_of(sized.model) == dict(multiples=(16, 16))
    check(sized)


@pytest.mark.filterwarnings('ignore:no weights were given')
def test_a_segmentor_of_classes_and_other_modules_are_told_what_to_write():
    head = dict(type='FCNHead', in_channels=16, in_index=1, channels=8, num_classes=19)
    with pytest.raises(ValueError, match=r'is a FCNHead: write decode_head=dict\(type="genseg_mm.Ins'):
        GenSegInferencer(segmentor(head), device='cpu')
    with pytest.raises(ValueError, match='tiles: expected a Gen2Seg of any colorer, but got ColoringSeg'):
        GenSegInferencer(segmentor(HEAD), device='cpu', tiles=True)
    with pytest.raises(ValueError, match=r'but got Linear; a module that gives maps \(N, 3, H, W\) goes into'):
        GenSegInferencer(torch.nn.Linear(1, 1))


@pytest.mark.filterwarnings('ignore:no weights were given')
def test_mmseg_inside_gen2seg():
    torch.manual_seed(0)
    MODELS.get('mmseg.EncoderDecoder')  # imports mmseg's models
    plain = dict(backbone=BACKBONE, train_cfg=dict(), test_cfg=dict(mode='whole'))
    colorer = dict(type='mmseg.EncoderDecoder', decode_head=HEAD, **plain)
    model = Gen2Seg(colorer=colorer, normalize='sigmoid', prompting=dict(radius=30.0)).eval()
    check(GenSegInferencer(model, show_progress=False))
    inputs = torch.rand(1, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        raw = model.colorer(inputs)
        expected = torch.nn.functional.interpolate(raw, size=(32, 48), mode='bilinear')
        assert raw.shape[-2:] == (8, 12) and torch.equal(model(inputs), expected)
    with pytest.raises(ValueError, match='is a backbone, which gives feature maps: .*InstanceColoringHead'):
        Gen2Seg(colorer=BACKBONE)
    classes = dict(type='mmseg.FCNHead', in_channels=16, in_index=1, channels=8, num_classes=19)
    with pytest.raises(ValueError, match='FCNHead of the colorer EncoderDecoder gives 19 channels'):
        Gen2Seg(colorer=dict(colorer, decode_head=classes))
    flat = Gen2Seg(colorer=dict(type='torch.nn.Flatten'))
    with pytest.raises(ValueError, match=r'Flatten must give maps \(N, 3, h, w\), but got \(1, 12\)'):
        flat(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize('name', ['gen2seg_unet', 'gen2seg_mae', 'genmask_sana'])
def test_a_large_photo_is_brought_to_the_size_of_the_training(name: str, monkeypatch: pytest.MonkeyPatch):
    """6000 x 4000 in proportion, here 600 x 400: the network sees 64, results have the size of the photo."""
    room = name.partition('_')[0]
    config = ROOT / f'configs/{room}/{name}_shapes_long_tiny.py'
    weights = ROOT / f'genseg_mm/weights/{name}_shapes.safetensors'
    infer = GenSegInferencer(config, weights, device='cpu')
    seen, step = [], infer.model.test_step
    monkeypatch.setattr(
        infer.model, 'test_step', lambda data: seen.append(tuple(data['inputs'][0].shape[1:])) or step(data)
    )
    prompt = dict(texts='the circle') if room == 'genmask' else dict(points=[[250, 200]])
    (prediction,) = infer(np.full((400, 600, 3), 90, np.uint8), **prompt)['predictions']
    expected = {'gen2seg_unet': (42, 64), 'gen2seg_mae': (64, 64), 'genmask_sana': (40, 64)}[name]
    assert seen == [expected] and prediction['masks'].shape == (1, 400, 600)
    # A scene ten times as large: what comes is that of the picture reduced by PIL, at the large size.
    scene = ShapesDataset(num_scenes=1, task='referring', split='test', pipeline=[])[0]
    large = scene['img'].repeat(10, 0).repeat(10, 1)
    small = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BILINEAR))
    if room == 'genmask':
        masks = [infer(one, texts=scene['text'])['predictions'][0]['masks'] for one in (small, large)]
        assert masks[0].any() and masks[1].shape == (1, 640, 640)
        assert (masks[0] == masks[1][:, 5::10, 5::10]).mean() > 0.95
        return
    first, second = (infer(one, automatic=True)['predictions'][0] for one in (small, large))
    assert seen[1:] == [(64, 64)] * 2 and len(first['masks'])
    assert np.array_equal(second['masks'], first['masks'].repeat(10, 1).repeat(10, 2))
    grown = torch.from_numpy(first['color_map']).permute(2, 0, 1)[None]
    grown = torch.nn.functional.interpolate(grown, (640, 640), mode='bilinear')[0].permute(1, 2, 0)
    assert np.abs(second['color_map'] - grown.numpy()).max() < 1e-2
    GenSegInferencer(infer.model, processing_size=128)(np.zeros((400, 600, 3), np.uint8))
    assert seen[-1] == {'gen2seg_unet': (86, 128), 'gen2seg_mae': (84, 128)}[name]
