"""Patches of images against the released image processor."""

import json

import pytest
import torch
from PIL import Image
from tiny_qwen_vl import tiny_image_processor

from genseg_mm.models.prompt_encoders.qwen_vl import QwenVLImages


class VisionConfig:
    patch_size, spatial_merge_size, temporal_patch_size = 4, 2, 2


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth picture, (H, W, 3) uint8: interpolation of noise depends on the last digit."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 4, generator=generator) * 255
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode='bicubic')
    return fine[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8)


def as_input(picture: torch.Tensor) -> torch.Tensor:
    return picture.permute(2, 0, 1)[None].float() / 127.5 - 1


def build(tmp_path, **kwargs) -> QwenVLImages:
    processor = tiny_image_processor(**kwargs)
    processor.save_pretrained(tmp_path)
    return QwenVLImages(str(tmp_path), VisionConfig), processor


def expected(processor, pictures):
    pil = [Image.fromarray(own.numpy()) for own in pictures]
    return processor(pil, return_tensors='pt')


@pytest.mark.parametrize('mean', [[0.48, 0.46, 0.41], [0.5, 0.5, 0.5]])
def test_patches_are_the_processors_where_nothing_is_resized(tmp_path, mean):
    images, processor = build(tmp_path, image_mean=mean)
    pictures = [picture(16, 24, seed) for seed in range(3)]
    patches, grid = images(torch.cat([as_input(own) for own in pictures]))
    library = expected(processor, pictures)
    assert grid.tolist() == library['image_grid_thw'].tolist() == [[1, 4, 6]] * 3
    assert patches.shape == (72, 96)
    torch.testing.assert_close(patches, library['pixel_values'], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    'size, resized', [((20, 27), (16, 24)), ((64, 64), (32, 32)), ((40, 80), (16, 40)), ((6, 6), (8, 8))]
)
def test_resized_patches_are_the_processors_to_one_level(tmp_path, size, resized):
    images, processor = build(tmp_path)
    shown = picture(*size)
    patches, grid = images(as_input(shown))
    library = expected(processor, [shown])
    assert grid.tolist() == library['image_grid_thw'].tolist()
    assert grid[0, 1:].tolist() == [resized[0] // 4, resized[1] // 4]
    one_level = 1 / 255 / min(processor.image_std)
    # PIL counts in fixed point, so values half way between two levels may fall to the other side.
    error = (patches - library['pixel_values']).abs()
    assert error.max() <= 1.01 * one_level
    assert (error > 1e-5).float().mean() <= 0.01


def test_bounds_of_the_config_win(tmp_path):
    build(tmp_path)
    images = QwenVLImages(str(tmp_path), VisionConfig, min_pixels=256, max_pixels=256)
    assert images(as_input(picture(32, 32)))[1].tolist() == [[1, 4, 4]]
    assert images(as_input(picture(8, 8)))[1].tolist() == [[1, 4, 4]]
    assert images.pixels_per_token == 8


def test_mistakes_are_named(tmp_path):
    images, _ = build(tmp_path)
    with pytest.raises(ValueError, match='200 times longer than wide'):
        images(torch.zeros(1, 3, 1, 201))
    with pytest.raises(ValueError, match='min_pixels must not exceed max_pixels, but got 9 and 8'):
        QwenVLImages(str(tmp_path), VisionConfig, min_pixels=9, max_pixels=8)
    tiny_image_processor(patch_size=14).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r'\(4, 2, 2\) as in the model, but got \(14, 2, 2\)'):
        QwenVLImages(str(tmp_path), VisionConfig)


CLIP = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
HALF = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)


@pytest.mark.parametrize(
    'patch, bounds, statistics, kind, grid',
    [
        # Qwen2.5-VL: 28 pixels per token, 512 -> 504; Qwen3-VL: 32 pixels per token.
        (14, dict(min_pixels=3136, max_pixels=12845056), CLIP, 'Qwen2VLImageProcessor', 36),
        (16, dict(size=dict(shortest_edge=65536, longest_edge=16777216)), HALF, 'Qwen2VLImageProcessorFast', 32),
    ],
)
def test_released_files_are_understood(tmp_path, patch, bounds, statistics, kind, grid):
    content = dict(patch_size=patch, merge_size=2, temporal_patch_size=2, image_processor_type=kind)
    path = tmp_path / 'preprocessor_config.json'
    path.write_text(json.dumps({**content, **bounds, **statistics}))
    model = VisionConfig()
    model.patch_size = patch
    images = QwenVLImages(str(tmp_path), model)
    limits = bounds.get('size', bounds)
    assert [images.min_pixels, images.max_pixels] == list(limits.values())
    patches, found = images(torch.ones(1, 3, 512, 512))  # white
    assert found.tolist() == [[1, grid, grid]]
    assert patches.shape == (grid * grid, 3 * 2 * patch * patch)
    white = [(1 - mean) / std for mean, std in zip(*statistics.values(), strict=True)]
    per_channel = patches.unflatten(1, (3, -1))
    torch.testing.assert_close(per_channel.amax((0, 2)), torch.tensor(white))
    torch.testing.assert_close(per_channel.amin((0, 2)), torch.tensor(white))
