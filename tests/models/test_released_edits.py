"""Pictures edited by GenMask's parts against whole diffusers pipelines: the input image is a condition, as of a mask.

Same folder, text, image and noise: what a pipeline does with the image (its latents, its place among the tokens, what
the text encoder sees of it) is fixed by value.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from test_released_text_to_image import SHIFT, of_folder
from tiny_qwen_vl import tiny_image_processor
from tiny_released_dits import make_pipeline
from transformers import BatchFeature

from genseg_mm.functional.flow_matching import euler_solve
from genseg_mm.models.base import draw_noise, seeded_generator
from genseg_mm.registry import MODELS

TEXT, STEPS, SIZE = 'the red circle', 3, (64, 96)


class QwenVLProcessor:
    """``transformers.Qwen2_5_VLProcessor`` without its part for videos, which needs torchvision."""

    def __init__(self, tokenizer):
        self.tokenizer, self.images = tokenizer, tiny_image_processor(max_pixels=64 * 96)

    def __call__(self, text, images, **kwargs):
        patches = self.images(images=images, return_tensors='pt')
        num = int(patches['image_grid_thw'][0].prod()) // 4
        text = [own.replace('<|image_pad|>', '<|image_pad|>' * num) for own in text]
        return BatchFeature({**self.tokenizer(text, **kwargs), **patches})


@pytest.fixture(scope='module')
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8))


def edited(model, picture):
    """The edited picture, (1, 3, H, W) in [-1, 1], and its noise."""
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    latents = model.codec.encode(image)
    noise = draw_noise(latents.shape[1:], [seeded_generator(0, 0)])
    with torch.no_grad():
        prompt = model.prompt_encoder([TEXT], image)
        found = euler_solve(lambda *noisy: model.backbone(*noisy, prompt, latents), noise, STEPS, SHIFT)
        return model.codec.decode(found), noise


def difference(pipeline, model, picture, pack=lambda noise: noise, **arguments):
    ours, noise = edited(model, picture)
    theirs = pipeline(
        image=picture,
        prompt=TEXT,
        latents=pack(noise),
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=STEPS,
        output_type='pt',
        return_dict=False,
        **arguments,
    )[0]
    assert theirs.std() > 0.02
    return ((ours.clamp(-1, 1) + 1) / 2 - theirs).abs().max().item()


def test_flux2_klein(tmp_path, picture):
    pipeline = make_pipeline('flux2', tmp_path / 'released', SHIFT)
    model = MODELS.build(of_folder('flux2', tmp_path / 'released')).eval()
    found = difference(pipeline, model, picture, guidance_scale=1.0)
    print(f'flux2: {found:.2g}')
    assert found < 2e-5


def test_qwen_image_edit(tmp_path, picture, monkeypatch):
    from diffusers import QwenImageEditPlusPipeline
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus

    parts = make_pipeline('qwen_image_edit', tmp_path / 'released', SHIFT).components
    tiny_image_processor(max_pixels=64 * 96).save_pretrained(tmp_path / 'released/processor')
    parts['tokenizer'].save_pretrained(tmp_path / 'released/processor')
    pipeline = QwenImageEditPlusPipeline(**parts, processor=QwenVLProcessor(parts['tokenizer']))
    pipeline.set_progress_bar_config(disable=True)
    before = pipeline.prompt_template_encode.split('{}')[0]  # 64 tokens with the released tokenizer
    pipeline.prompt_template_encode_start_idx = len(parts['tokenizer'](before).input_ids)
    for area in ('CONDITION_IMAGE_SIZE', 'VAE_IMAGE_SIZE'):  # the picture's own
        monkeypatch.setattr(pipeline_qwenimage_edit_plus, area, SIZE[0] * SIZE[1])
    # The installed pipeline leaves out which tokens are the image's, and with it their rows and columns.
    encode = pipeline.text_encoder.forward
    image_token = pipeline.text_encoder.config.image_token_id
    monkeypatch.setattr(
        pipeline.text_encoder,
        'forward',
        lambda input_ids, **inputs: encode(input_ids, mm_token_type_ids=(input_ids == image_token).long(), **inputs),
    )
    model = MODELS.build(of_folder('qwen_image_edit', tmp_path / 'released')).eval()
    assert model.prompt_encoder.text_chat.prefix != model.prompt_encoder.chat.prefix  # captions: as Qwen-Image

    def pack(noise):
        return pipeline._pack_latents(noise, *noise.shape)

    found = difference(pipeline, model, picture, pack, true_cfg_scale=1.0)
    print(f'qwen_image_edit: {found:.2g}')
    assert found < 2e-5
