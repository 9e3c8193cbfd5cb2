"""The one place that says in which precision a model is evaluated."""

import pytest
import torch

from genseg_mm.config_file import read_config_file
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models import LatentCodec
from genseg_mm.precision import evaluation_autocast, evaluation_dtype


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        (dict(), None),
        (dict(optim_wrapper=None), None),
        (dict(optim_wrapper=dict(type='OptimWrapper')), None),
        (dict(optim_wrapper=dict(type='genseg_mm.AutocastOptimWrapper')), torch.bfloat16),
        (dict(optim_wrapper=dict(type='AmpOptimWrapper')), torch.float16),
        (dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16')), torch.bfloat16),
        (dict(optim_wrapper=dict(type='AmpOptimWrapper'), evaluation_dtype='float32'), None),
        (dict(evaluation_dtype=torch.float16), torch.float16),
    ],
)
def test_it_follows_from_the_config(config, expected):
    assert evaluation_dtype(config) is expected
    with evaluation_autocast(config, 'cpu'):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (expected or torch.float32)


def test_wrong_names_are_refused():
    with pytest.raises(
        ValueError, match="evaluation_dtype: expected one of float32, bfloat16, float16, but got 'half'"
    ):
        evaluation_dtype(dict(evaluation_dtype='half'))


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ('genmask/refcoco.py', torch.bfloat16),
        ('genmask/genmask_sana_shapes_tiny.py', None),
        ('gen2seg/gen2seg_unet_shapes_tiny.py', None),
    ],
)
def test_shipped_configs(config, expected):
    assert evaluation_dtype(read_config_file(f'configs/{config}')) is expected


def test_decoding_without_gradients_keeps_the_autoencoders_precision():
    codec = LatentCodec(dict(type='genseg_mm.PatchCodec'))
    latents = torch.randn(1, codec.latent_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = codec.decode(latents)
    with torch.autocast('cpu', torch.bfloat16):
        with torch.no_grad():
            assert torch.equal(codec.decode(latents), plain)
        assert (codec.decode(latents) - plain).abs().max() > 1e-4  # as a loss in pixel space trains


def test_the_inferencer_runs_in_it():
    cfg = read_config_file('configs/genmask/genmask_sana_shapes_tiny.py')
    image = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    found = []
    with pytest.warns(UserWarning, match='no weights'):
        inferencer = GenSegInferencer(cfg, device='cpu')
    types: list[torch.dtype] = []
    inferencer.model.backbone.output_layer.register_forward_hook(lambda *args: types.append(args[-1].dtype))
    for dtype in (None, 'bfloat16', 'float32'):
        inferencer.cfg.evaluation_dtype = dtype
        inferencer(image, texts='the red circle')
        inferencer(texts='a red circle', task='generate', num_steps=1, guidance_scale=1.0)
        found.append(types.copy())
        types.clear()
    assert found == [[torch.float32] * 2, [torch.bfloat16] * 2, [torch.float32] * 2]
