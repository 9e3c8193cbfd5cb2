"""The colorers: positions, patch order, sizes, colour scales, saving and loading."""

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from genseg_mm.models.color_scale import normalize_colors, stretch_colors
from genseg_mm.models.colorers import (
    MAEColorer,
    UNetColorer,
    resize_positions,
    sincos_positions,
)

MAE = dict(
    image_size=32,
    patch_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    decoder_hidden_size=8,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=16,
)
UNET = dict(
    sample_size=16,
    block_out_channels=(8, 16),
    layers_per_block=1,
    down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
    up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'),
    norm_num_groups=4,
    attention_head_dim=4,
    cross_attention_dim=8,
)


@pytest.fixture
def mae() -> MAEColorer:
    torch.manual_seed(0)
    return MAEColorer(MAE).eval()


def images(height: int = 32, width: int = 32, num: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(num, 3, height, width, generator=generator) * 2 - 1


# Colour scales


def test_batch_scale_by_hand():
    raw = torch.tensor([[-1.0, 0.0], [2.0, 3.0]]).view(2, 1, 1, 2).expand(2, 3, 1, 2)
    colors = normalize_colors(raw, 'batch')  # (x + 1) / (3 + 1 + 1e-5) * 255
    expected = torch.tensor([[0.0, 63.75], [191.25, 255.0]]).view(2, 1, 1, 2).expand(2, 3, 1, 2)
    assert_close(colors, expected, rtol=0, atol=1e-3)


def test_batch_scale_keeps_the_references_formula_where_all_values_are_positive():
    raw = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    colors = normalize_colors(raw, 'batch')  # (1 + |1|) / (3 + 1) and (3 + |1|) / (3 + 1)
    assert_close(colors[0, 0, 0], torch.tensor([127.5, 255.0]), rtol=0, atol=1e-3)


def test_image_scale_does_not_depend_on_the_batch_and_batch_scale_does():
    raw = images(num=2) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    for scale, couples in (('image', False), ('sigmoid', False), ('none', False), ('batch', True)):
        together, alone = normalize_colors(raw, scale)[:1], normalize_colors(raw[:1], scale)
        assert torch.equal(together, alone) is not couples


def test_sigmoid_scale_by_hand():
    raw = torch.full((1, 3, 1, 1), 2 + math.log(3))
    assert_close(normalize_colors(raw, 'sigmoid', bias=-2.0), torch.full_like(raw, 191.25))


def test_none_scale_takes_raw_values_as_colors():
    raw = images()
    assert torch.equal(normalize_colors(raw, 'none'), raw)


def test_unknown_scale():
    with pytest.raises(ValueError, match="normalize must be one of batch.*but got 'minmax'"):
        normalize_colors(images(), 'minmax')


def test_stretch_by_hand():
    colors = torch.tensor([10.0, 20.0, 50.0]).view(3, 1, 1)
    assert_close(stretch_colors(colors).flatten(), torch.tensor([0.0, 63.75, 255.0]))
    assert_close(stretch_colors(colors, gamma=0.5).flatten(), torch.tensor([0.0, 127.5, 255.0]))
    assert stretch_colors(torch.full((3, 2, 2), 7.0)).abs().max() == 0


# Positions of the ViT-MAE


def test_sincos_positions_by_hand():
    table = sincos_positions(8, 2, 3)[0]  # rows: class, then (y, x) in raster order
    assert table[0].abs().max() == 0
    x, y = 2.0, 1.0  # the last patch; frequencies 1 and 1 / 100
    expected = [
        *(math.sin(x), math.sin(x / 100), math.cos(x), math.cos(x / 100)),
        *(math.sin(y), math.sin(y / 100), math.cos(y), math.cos(y / 100)),
    ]
    assert_close(table[-1], torch.tensor(expected))


def test_fresh_model_has_positions_in_encoder_and_decoder(mae: MAEColorer):
    assert torch.equal(mae.mae.vit.embeddings.position_embeddings, sincos_positions(16, 4, 4))
    assert torch.equal(mae.mae.decoder.decoder_pos_embed, sincos_positions(8, 4, 4))


def test_positions_are_resized_in_two_dimensions():
    table = torch.zeros(1, 17, 2)
    table[0, 0] = 9.0
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing='ij')
    table[0, 1:, 0], table[0, 1:, 1] = columns.flatten(), rows.flatten()
    resized = resize_positions(table, 8, 4)
    assert resized[0, 0].tolist() == [9.0, 9.0]
    grid = resized[0, 1:].view(8, 4, 2)
    assert_close(grid[..., 0], columns[:1].expand(8, 4))  # columns have not moved
    assert_close(grid[..., 1], grid[:, :1, 1].expand(8, 4))  # rows depend on the row alone
    assert (grid[1:, 0, 1] > grid[:-1, 0, 1]).all()
    assert_close(grid[3:5, 0, 1].mean(), torch.tensor(1.5))  # the middle stays in the middle


def test_same_grid_is_not_touched():
    table = sincos_positions(8, 4, 4)
    assert resize_positions(table, 4, 4) is table


# The ViT-MAE


