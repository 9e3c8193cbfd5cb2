"""Qwen-VL prompt encoders against transformers' own run of the same conversation; patches against its processor."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_qwen_vl import (
    CLASSES,
    pretrained,
    save_tiny_qwen_vl,
    tiny_image_processor,
    tiny_qwen_vl_settings,
    tiny_tokenizer,
)

from genseg_mm.models.cached_inputs import encoder_manifest
from genseg_mm.models.prompt_encoders import QwenVLPromptEncoder
from genseg_mm.models.prompt_encoders.qwen_vl import QwenVLImages
from genseg_mm.registry import MODELS

SYSTEM = 'Describe the key features.'
TEXTS = ['the red circle', 'a large blue square in the left']


@pytest.fixture(scope='module', params=sorted(CLASSES))
def released(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return save_tiny_qwen_vl(folder, request.param), request.param


def config(released, model=None, **kwargs) -> dict:
    folder, kind = released
    settings = dict(system_prompt=SYSTEM, max_length=64)
    settings.update(encoder=pretrained(folder, kind, **(model or {})), processor=folder)
    return dict(type='genseg_mm.QwenVLPromptEncoder', **{**settings, **kwargs})


def build(released, **kwargs) -> QwenVLPromptEncoder:
    return MODELS.build(config(released, **kwargs)).eval()


def images(num: int = 2, height: int = 16, width: int = 24, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 256, (num, 3, height, width), generator=generator)
    return levels / 127.5 - 1


def reference(released, text: str, image: torch.Tensor | None) -> tuple:
    """All hidden states (one per layer) of transformers' model, and the whole conversation's ids."""
    folder, kind = released
    model, tokenizer = MODELS.build(pretrained(folder, kind)).eval(), tiny_tokenizer()
    shown, inputs = '', {}
    if image is not None:
        levels = ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        inputs = dict(tiny_image_processor()([Image.fromarray(levels)], return_tensors='pt'))
        num = int(inputs['image_grid_thw'].prod()) // 4
        shown = '<|vision_start|>' + '<|image_pad|>' * num + '<|vision_end|>'
    messages = [dict(role='system', content=SYSTEM), dict(role='user', content=shown + text)]
    chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(chat, return_tensors='pt', add_special_tokens=False).input_ids
    types = (ids == model.config.image_token_id).long()
    with torch.no_grad():
        output = model(ids, mm_token_type_ids=types, output_hidden_states=True, **inputs)
    return [states[0] for states in output.hidden_states], ids[0]


def prefix_length(ids: torch.Tensor) -> int:
    """Tokens up to the line break after the second header, that of the user."""
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    header = [i for i, token in enumerate(tokens) if token == '<|im_start|>'][1]
    return tokens.index(tokenizer.tokenize('\n')[0], header) + 1


def test_states_are_those_of_the_library_after_the_prefix(released):
    encoder, shown = build(released), images(1)
    for image in (shown, None):
        states, ids = reference(released, TEXTS[0], None if image is None else image[0])
        prompt = encoder(TEXTS[:1], image)
        prefix = prefix_length(ids)
        assert prefix == len(encoder.chat.prefix)
        assert ids[:prefix].tolist() == encoder.chat.prefix
        assert prompt.states.shape[1] == len(ids) - prefix
        torch.testing.assert_close(prompt.states[0], states[-1][prefix:])
        assert prompt.mask.all()


def test_words_alone_are_encoded_as_in_the_qwen_image_pipeline(released):
    from diffusers import QwenImagePipeline

    folder, kind = released
    pipeline = QwenImagePipeline(
        scheduler=None,
        vae=None,
        text_encoder=MODELS.build(pretrained(folder, kind)).eval(),
        tokenizer=tiny_tokenizer(),
        transformer=None,
    )
    template = pipeline.prompt_template_encode
    system = template.split('system\n')[1].split('<|im_end|>')[0]
    encoder = build(released, system_prompt=system)
    # 34 with the released tokenizer.
    pipeline.prompt_template_encode_start_idx = len(encoder.chat.prefix)
    with torch.no_grad():
        states, mask = pipeline._get_qwen_prompt_embeds(TEXTS, device='cpu')
    prompt = encoder(TEXTS)
    assert torch.equal(prompt.mask, mask.bool())
    torch.testing.assert_close(prompt.states, states)


def test_each_task_has_its_template(released):
    """Captions are not asked what they refer to in an image; a cache of other templates is another one."""
    encoder = build(released, system_prompt=dict(mask=SYSTEM))
    by_default = build(released, system_prompt=None)  # as the tokenizer's template has it
    ids = reference(released, TEXTS[0], images(1)[0])[1]
    assert ids[: prefix_length(ids)].tolist() == encoder.chat.prefix != encoder.text_chat.prefix
    shown = torch.tensor([True, False])
    mixed = encoder(TEXTS, images(2), has_image=shown)
    caption = by_default(TEXTS[1:])
    torch.testing.assert_close(mixed.states[0][: mixed.mask[0].sum()], encoder(TEXTS[:1], images(2)[:1]).states[0])
    torch.testing.assert_close(mixed.states[1][: mixed.mask[1].sum()], caption.states[0])
    torch.testing.assert_close(encoder(TEXTS).states, by_default(TEXTS).states)
    assert (build(released)(TEXTS).states - encoder(TEXTS).states).abs().max() > 1e-2

    def fingerprint(own: QwenVLPromptEncoder) -> str:
        model = torch.nn.Module()
        model.prompt_encoder, model.data_preprocessor = own, torch.nn.Identity()
        return encoder_manifest(model, 'prompt')['fingerprint']

    assert fingerprint(encoder) == fingerprint(build(released, system_prompt=dict(mask=SYSTEM, image=None)))
    assert len({fingerprint(own) for own in (encoder, by_default, build(released))}) == 3


@pytest.mark.parametrize(('layer', 'same'), [(-1, 3), (-2, 2), (2, 2), (3, 3)])
def test_hidden_layer_is_the_librarys(released, layer, same):
    encoder = build(released, hidden_layer=layer)
    states, ids = reference(released, TEXTS[0], images(1)[0])
    got = encoder(TEXTS[:1], images(1)).states[0]
    torch.testing.assert_close(got, states[same][prefix_length(ids) :])
    assert len(encoder.encoder.language_model.layers) == same


def test_a_mixed_batch_equals_the_samples_one_by_one(released):
    encoder, shown = build(released), images(3)
    has_image = torch.tensor([True, False, True])
    texts = ['the red circle', 'a large blue square in the left', 'x']
    together = encoder(texts, shown, has_image=has_image)
    lengths = together.mask.sum(1).tolist()
    for index, text in enumerate(texts):
        own = shown[index : index + 1] if has_image[index] else None
        alone = encoder([text], own)
        assert lengths[index] == alone.states.shape[1]
        torch.testing.assert_close(together.states[index, : lengths[index]], alone.states[0])
        assert together.states[index, lengths[index] :].abs().sum() == 0
        assert together.mask[index].tolist() == [
            position < lengths[index] for position in range(together.mask.shape[1])
        ]


def test_the_image_changes_the_states_and_only_where_it_is_shown(released):
    encoder = build(released)
    one, other = encoder(TEXTS, images(seed=1)), encoder(TEXTS, images(seed=2))
    assert (one.states - other.states).abs()[one.mask].mean() > 0.05
    hidden = torch.tensor([False, False])
    alone = encoder(TEXTS)
    assert torch.equal(encoder(TEXTS, images(seed=1), has_image=hidden).states, alone.states)
    assert torch.equal(encoder(TEXTS, images(seed=2), has_image=hidden).mask, alone.mask)


def test_later_words_do_not_change_earlier_states(released):
    encoder, shown = build(released), images(1)
    short, long = encoder(['the red'], shown), encoder(['the red circle'], shown)
    same = 8 + len(encoder.chat.words('the red'))  # 2 * 3 image tokens between start and end
    torch.testing.assert_close(short.states[0, :same], long.states[0, :same])
    assert (short.states[0, same] - long.states[0, same]).abs().max() > 1e-3


def test_text_is_kept_without_the_image_but_has_seen_it(released):
    everything, words = build(released), build(released, keep='text')
    both, text = everything(TEXTS, images()), words(TEXTS, images())
    assert (both.mask.sum(1) - text.mask.sum(1)).tolist() == [8, 8]
    for index in range(2):
        length = int(text.mask[index].sum())
        torch.testing.assert_close(text.states[index, :length], both.states[index, 8 : 8 + length])
    assert (text.states - words(TEXTS).states).abs().max() > 1e-2


def test_instructions_are_cut_and_padded_to_the_fixed_length(released):
    folder = released[0]
    encoder = build(released, max_length=20, padding='max_length')
    suffix = len(encoder.chat.suffix)
    words = encoder.chat.words(TEXTS[1])
    assert len(words) > 12 - suffix > 0
    prompt = encoder(TEXTS, images())
    assert prompt.states.shape == (2, 20, 32)
    assert prompt.mask[1].all()
    cut = tiny_tokenizer().decode(words[: 12 - suffix])
    torch.testing.assert_close(prompt.states[1], encoder([cut], images()[1:]).states[0])
    empty = encoder(['', ''], images())
    assert empty.mask.sum(1).tolist() == [8 + suffix] * 2
    assert empty.states[:, 8 + suffix :].abs().max() == 0
    with pytest.raises(ValueError, match=r'8 of an image of \(16, 24\), but got 8; raise it'):
        build((folder, released[1]), max_length=8)(TEXTS, images())


def test_special_tokens_in_the_words_are_mere_text(released):
    encoder = build(released)
    text = 'red<|im_end|><|image_pad|>'
    words = encoder.chat.words(text)
    assert not set(words) & set(range(333, 340))
    assert tiny_tokenizer().decode(words) == text
    assert encoder([text], images(1)).mask.sum() == 8 + len(words) + len(encoder.chat.suffix)


def test_a_frozen_model_stays_bit_identical_and_out_of_the_checkpoint(released):
    encoder = build(released)
    before = {name: value.clone() for name, value in encoder.encoder.state_dict().items()}
    scale = torch.nn.Parameter(torch.ones(32))
    optimizer = torch.optim.SGD([scale, *encoder.parameters()], lr=1.0)
    encoder.train()
    states = encoder(TEXTS, images()).states
    (states * scale).sum().backward()
    optimizer.step()
    assert not states.requires_grad and scale.grad.abs().max() > 0
    assert not encoder.encoder.training
    after = encoder.encoder.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert encoder.state_dict() == {}
    assert encoder.load_state_dict({}) == torch.nn.modules.module._IncompatibleKeys([], [])


def test_a_trainable_model_gets_a_gradient_everywhere_with_and_without_images(released):
    encoder = build(released, trainable=True)
    for shown in (images(), None):
        encoder.zero_grad()
        encoder(TEXTS, shown).states.square().sum().backward()
        missing = [name for name, p in encoder.named_parameters() if p.grad is None]
        assert missing == []
    visual = [p.grad.abs().max().item() for p in encoder.encoder.visual.parameters()]
    assert max(visual) == 0
    assert len(encoder.state_dict()) == len(encoder.encoder.state_dict()) > 50


def test_bfloat16(released):
    exact, half = build(released), build(released, model=dict(dtype='bfloat16'))
    got = half(TEXTS, images(), has_image=torch.tensor([True, False]))
    expected = exact(TEXTS, images(), has_image=torch.tensor([True, False]))
    assert got.states.dtype == torch.bfloat16
    assert torch.equal(got.mask, expected.mask)
    error = (got.states.float() - expected.states)[got.mask]
    assert error.pow(2).mean() < 0.01 * expected.states[got.mask].pow(2).mean()


def test_a_pipeline_with_its_parts_in_subfolders(released, tmp_path):
    """As diffusers lays them out: text_encoder, tokenizer, processor."""
    folder, kind = released
    moves = {
        'tokenizer*': 'tokenizer',
        'chat_template*': 'tokenizer',
        'preprocessor_config.json': 'processor',
        '*': 'text_encoder',
    }
    left = set(Path(folder).iterdir())
    for pattern, part in moves.items():
        (tmp_path / part).mkdir(exist_ok=True)
        for file in sorted(left & set(Path(folder).glob(pattern))):
            shutil.copy(file, tmp_path / part)
            left.remove(file)
    parts = dict(tokenizer_kwargs=dict(subfolder='tokenizer'), image_processor_kwargs=dict(subfolder='processor'))
    own = build((str(tmp_path), kind), model=dict(subfolder='text_encoder'), **parts)
    expected, found = build(released)(TEXTS, images()), own(TEXTS, images())
    assert torch.equal(found.states, expected.states) and torch.equal(found.mask, expected.mask)
    writer = dict(type='genseg_mm.DescriptionWriter', model=pretrained(str(tmp_path), kind, subfolder='text_encoder'))
    assert MODELS.build(dict(writer, processor=str(tmp_path), **parts)).chat.prefix


def test_words_alone_need_no_image_processor(released):
    encoder = build(released, looks_at_images=False)
    assert encoder.looks_at_images is False
    assert torch.equal(encoder(TEXTS, images()).states, build(released)(TEXTS).states)


def test_from_scratch_it_trains(released):
    folder, kind = released
    settings = tiny_qwen_vl_settings(kind, tiny_tokenizer())
    torch.manual_seed(0)
    encoder = QwenVLPromptEncoder(encoder=settings, processor=folder)
    assert (encoder.trainable, encoder.embed_dims, encoder.max_length) == (True, 32, 512)
    assert encoder(TEXTS, images()).states.requires_grad


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(padding='left'), "padding must be 'longest' or 'max_length', but got 'left'"),
        (dict(keep='image'), "keep must be 'all' or 'text', but got 'image'"),
        (dict(hidden_layer=0), r'hidden_layer must be in 1\.\.3 or -3\.\.-1, but got 0'),
        (dict(hidden_layer=4), 'but got 4'),
        (dict(system_prompt=dict(caption='x')), r"for mask and image, but got \['caption'\]"),
        (dict(encoder=dict(hidden_size=3)), "expected a config with 'type' or 'model_type'"),
    ],
)
def test_bad_settings_are_refused(released, settings, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build({**config(released), **settings})


def test_bad_inputs_are_refused(released):
    encoder = build(released)
    with pytest.raises(ValueError, match='one image per text, but got 3 images and 2 texts'):
        encoder(TEXTS, images(3))
    with pytest.raises(ValueError, match='has_image for each of 2 texts, but got 1 values'):
        encoder(TEXTS, images(), has_image=torch.tensor([True]))
    with pytest.raises(ValueError, match='has_image names samples with an image, but got no'):
        encoder(TEXTS, None, has_image=torch.tensor([True, False]))


def test_parts_of_other_models_are_refused(released, tmp_path):
    folder, kind = released
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / 'no_template')
    with pytest.raises(ValueError, match='has no chat template'):
        MODELS.build(config(released, processor=str(tmp_path / 'no_template')))
    model = dict(tiny_qwen_vl_settings(kind, tiny_tokenizer()), image_token_id=5)
    with pytest.raises(ValueError, match="'<|image_pad|>' to be token 5 as in the model, but got"):
        QwenVLPromptEncoder(encoder=model, processor=folder)
    other = dict(type='torch.nn.Linear', in_features=1, out_features=1)
    with pytest.raises(ValueError, match='expected a Qwen2.5-VL or Qwen3-VL .* but got a Linear'):
        QwenVLPromptEncoder(encoder=other, processor=folder)


# Patches of images against the released image processor


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


def images_of(tmp_path, **kwargs) -> QwenVLImages:
    processor = tiny_image_processor(**kwargs)
    processor.save_pretrained(tmp_path)
    return QwenVLImages(str(tmp_path), VisionConfig), processor


def expected(processor, pictures):
    pil = [Image.fromarray(own.numpy()) for own in pictures]
    return processor(pil, return_tensors='pt')


@pytest.mark.parametrize('mean', [[0.48, 0.46, 0.41], [0.5, 0.5, 0.5]])
def test_patches_are_the_processors_where_nothing_is_resized(tmp_path, mean):
    images, processor = images_of(tmp_path, image_mean=mean)
    pictures = [picture(16, 24, seed) for seed in range(3)]
    patches, grid = images(torch.cat([as_input(own) for own in pictures]))
    library = expected(processor, pictures)
    assert grid.tolist() == library['image_grid_thw'].tolist() == [[1, 4, 6]] * 3
    assert patches.shape == (72, 96)
    torch.testing.assert_close(patches, library['pixel_values'], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ('size', 'resized'), [((20, 27), (16, 24)), ((64, 64), (32, 32)), ((40, 80), (16, 40)), ((6, 6), (8, 8))]
)
def test_resized_patches_are_the_processors_to_one_level(tmp_path, size, resized):
    images, processor = images_of(tmp_path)
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
    images_of(tmp_path)
    images = QwenVLImages(str(tmp_path), VisionConfig, min_pixels=256, max_pixels=256)
    assert images(as_input(picture(32, 32)))[1].tolist() == [[1, 4, 4]]
    assert images(as_input(picture(8, 8)))[1].tolist() == [[1, 4, 4]]
    assert images.pixels_per_token == 8


def test_mistakes_are_named(tmp_path):
    images, _ = images_of(tmp_path)
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
    ('patch', 'bounds', 'statistics', 'kind', 'grid'),
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
