"""Generative pretraining: the losses by hand, the same draw for the same iteration, weights that Gen2Seg takes."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from tiny_models import MAE_COLORER, UNET_COLORER
from torch.nn import functional as F

from genseg_mm.registry import MODELS

MAE = dict(MAE_COLORER, config=dict(MAE_COLORER['config'], image_size=16))
UNET = UNET_COLORER


def build(colorer: dict, **settings):
    torch.manual_seed(0)
    return MODELS.build(dict(type='genseg_mm.GenerativePretraining', colorer=colorer, **settings))


@pytest.fixture(autouse=True)
def iteration():
    hub = MessageHub.get_current_instance()
    hub.update_info('seed', 3)
    hub.update_info('iter', 5)
    yield hub
    hub.update_info('iter', 0)


def images(num: int = 2):
    return torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_reconstruction_is_the_error_of_the_hidden_patches():
    model, inputs = build(MAE, mask_ratio=0.75), images()
    seen = {}

    def remember(pixel_values, noise):
        seen['output'] = own_forward(pixel_values=pixel_values, noise=noise)
        seen['pixels'] = pixel_values
        return seen['output']

    own_forward = model.colorer.mae.forward
    model.colorer.mae.forward = remember
    loss = model(inputs, mode='loss')['loss_reconstruction']
    mask, predicted = seen['output'].mask, seen['output'].logits
    assert mask.sum(1).tolist() == [12, 12]  # of 16 patches
    pixels = ((inputs + 1) / 2 - model.colorer.mean) / model.colorer.std
    torch.testing.assert_close(seen['pixels'], pixels)
    patches = pixels.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).reshape(2, 16, 48)
    error = ((predicted - patches) ** 2).mean(-1)
    torch.testing.assert_close(loss, (error * mask).sum() / 24)
    loss.backward()
    assert model.colorer.mae.decoder.mask_token.grad.abs().sum() > 0


def test_denoising_of_a_perfect_network_costs_nothing():
    model, inputs = build(UNET), images(4)
    latents = F.pixel_unshuffle(inputs, 2)

    class Oracle(torch.nn.Module):
        def forward(self, noisy, timesteps, encoder_hidden_states):
            alpha = model.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
            noise = (noisy - alpha.sqrt() * latents) / (1 - alpha).sqrt()
            return SimpleNamespace(sample=alpha.sqrt() * noise - (1 - alpha).sqrt() * latents)

    trained = model.colorer.unet
    assert model(inputs, mode='loss')['loss_denoising'] > 0.1
    model.colorer.unet = Oracle()
    assert model(inputs, mode='loss')['loss_denoising'] < 1e-8
    model.colorer.unet = trained


def test_schedule_is_stable_diffusions():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012)
    torch.testing.assert_close(build(UNET).alphas_cumprod, scheduler.alphas_cumprod)


@pytest.mark.parametrize('colorer', [MAE, UNET], ids=['mae', 'unet'])
def test_draw_follows_the_iteration(colorer, iteration):
    model, inputs = build(colorer), images()
    first = sum(model(inputs, mode='loss').values())
    assert sum(model(inputs, mode='loss').values()) == first
    iteration.update_info('iter', 6)
    assert sum(model(inputs, mode='loss').values()) != first


@pytest.mark.parametrize('colorer', [MAE, UNET], ids=['mae', 'unet'])
def test_weights_fit_gen2seg(colorer):
    pretrained = build(colorer).state_dict()
    model = MODELS.build(dict(type='genseg_mm.Gen2Seg', colorer=colorer))
    assert model.load_state_dict(pretrained, strict=True).missing_keys == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, pretrained[name]), name


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r'mask_ratio must lie in \(0, 1\), but got 1'):
        build(MAE, mask_ratio=1)
    with pytest.raises(ValueError, match='but got InstanceColoringLoss'):
        build(dict(type='genseg_mm.InstanceColoringLoss'))
    with pytest.raises(ValueError, match='own size 16x16, but got images of'):
        build(MAE)(torch.zeros(1, 3, 16, 32), mode='loss')
    with pytest.raises(ValueError, match="no mode but 'loss', but got 'predict'"):
        build(MAE)(images(), mode='predict')
