"""mmseg's own functions on our configs."""

from pathlib import Path

import mmseg.apis
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from genseg_mm.datasets import ShapesDataset
from genseg_mm.inferencers import GenSegInferencer

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / 'genseg_mm/weights'
TINY = sorted(
    path
    for path in (ROOT / 'configs').rglob('*_tiny.py')
    if '_base_' not in path.parts and 'pretrain' not in path.stem and 'benchmarks' not in path.parts
)


@pytest.fixture(scope='module')
def scene(tmp_path_factory) -> tuple[str, np.ndarray]:
    """A held-out scene of 64 x 64: its file and BGR pixels."""
    item = ShapesDataset(num_scenes=1, task='referring', split='test', pipeline=[])[0]
    path = tmp_path_factory.mktemp('scene') / 'scene.png'
    Image.fromarray(item['img'][..., ::-1]).save(path)
    return str(path), item['img']


def kind_of(cfg: Config) -> tuple[str, str]:
    """Model and, of Gen2Seg, colorer: what decides which functions of ours mmseg calls."""
    return cfg.model.type, cfg.model.get('colorer', {}).get('type', '')


@pytest.fixture(scope='module')
def models() -> dict[tuple, object]:
    """Models that mmseg has built, by kind."""
    return {}


@pytest.mark.parametrize('path', TINY, ids=lambda path: path.stem)
def test_pictures_of_every_tiny_config(path: Path, models: dict, scene: tuple) -> None:
    """The first config of a kind builds its model; with those that follow, the same one reads pictures their way."""
    cfg, (file, pixels) = Config.fromfile(path), scene
    kind = kind_of(cfg)
    if kind in models:
        model = models[kind]
        model.cfg = cfg
    else:
        torch.manual_seed(0)
        model = models[kind] = mmseg.apis.init_model(str(path), device='cpu')
    model.text = 'the red circle'
    single = mmseg.apis.inference_model(model, file)
    key = 'pred_sem_seg' if getattr(model, 'takes_texts', False) else 'pred_color_map'
    key = key if key in single else 'seg_logits'  # mmseg's EncoderDecoder: the colour map
    first = getattr(single, key).data
    assert first.shape[-2:] == (64, 64)
    assert key == 'pred_sem_seg' or first.float().std() > 1  # not one flat colour
    # An array, and after it a file again, are the same picture; mmseg's own models take no file after an array.
    for again in (pixels, [file]) if hasattr(model, 'takes_texts') else (pixels,):
        found = mmseg.apis.inference_model(model, again)
        found = found[0] if isinstance(found, list) else found
        assert torch.equal(getattr(found, key).data, first)


@pytest.mark.parametrize(
    ('name', 'weights'),
    [
        ('genmask/genmask_sana_shapes_long_tiny', 'genmask_sana_shapes'),
        ('gen2seg/gen2seg_unet_shapes_long_tiny', 'gen2seg_unet_shapes'),
    ],
)
def test_shipped_weights_predict_what_the_inferencer_predicts(name: str, weights: str, scene: tuple) -> None:
    config, file = str(ROOT / f'configs/{name}.py'), str(WEIGHTS / f'{weights}.safetensors')
    model = mmseg.apis.init_model(config, file, device='cpu')
    inferencer = GenSegInferencer(config, file, device='cpu')
    if model.takes_texts:
        with pytest.warns(UserWarning, match=r"set model\.text = 'the red circle'"):
            mmseg.apis.inference_model(model, scene[0])
        model.text = 'the leftmost object'
        expected = inferencer(scene[0], texts=model.text)['predictions'][0]['masks'][0]
        found = mmseg.apis.inference_model(model, scene[0]).pred_sem_seg.data[0].numpy().astype(bool)
        assert found.any() and (found == expected).all()
    else:
        expected = inferencer(scene[0])['predictions'][0]['color_map']
        found = mmseg.apis.inference_model(model, scene[0]).pred_color_map.data.permute(1, 2, 0).numpy()
        assert found.std() > 10 and np.abs(found - expected).max() < 1e-3


def test_settings_of_other_segmentors_are_refused() -> None:
    cfg = Config.fromfile(TINY[0])
    cfg.model.train_cfg = dict(a=1)
    from genseg_mm.registry import MODELS

    with pytest.raises(ValueError, match='no setting train_cfg: expected None, but got'):
        MODELS.build(cfg.model)
