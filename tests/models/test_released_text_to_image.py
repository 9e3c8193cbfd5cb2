"""``GenMask.generate`` against whole diffusers pipelines, with the encoders that the full-size configs name.

Same folder, texts and noise: what a pipeline does from the words to the pixels (templates, lengths, padding, hidden
states, pooled vectors, guidance, noise levels, scaling of latents) is fixed by value.
"""

import math
import shutil
from inspect import signature

import numpy as np
import pytest
import torch
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from mmengine.config import Config
from tiny_released_dits import PIPELINES, make_pipeline

from genseg_mm.models.base import draw_noise, seeded_generator
from genseg_mm.registry import MODELS

CONFIGS = dict(
    sana='sana-1.6b',
    sd3='sd3.5-medium',
    flux='flux',
    flux_kontext='flux-kontext',
    pixart='pixart-sigma',
    z_image='z-image',
    flux2='flux2-klein',
    qwen_image='qwen-image',
    qwen_image_edit='qwen-image-edit',
    wan='wan2.1-1.3b_umt5',
)
# Of different lengths; large letters and space around them count, or do not.
TEXTS = ['A cat', '  two Blue squares, beside the red circle of the left shape ', 'é']
NEGATIVE = 'Blurred'
STEPS, SHIFT = 3, 3.0
SIZE = (64, 96)


def of_folder(family: str, folder, **changes) -> Config:
    """Model of the family's full-size config, with the folder in place of the released one, in float32."""
    config = Config.fromfile(f'configs/genmask/refcoco_{CONFIGS[family]}.py')

    def moved(value):
        if isinstance(value, dict):
            return {key: moved(own) for key, own in value.items()}
        if isinstance(value, (list, tuple)):
            return [moved(own) for own in value]
        return {config.released: str(folder), 'bfloat16': 'float32'}.get(value, value) if value else value

    return Config(dict(model=moved(config.model.to_dict()))).model


def size_of(family):
    return (64, 128) if family == 'sana' else SIZE


def arguments(family: str, scale: float) -> dict:
    """What makes a family's pipeline guide by a scale of ours."""
    common = dict(prompt=list(TEXTS), num_inference_steps=STEPS, output_type='pt', return_dict=False)
    common['height'], common['width'] = size_of(family)
    if family in ('sd3', 'pixart', 'sana'):  # their default takes other steps
        common['sigmas'] = np.linspace(1, 1 / STEPS, STEPS).tolist()
    if family == 'flux_kontext':
        common.update(_auto_resize=False, max_area=SIZE[0] * SIZE[1])
    if family in ('flux', 'flux_kontext'):  # guidance_scale is an input of the network
        common.update(guidance_scale=1.0, true_cfg_scale=scale, negative_prompt=[NEGATIVE] * len(TEXTS))
    elif family == 'qwen_image':
        common.update(true_cfg_scale=scale, negative_prompt=[NEGATIVE] * len(TEXTS))
    elif family == 'flux2':  # it guides away from the empty prompt
        common.update(guidance_scale=scale)
    elif family == 'z_image':
        common.update(guidance_scale=scale - 1, negative_prompt=[NEGATIVE] * len(TEXTS))
    else:
        common.update(guidance_scale=scale, negative_prompt=[NEGATIVE] * len(TEXTS))
    if family in ('sana', 'pixart'):
        common.update(use_resolution_binning=False, clean_caption=False, negative_prompt=NEGATIVE)
    if family == 'wan':
        common.update(num_frames=1)
    if family == 'sana':
        common.update(complex_human_instruction=None, timesteps=None)
    return common


def pipeline_noise(pipeline, family, noise):
    if family == 'wan':
        return noise[:, :, None]
    if family == 'flux2' or not hasattr(pipeline, '_pack_latents'):
        return noise
    return pipeline._pack_latents(noise, *noise.shape)


