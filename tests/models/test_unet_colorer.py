"""The UNet colorer: sizes, saving and loading, memory switch."""

from pathlib import Path

import pytest
import torch
from tiny_models import UNET_COLORER
from tiny_released import images
from torch.testing import assert_close

from genseg_mm.models.colorers import UNetColorer

UNET = dict(UNET_COLORER['config'], sample_size=16)


def test_unet_on_an_invertible_latent():
    torch.manual_seed(0)
    colorer = UNetColorer(UNET).eval()
    seen = {}

    def identity(latents: torch.Tensor, timesteps: torch.Tensor, encoder_hidden_states: torch.Tensor):
        seen.update(t=timesteps.tolist(), text=encoder_hidden_states, latents=latents)
        return type('Output', (), {'sample': latents})

    batch = images(16, 24, 2)
    colorer.unet.forward = identity
    assert torch.equal(colorer(batch), batch)
    assert seen['t'] == [999, 999]
    assert seen['text'].shape == (2, 1, 8)
    assert seen['text'].abs().max() == 0
    assert seen['latents'].shape == (2, 12, 8, 12)


def test_unet_takes_sizes_that_do_not_halve_evenly():
    torch.manual_seed(0)
    colorer = UNetColorer(UNET).eval()
    batch = images(18, 26, 2)
    raw = colorer(batch)
    assert raw.shape == (2, 3, 18, 26)
    assert_close(raw[:1], colorer(batch[:1]), rtol=1e-4, atol=1e-5)


def test_unet_wrong_size_and_channels():
    colorer = UNetColorer(UNET)
    with pytest.raises(ValueError, match='patch size 2, but got height 17 and width 16'):
        colorer(images(17, 16))
    with pytest.raises(ValueError, match=r'in_channels of UNetColorer must be .* = 12, but got 4'):
        UNetColorer(dict(UNET, in_channels=4))


def test_unet_folder_loads_in_diffusers(tmp_path: Path):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    colorer = UNetColorer(UNET).eval()
    batch = images(16, 16)
    expected = colorer(batch)
    colorer.save_pretrained(str(tmp_path))
    colorer.unet = UNet2DConditionModel.from_pretrained(str(tmp_path)).eval()
    assert torch.equal(colorer(batch), expected)


def test_unet_works_at_the_size_of_its_training():
    """The longer side to sample_size patches; without one, the picture's own."""
    assert UNET['sample_size'] == 16
    assert UNetColorer(UNET).network_resize() == dict(longer_side=32, multiples=(2, 2))
    assert UNetColorer(UNET).network_resize(0) == dict(longer_side=0, multiples=(2, 2))
    oblong = UNetColorer({**UNET, 'sample_size': [12, 16]})
    assert oblong.network_resize() == dict(size=(24, 32))
    native = UNetColorer({**UNET, 'sample_size': None}, patch_size=4)
    assert native.network_resize() == dict(longer_side=0, multiples=(4, 4))


def test_unet_gradient_checkpointing_changes_no_number():
    batch, results = images(16, 16), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        colorer, calls = UNetColorer(UNET, gradient_checkpointing=checkpointing).train(), []
        block = colorer.unet.down_blocks[0].resnets[0]
        block.register_forward_pre_hook(lambda *_, c=calls: c.append(1))
        raw = colorer(batch)
        raw.square().mean().backward()
        assert len(calls) == (2 if checkpointing else 1)
        results.append((raw.detach(), [p.grad for p in colorer.parameters()]))
    assert torch.equal(results[0][0], results[1][0])
    for plain, recomputed in zip(results[0][1], results[1][1], strict=True):
        assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)