def test_native_size_equals_the_librarys_own_forward_with_ordered_patches(mae: MAEColorer):
    batch = images()
    own = mae(batch)
    pixels = ((batch + 1) / 2 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    noise = torch.arange(16.0).expand(2, 16)
    logits = mae.mae(pixel_values=pixels, noise=noise).logits
    assert_close(own, mae.mae.unpatchify(logits), rtol=1e-5, atol=1e-5)


def test_two_passes_give_the_same_map(mae: MAEColorer):
    batch = images()
    assert torch.equal(mae(batch), mae(batch))


def test_patches_land_where_they_came_from(mae: MAEColorer):
    decoder = mae.mae.decoder
    with torch.no_grad():
        decoder.decoder_pred.weight.zero_()
        decoder.decoder_pred.bias.copy_(torch.arange(8 * 8 * 3.0))  # order (row, column, channel)
    raw = mae(images(num=1))
    assert raw[0, :, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert raw[0, :, 0, 1].tolist() == [3.0, 4.0, 5.0]
    assert raw[0, :, 1, 0].tolist() == [24.0, 25.0, 26.0]
    assert torch.equal(raw[..., :8, :8], raw[..., 24:, 8:16])


@pytest.mark.parametrize('size', [(32, 64), (64, 32), (16, 24)])
def test_other_sizes_see_two_dimensional_positions(mae: MAEColorer, size: tuple[int, int]):
    """On a flat image only positions differ: a transposed model gives the transposed map."""
    flat = torch.full((1, 3, *size), 0.3)
    raw = mae(flat)
    patches = raw.unfold(2, 8, 8).unfold(3, 8, 8).mean((-1, -2))  # (1, 3, rows, columns)
    for module, key in (
        (mae.mae.vit.embeddings, 'position_embeddings'),
        (mae.mae.decoder, 'decoder_pos_embed'),
    ):
        table = getattr(module, key)
        grid = table[:, 1:].view(1, 4, 4, -1).transpose(1, 2).flatten(1, 2)
        table.data.copy_(torch.cat([table[:, :1], grid], 1))
    swapped = mae(flat.transpose(2, 3)).unfold(2, 8, 8).unfold(3, 8, 8).mean((-1, -2))
    assert_close(swapped.transpose(2, 3), patches, rtol=1e-4, atol=1e-5)


def test_every_trainable_parameter_gets_a_finite_gradient(mae: MAEColorer):
    mae(images(32, 48)).square().mean().backward()
    for name, parameter in mae.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    frozen = {name for name, p in mae.named_parameters() if not p.requires_grad}
    assert frozen == {
        'mae.vit.embeddings.position_embeddings',
        'mae.decoder.decoder_pos_embed',
        'mae.decoder.mask_token',
    }


def test_wrong_size_names_both_sides(mae: MAEColorer):
    with pytest.raises(
        ValueError, match='multiples of its patch size 8, but got height 32 and width 36'
    ):
        mae(images(32, 36))


def test_saved_and_loaded_model_gives_the_same_map_at_any_size(mae: MAEColorer, tmp_path: Path):
    mae.save_pretrained(str(tmp_path))
    loaded = MAEColorer(pretrained=str(tmp_path)).eval()
    for batch in (images(), images(48, 32)):
        assert torch.equal(loaded(batch), mae(batch))


def test_folder_without_a_decoder_is_refused(mae: MAEColorer, tmp_path: Path):
    mae.mae.vit.save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match='not a whole ViTMAEForPreTraining'):
        MAEColorer(pretrained=str(tmp_path))


def test_init_weights_keeps_pretrained_weights(mae: MAEColorer):
    before = {name: value.clone() for name, value in mae.state_dict().items()}
    mae.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in mae.state_dict().items())


@pytest.mark.parametrize('arguments', [{}, dict(config=MAE, pretrained='x')])
def test_config_or_pretrained(arguments: dict):
    with pytest.raises(ValueError, match='either config .* or pretrained'):
        MAEColorer(**arguments)


# The UNet


def test_unet_on_an_invertible_latent():
    torch.manual_seed(0)
    colorer = UNetColorer(UNET).eval()
    seen = {}

    def identity(
        latents: torch.Tensor, timesteps: torch.Tensor, encoder_hidden_states: torch.Tensor
    ):
        seen.update(t=timesteps.tolist(), text=encoder_hidden_states, latents=latents)
        return type('Output', (), {'sample': latents})

    batch = images(16, 24)
    colorer.unet.forward = identity
    assert torch.equal(colorer(batch), batch)
    assert seen['t'] == [999, 999]
    assert seen['text'].shape == (2, 1, 8)
    assert seen['text'].abs().max() == 0
    assert seen['latents'].shape == (2, 12, 8, 12)


def test_unet_takes_sizes_that_do_not_halve_evenly():
    torch.manual_seed(0)
    colorer = UNetColorer(UNET).eval()
    raw = colorer(images(18, 26))
    assert raw.shape == (2, 3, 18, 26)
    assert_close(raw[:1], colorer(images(18, 26)[:1]), rtol=1e-4, atol=1e-5)


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