def largest_difference(pipeline, model, family, scale=1.0, shift=SHIFT, **changes):
    """Between the pipeline's pictures and ours, in [0, 1]; and how far the noise is moved."""
    generators = [seeded_generator(0, index) for index in range(len(TEXTS))]
    size = size_of(family)
    latents = draw_noise(
        (model.backbone.latent_channels, *(side // model.codec.downsample for side in size)), generators
    )
    given = {**arguments(family, scale), **changes}
    theirs = pipeline(**given, latents=pipeline_noise(pipeline, family, latents))[0]
    theirs = theirs[:, 0] if theirs.ndim == 5 else theirs  # of one frame
    negative = '' if family == 'flux2' else NEGATIVE
    ours = model.generate(TEXTS, size, STEPS, scale, negative_text=negative, shift=shift)
    assert theirs.std() > 0.02 and (theirs[0] - theirs[2]).abs().max() > 0.02
    return ((ours + 1) / 2 - theirs).abs().max().item()


@pytest.fixture(scope='module', params=sorted(PIPELINES))
def released(request, tmp_path_factory):
    family = request.param
    folder = tmp_path_factory.mktemp(family) / 'released'
    pipeline = make_pipeline(family, folder, SHIFT)
    return family, pipeline, folder, MODELS.build(of_folder(family, folder)).eval()


@pytest.mark.parametrize('scale', [1.0, 4.0])
def test_pictures_are_the_pipeline_s(released, scale):
    family, pipeline, _, model = released
    assert not model.backbone.new_layers or family in ('sana', 'sd3', 'pixart')  # no fresh text projection
    assert not set(model.backbone.new_layers) & set(model.backbone.family.text_projection)
    difference = largest_difference(pipeline, model, family, scale)
    print(f'{family}, guidance {scale:g}: {difference:.2g}')
    assert difference < (2e-4 if family == 'z_image' else 2e-5)  # that rounds its time, times 1000


@pytest.mark.parametrize('released', ['sana'], indirect=True)
def test_instruction_of_sana(released):
    family, pipeline, folder, _ = released
    config = of_folder(family, folder)
    config.prompt_encoder.instruction = 'sana'
    model = MODELS.build(config).eval()
    instruction = signature(type(pipeline).__call__).parameters['complex_human_instruction'].default
    # Negative prompts go without it.
    assert largest_difference(pipeline, model, family, 4.0, complex_human_instruction=instruction) < 2e-5
    # Of the instruction the first and the last token stay.
    counts = model.prompt_encoder(['ab', '']).mask.sum(1).tolist()
    assert counts == [4, 1]
    assert model.prompt_encoder(['a' * 400]).mask.sum(1).tolist() == [300]


@pytest.mark.parametrize('released', ['flux_kontext'], indirect=True)
def test_guidance_that_flux_takes_as_an_input(released):
    family, pipeline, folder, plain = released
    config = of_folder(family, folder)
    config.backbone.embedded_guidance = 3.5
    model = MODELS.build(config).eval()
    assert largest_difference(pipeline, model, family, guidance_scale=3.5) < 2e-5
    assert largest_difference(pipeline, plain, family, guidance_scale=3.5) > 1e-3


@pytest.mark.parametrize('released', ['flux', 'flux2'], indirect=True)
def test_shift_of_flux_by_the_number_of_its_tokens(released):
    family, pipeline, _, model = released
    static = pipeline.scheduler
    pipeline.scheduler = type(static).from_config(static.config, use_dynamic_shifting=True)
    tokens = SIZE[0] * SIZE[1] // 16**2
    shift = math.exp(0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256))
    if family == 'flux2':
        shift = math.exp(compute_empirical_mu(tokens, STEPS))
    difference = largest_difference(pipeline, model, family, shift=shift)
    pipeline.scheduler = static
    assert difference < 2e-5


@pytest.mark.parametrize('released', ['sd3'], indirect=True)
def test_sd3_without_its_t5(released):
    family, pipeline, folder, _ = released
    config = of_folder(family, folder)
    t5 = config.prompt_encoder.parts.pop()
    with pytest.raises(ValueError, match='states of width 28, but the transformer takes 32'):
        MODELS.build(config)
    config.prompt_encoder.update(width=32, length=333)
    model = MODELS.build(config).eval()
    whole = pipeline.text_encoder_3
    pipeline.text_encoder_3 = None
    difference = largest_difference(pipeline, model, family)
    pipeline.text_encoder_3 = whole
    assert difference < 2e-5
    assert model.prompt_encoder(TEXTS).mask.sum(1).tolist() == [77] * 3

    shutil.move(folder / 'text_encoder_3', folder.parent / 'elsewhere')
    with pytest.raises(FileNotFoundError, match="expected a subfolder 'text_encoder_3', but got .*'text_encoder_2'"):
        MODELS.build(t5)
    shutil.move(folder.parent / 'elsewhere', folder / 'text_encoder_3')


def test_longer_prompts_are_cut_where_the_pipeline_cuts_them(released):
    family, pipeline, _, model = released
    long = [word * 90 for word in ('left ', 'two Circles ', 'blue-')]
    with torch.no_grad():
        theirs = encoded(pipeline, family, long)
        ours = model.prompt_encoder(long)
    for index, states in enumerate(theirs[0]):
        torch.testing.assert_close(ours.states[index][ours.mask[index]], states, rtol=0, atol=1e-5)
    if theirs[1] is not None:
        torch.testing.assert_close(ours.pooled, theirs[1], rtol=0, atol=1e-5)


def encoded(pipeline, family, texts):
    """The pipeline's states of each prompt, real ones alone where it has a mask; and the pooled vectors."""
    if family == 'z_image':
        return pipeline.encode_prompt(list(texts), do_classifier_free_guidance=False)[0], None
    if family == 'sd3':
        found = pipeline.encode_prompt(texts, None, None, do_classifier_free_guidance=False)
        return found[0], found[2]
    if family == 'flux2':
        return pipeline.encode_prompt(texts)[0], None
    if family == 'wan':
        states = pipeline.encode_prompt(texts, do_classifier_free_guidance=False, max_sequence_length=512)[0]
        return [own[own.any(-1)] for own in states], None
    if family == 'qwen_image':
        states, mask = pipeline.encode_prompt(texts)
        return [own[real.bool()] for own, real in zip(states, mask, strict=True)], None
    if family.startswith('flux'):
        return pipeline.encode_prompt(texts)[:2]
    states, mask = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)[:2]
    return [own[real.bool()] for own, real in zip(states, mask, strict=True)], None
