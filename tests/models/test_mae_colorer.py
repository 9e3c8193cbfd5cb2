"""The ViT-MAE colorer: positions, patch order, sizes, parity with the released pipeline, saving and loading."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_released import images, make_mae_folder
from torch.testing import assert_close

from genseg_mm.models import MAEColorer, load_released
from genseg_mm.models.colorers import IMAGENET_MEAN, IMAGENET_STD, resize_positions, sincos_positions

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


@pytest.fixture
def mae() -> MAEColorer:
    torch.manual_seed(0)
    return MAEColorer(MAE).eval()


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
    batch = images(32, 32, 2)
    own = mae(batch)
    pixels = ((batch + 1) / 2 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    noise = torch.arange(16.0).expand(2, 16)
    logits = mae.mae(pixel_values=pixels, noise=noise).logits
    assert_close(own, mae.mae.unpatchify(logits), rtol=1e-5, atol=1e-5)


def test_two_passes_give_the_same_map(mae: MAEColorer):
    batch = images(32, 32, 2)
    assert torch.equal(mae(batch), mae(batch))


def test_patches_land_where_they_came_from(mae: MAEColorer):
    decoder = mae.mae.decoder
    with torch.no_grad():
        decoder.decoder_pred.weight.zero_()
        decoder.decoder_pred.bias.copy_(torch.arange(8 * 8 * 3.0))  # order (row, column, channel)
    raw = mae(images(32, 32))
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
    for module, key in ((mae.mae.vit.embeddings, 'position_embeddings'), (mae.mae.decoder, 'decoder_pos_embed')):
        table = getattr(module, key)
        grid = table[:, 1:].view(1, 4, 4, -1).transpose(1, 2).flatten(1, 2)
        table.data.copy_(torch.cat([table[:, :1], grid], 1))
    swapped = mae(flat.transpose(2, 3)).unfold(2, 8, 8).unfold(3, 8, 8).mean((-1, -2))
    assert_close(swapped.transpose(2, 3), patches, rtol=1e-4, atol=1e-5)


def test_every_trainable_parameter_gets_a_finite_gradient(mae: MAEColorer):
    mae(images(32, 48, 2)).square().mean().backward()
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
    with pytest.raises(ValueError, match='multiples of its patch size 8, but got height 32 and width 36'):
        mae(images(32, 36))


def test_saved_and_loaded_model_gives_the_same_map_at_any_size(mae: MAEColorer, tmp_path: Path):
    mae.save_pretrained(str(tmp_path))
    loaded = MAEColorer(pretrained=str(tmp_path)).eval()
    for batch in (images(32, 32, 2), images(48, 32, 2)):
        assert torch.equal(loaded(batch), mae(batch))


def test_folder_without_a_decoder_is_refused(mae: MAEColorer, tmp_path: Path):
    mae.mae.vit.save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match='lacks weights of 24 keys such as decoder'):
        MAEColorer(pretrained=str(tmp_path))


def test_init_weights_keeps_pretrained_weights(mae: MAEColorer):
    before = {name: value.clone() for name, value in mae.state_dict().items()}
    mae.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in mae.state_dict().items())


@pytest.mark.parametrize('arguments', [{}, dict(config=MAE, pretrained='x')])
def test_config_or_pretrained(arguments: dict):
    with pytest.raises(ValueError, match='either config .* or pretrained'):
        MAEColorer(**arguments)


def test_size_of_the_network_is_the_models_own(mae: MAEColorer):
    assert mae.network_resize() == dict(size=(32, 32), method='bilinear')


def test_gradient_checkpointing_changes_no_number():
    batch, results = images(32, 48), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        colorer, calls = MAEColorer(MAE, gradient_checkpointing=checkpointing).train(), []
        for layer in (colorer.mae.vit.layers[0], colorer.mae.decoder.decoder_layers[0]):
            part = layer.attention
            part.register_forward_pre_hook(lambda *_, c=calls: c.append(1))
        raw = colorer(batch)
        raw.square().mean().backward()
        assert len(calls) == (4 if checkpointing else 2)
        results.append((raw.detach(), [p.grad for p in colorer.parameters() if p.requires_grad]))
    assert torch.equal(results[0][0], results[1][0])
    for plain, recomputed in zip(results[0][1], results[1][1], strict=True):
        assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)


# Parity with the released inference pipeline


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mae_folder(tmp_path_factory.mktemp('released') / 'mae')


def bicubic(size: int, num: int) -> np.ndarray:
    """Matrix (num, size) of bicubic interpolation, a = -0.75, half-pixel centres, edges repeated."""
    weights, a = np.zeros((num, size)), -0.75
    for row in range(num):
        x = (row + 0.5) * size / num - 0.5
        for tap in range(math.floor(x) - 1, math.floor(x) + 3):
            d = abs(x - tap)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            weights[row, min(max(tap, 0), size - 1)] += near if d <= 1 else far
    return weights


def table_by_hand(table: torch.Tensor, height: int, width: int) -> torch.Tensor:
    side = math.isqrt(table.shape[1] - 1)
    grid = table[0, 1:].detach().double().numpy().reshape(side, side, -1)
    grid = np.einsum('yi,xj,ijd->yxd', bicubic(side, height), bicubic(side, width), grid)
    patches = torch.from_numpy(grid.reshape(1, height * width, -1)).float()
    return torch.cat([table[:, :1].detach(), patches], 1)


def color_map_by_hand(folder: Path, batch: torch.Tensor) -> torch.Tensor:
    """transformers' own forward with ordered noise and 2-D positions, then the pipeline's stretch."""
    from transformers import ViTMAEForPreTraining

    mae = ViTMAEForPreTraining.from_pretrained(str(folder), mask_ratio=0.0).eval()
    height, width = (side // 16 for side in batch.shape[-2:])
    encoder = table_by_hand(mae.vit.embeddings.position_embeddings, height, width)
    decoder = table_by_hand(mae.decoder.decoder_pos_embed, height, width)
    mae.vit.embeddings.interpolate_pos_encoding = lambda *_: encoder
    mae.decoder.interpolate_pos_encoding = lambda *_: decoder
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    noise = torch.arange(height * width).float().expand(len(batch), -1)
    with torch.no_grad():
        logits = mae(((batch + 1) / 2 - mean) / std, noise=noise, interpolate_pos_encoding=True).logits
    maps = []
    for patches in logits.view(len(batch), height, width, 16, 16, 3):
        rows = [torch.cat(list(row), 1) for row in patches]  # p x (w p) x 3
        maps.append(torch.cat(rows, 0).permute(2, 0, 1))
    raw = torch.stack(maps)
    low = raw.amin((1, 2, 3), keepdim=True)
    high = raw.amax((1, 2, 3), keepdim=True)
    return ((raw - low) / (high - low)) ** 0.7 * 255


@pytest.mark.parametrize('size', [(64, 64), (48, 80), (112, 32)])
def test_color_map_is_that_of_the_librarys_forward(folder: Path, size: tuple[int, int]):
    batch = images(*size, num=2)
    expected = color_map_by_hand(folder, batch)
    results = load_released(str(folder), output='float').predict(batch)
    for result, by_hand in zip(results, expected, strict=True):
        assert (result.pred_color_map.data - by_hand).abs().max() < 2e-2  # of 255 levels


def test_round_trip_is_bit_exact_and_opens_in_transformers(folder: Path, tmp_path: Path):
    from transformers import ViTMAEForPreTraining

    colorer = MAEColorer(pretrained=str(folder))
    frozen = {name for name, p in colorer.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, p in MAEColorer(MAE).named_parameters() if not p.requires_grad}
    with torch.no_grad():
        for parameter in colorer.parameters():
            parameter.mul_(1.5)
    colorer.save_pretrained(str(tmp_path))
    opened, report = ViTMAEForPreTraining.from_pretrained(str(tmp_path), output_loading_info=True)
    assert not report['missing_keys'] | report['unexpected_keys']
    state = colorer.mae.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in opened.state_dict().items())
    source, saved = (load_file(place / 'model.safetensors') for place in (folder, tmp_path))
    assert saved.keys() == source.keys()
    assert all(torch.equal(saved[name], value * 1.5) for name, value in source.items())
    assert opened.config.mask_ratio == 0.75  # all settings stay the source's
    again = MAEColorer(pretrained=str(tmp_path)).state_dict()
    assert all(torch.equal(again[name], value) for name, value in colorer.state_dict().items())


def test_half_precision_weights_are_trained_in_float32(folder: Path, tmp_path: Path):
    from transformers import ViTMAEForPreTraining

    ViTMAEForPreTraining.from_pretrained(str(folder), dtype=torch.float16).save_pretrained(str(tmp_path))
    colorer = MAEColorer(pretrained=str(tmp_path))
    assert {parameter.dtype for parameter in colorer.parameters()} == {torch.float32}


def test_models_of_other_images_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match='image_size 32 and num_channels 1'):
        MAEColorer(dict(MAE, num_channels=1))
    with pytest.raises(ValueError, match='^image_size must be a multiple of the patch size 8, but got 36'):
        MAEColorer(dict(MAE, image_size=36))
    other = Path(shutil.copytree(folder, tmp_path / 'other'))
    config = json.loads((other / 'config.json').read_text())
    (other / 'config.json').write_text(json.dumps({**config, 'model_type': 'vit'}))
    with pytest.raises(ValueError, match="expected model_type 'vit_mae', but got 'vit'"):
        MAEColorer(pretrained=str(other))
