"""DiTBackbone's own work: released weights, dtypes, prompts of another width, errors, and that it learns."""

import pytest
import torch
from tiny_dit import dit_inputs, saved, tiny_backbone
from tiny_models import FLUX, FLUX2, LATENT_CHANNELS, PIXART, QWEN_IMAGE, SANA, TRANSFORMERS, WAN

from genseg_mm.functional.flow_matching import data_from_velocity, noisy_latents
from genseg_mm.models.dit_backbone import DiTBackbone
from genseg_mm.models.dit_families import FAMILIES
from genseg_mm.models.prompt_encoders import PromptEmbeddings

PIXART_ALPHA = dict(use_additional_conditions=True, attention_head_dim=24, cross_attention_dim=48)
NARROW = {'sana': 20, 'sd3': 4, 'pixart': 4}


def released(family, seed=0, **config):
    """A released text-to-image transformer: it has no channels for an image yet."""
    import diffusers

    torch.manual_seed(seed)
    kind = getattr(diffusers, FAMILIES[family].transformer_class)
    config = {**TRANSFORMERS[family], 'in_channels': NARROW[family], **config}
    return kind(**config).eval()


def plain_call(transformer, family, noisy, sigma, prompt):
    """What diffusers' pipelines do for a text-to-image step."""
    inputs = dict(encoder_hidden_states=prompt.states, timestep=sigma * 1000)
    if family == 'sd3':
        states = prompt.states * prompt.mask[..., None]
        inputs.update(encoder_hidden_states=states, pooled_projections=prompt.pooled)
    else:
        inputs['encoder_attention_mask'] = prompt.mask.long()
    if family == 'sana':
        inputs['timestep'] = inputs['timestep'] * transformer.config.timestep_scale
    if family == 'pixart':
        inputs['added_cond_kwargs'] = dict(resolution=None, aspect_ratio=None)
        if transformer.use_additional_conditions:  # 8 x 12 latents are 64 x 96 pixels
            inputs['added_cond_kwargs'] = dict(
                resolution=torch.tensor([[64.0, 96.0]] * 3), aspect_ratio=torch.full((3, 1), 64 / 96)
            )
    return transformer(noisy, **inputs).sample


@pytest.mark.parametrize(
    ('family', 'config'),
    [
        ('sana', {}),
        ('sana', dict(timestep_scale=0.001)),
        ('sd3', {}),
        ('pixart', {}),
        ('pixart', dict(out_channels=8)),  # PixArt-Sigma: learned variance
        ('pixart', dict(PIXART_ALPHA, out_channels=8)),
    ],
)
def test_widening_starts_at_the_released_function_whatever_the_image(family, config, tmp_path):
    transformer = released(family, **config)
    backbone = DiTBackbone(family, saved(transformer, tmp_path)).eval()
    noisy, sigma, prompt, image = dit_inputs(backbone)
    channels = NARROW[family]
    with torch.no_grad():
        expected = plain_call(transformer, family, noisy, sigma, prompt)[:, :channels]
        for images in (image, 100 * image, None):
            velocity = backbone(noisy, sigma, prompt, images)
            torch.testing.assert_close(velocity, expected, rtol=1e-4, atol=1e-5)
    assert backbone.transformer.config.in_channels == 2 * channels == 2 * backbone.latent_channels
    backbone(noisy, sigma, prompt, image).square().mean().backward()
    layer = backbone.transformer.get_submodule(backbone.new_layers[-1])
    assert layer.weight.grad[:, channels:].abs().max() > 0  # so that it learns to look at the image
    # What training leaves is saved and loaded as it is, nothing is widened twice.
    again = DiTBackbone(family, saved(backbone.transformer, tmp_path / 'trained')).eval()
    assert again.new_layers == []
    with torch.no_grad():
        torch.testing.assert_close(again(noisy, sigma, prompt, image), expected, rtol=1e-4, atol=1e-5)


def test_wan_conditions_by_a_clean_frame_at_timestep_zero(monkeypatch):
    backbone = tiny_backbone('wan')
    seen = {}
    forward = backbone.transformer.forward

    def spy(**kwargs):
        seen.update(kwargs)
        return forward(**kwargs)

    monkeypatch.setattr(backbone.transformer, 'forward', spy)
    noisy, sigma, prompt, image = dit_inputs(backbone)
    with torch.no_grad():
        backbone(noisy, sigma, prompt, image)
    assert torch.equal(seen['hidden_states'][:, :, 0], image)
    assert torch.equal(seen['hidden_states'][:, :, 1], noisy)
    tokens = 24  # 8 x 12 latents, patches of 2 x 2
    assert seen['timestep'].dtype == torch.float32 and seen['timestep'].shape == (3, 2 * tokens)
    assert (seen['timestep'][:, :tokens] == 0).all()
    assert seen['timestep'][:, tokens:].tolist() == (sigma * 1000)[:, None].expand(3, 24).tolist()


def test_wan_of_48_channels_is_the_same_family():
    backbone = tiny_backbone('wan', dict(in_channels=48, out_channels=48))
    noisy, sigma, prompt, image = dit_inputs(backbone)
    assert backbone.latent_channels == 48
    assert backbone(noisy, sigma, prompt, image).shape == (3, 48, 8, 12)


class TestPromptDims:
    @pytest.mark.parametrize('family', TRANSFORMERS)
    def test_text_of_another_width_gets_a_fresh_projection(self, family, tmp_path, capsys):
        source = saved(tiny_backbone(family).transformer, tmp_path)
        same = DiTBackbone(family, source, prompt_dims=32)
        assert same.new_layers == [] and same.prompt_dims == 32
        backbone = DiTBackbone(family, source, prompt_dims=48).eval()
        assert backbone.prompt_dims == 48
        names = list(FAMILIES[family].text_projection)
        assert backbone.new_layers == names
        noisy, sigma, prompt, image = dit_inputs(backbone)
        assert prompt.states.shape[-1] == 48
        velocity = backbone(noisy, sigma, prompt, image)
        velocity.square().mean().backward()
        for name in names:
            for parameter in backbone.transformer.get_submodule(name).parameters():
                assert parameter.grad.abs().max() > 0
        kept = [
            name
            for name, value in backbone.transformer.state_dict().items()
            if not name.startswith(tuple(names)) and not torch.equal(value, same.transformer.state_dict()[name])
        ]
        assert kept == []  # everything else is the released model's
        again = DiTBackbone(family, saved(backbone.transformer, tmp_path / 'again')).eval()
        with torch.no_grad():
            torch.testing.assert_close(again(noisy, sigma, prompt, image), velocity, rtol=1e-5, atol=1e-6)

    def test_pixart_without_text_is_refused(self):
        with pytest.raises(ValueError, match='caption_channels=None'):
            DiTBackbone('pixart', dict(PIXART, caption_channels=None), prompt_dims=48)


class TestPrecision:
    @pytest.mark.parametrize('mode', ['weights', 'autocast'])
    @pytest.mark.parametrize('family', TRANSFORMERS)
    def test_timesteps_stay_float32_under_bfloat16(self, family, mode, tmp_path):
        source = saved(tiny_backbone(family).transformer, tmp_path)
        exact = DiTBackbone(family, source).eval()
        if mode == 'weights':
            source['torch_dtype'] = 'bfloat16'
        backbone = DiTBackbone(family, source).eval()
        assert (backbone.transformer.dtype == torch.bfloat16) == (mode == 'weights')
        embedded = []
        for module in backbone.modules():
            if type(module).__name__ in ('Timesteps', 'TimestepEmbedder'):
                module.register_forward_pre_hook(lambda _, args: embedded.append(args[0]))
        noisy, _, prompt, image = dit_inputs(backbone)
        high, low = torch.tensor([1.0, 0.998, 0.9]), torch.tensor([0.998, 0.996, 0.9])
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=mode == 'autocast'):
            velocity = backbone(noisy, high, prompt, image)
            other = backbone(noisy, low, prompt, image)
        assert velocity.dtype == torch.float32
        moved = (velocity - other).abs().amax((1, 2, 3))
        assert moved[0] > 0 and moved[1] > 0 and moved[2] == 0
        expected = dict(z_image=[0.0, 2.0, 100.0], qwen_image=[1.0, 0.998, 0.9])
        expected['qwen_image_edit'] = [1.0, 0.998, 0.9, 0.0, 0.0, 0.0]
        expected['wan'] = [0.0] * 24 + [1000.0] * 24 + [0.0] * 24 + [998.0] * 24
        expected = torch.tensor(expected.get(family, [1000.0, 998.0, 900.0]))
        assert embedded[0].dtype == torch.float32
        torch.testing.assert_close(embedded[0].flatten()[: len(expected)], expected, rtol=1e-5, atol=1e-3)
        with torch.no_grad():
            full = exact(noisy, high, prompt, image)
        assert (velocity - full).abs().max() < 0.1 * full.abs().max()

    def test_a_dtype_may_be_written_as_text_and_nothing_else(self, tmp_path):
        source = saved(tiny_backbone('sana').transformer, tmp_path)
        for name in ('bfloat16', 'torch.bfloat16'):
            backbone = DiTBackbone('sana', dict(source, torch_dtype=name))
            assert backbone.output_layer.weight.dtype == torch.bfloat16
        with pytest.raises(ValueError, match="dtype must name a dtype.* but got 'brain16'"):
            DiTBackbone('sana', dict(source, torch_dtype='brain16'))

    def test_wan_keeps_its_sensitive_layers_in_float32(self, tmp_path):
        source = saved(tiny_backbone('wan').transformer, tmp_path)
        backbone = DiTBackbone('wan', dict(source, torch_dtype='bfloat16'))
        kinds = {own.dtype for own in backbone.transformer.blocks.parameters()}
        assert kinds == {torch.bfloat16, torch.float32}


class TestGuidanceInput:
    @pytest.mark.parametrize('family', ['flux_kontext', 'flux2'])
    def test_it_matters_where_a_model_was_distilled_for_it(self, family):
        distilled = dict(guidance_embeds=True)
        noisy, sigma, prompt, image = dit_inputs(tiny_backbone(family))
        velocities = [
            tiny_backbone(family, distilled, embedded_guidance=guidance)(noisy, sigma, prompt, image)
            for guidance in (None, 1.0, 3.5)
        ]
        assert torch.equal(velocities[0], velocities[1])
        assert (velocities[0] - velocities[2]).abs().max() > 1e-3

    @pytest.mark.parametrize('family', ['flux', 'flux2', 'wan'])
    def test_it_is_refused_elsewhere(self, family):
        with pytest.raises(ValueError, match='embedded_guidance=3.5 needs a guidance-distilled'):
            tiny_backbone(family, embedded_guidance=3.5)


@pytest.mark.parametrize('family', ['flux', 'sd3'])
def test_prompts_without_a_pooled_vector_get_zeros(family):
    backbone = tiny_backbone(family)
    noisy, sigma, prompt, image = dit_inputs(backbone)
    zeros = prompt._replace(pooled=torch.zeros(3, 24))
    with torch.no_grad():
        expected = backbone(noisy, sigma, zeros, image)
        assert torch.equal(backbone(noisy, sigma, prompt._replace(pooled=None), image), expected)
    with pytest.raises(ValueError, match='pooled prompt vectors of width 24, but got 5'):
        backbone(noisy, sigma, prompt._replace(pooled=torch.zeros(3, 5)), image)


@pytest.mark.parametrize('family', ['sana', 'wan', 'flux', 'flux2', 'qwen_image'])
def test_training_brings_the_one_step_estimate_to_the_data(family):
    # One of two flat targets; only the image tells which, so the condition is learned together with the sign.
    config = dict(patch_size=1) if family == 'sana' else None
    backbone = tiny_backbone(family, config, seed=3)
    torch.manual_seed(1)
    targets = torch.tensor([1.0, -1.0] * 4)[:, None, None, None]
    targets = targets.expand(8, LATENT_CHANNELS[family], 4, 4)
    _, _, prompt, _ = dit_inputs(backbone, num=1)
    prompt = PromptEmbeddings(prompt.states.expand(8, -1, -1), prompt.mask.expand(8, -1))
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-2, betas=(0.9, 0.98))

    def one_step_estimate():
        noise, sigma = torch.randn(targets.shape), torch.ones(8)
        with torch.no_grad():
            return data_from_velocity(noise, backbone(noise, sigma, prompt, 2 * targets), sigma)

    before = one_step_estimate()
    for _ in range(60):
        noise, sigma = torch.randn(2, *targets.shape[1:]), torch.rand(2).sqrt()
        noisy = noisy_latents(targets[:2], noise, sigma)
        two = PromptEmbeddings(prompt.states[:2], prompt.mask[:2])
        velocity = backbone(noisy, sigma, two, 2 * targets[:2])
        optimizer.zero_grad()
        (velocity - (noise - targets[:2])).square().mean().backward()
        optimizer.step()
    after = one_step_estimate()
    assert abs((before * targets).mean()) < 0.2
    assert 0.7 < (after * targets).mean() < 1.2
    assert (after - targets).square().mean() < 0.5 * (before - targets).square().mean()


def test_unknown_family_and_foreign_transformer_are_refused():
    with pytest.raises(ValueError, match=r"'wan', 'z_image'\], but got 'unet'"):
        DiTBackbone('unet', {})
    with pytest.raises(ValueError, match='expects a WanTransformer3DModel, but got a Sana'):
        DiTBackbone('wan', dict(SANA, type='diffusers.SanaTransformer2DModel'))


@pytest.mark.parametrize(
    ('family', 'config', 'message'),
    [
        ('sana', dict(SANA, in_channels=12), 'in_channels=12, out_channels=20'),
        ('sana', dict(SANA, guidance_embeds=True), 'guidance_embeds=True .Sana Sprint'),
        ('wan', dict(WAN, in_channels=9), 'in_channels=9, out_channels=4, image_dim=None'),
        ('wan', dict(WAN, image_dim=8, added_kv_proj_dim=32), 'image_dim=8'),
        ('wan', dict(WAN, patch_size=(2, 2, 2)), r'one frame, but got patch_size=\(2, 2, 2\)'),
        ('flux', dict(FLUX, in_channels=40, out_channels=16), 'in_channels=40, out_channels=16'),
        ('qwen_image', dict(QWEN_IMAGE, in_channels=64), 'in_channels=64, out_channels=4'),
        ('qwen_image', dict(QWEN_IMAGE, use_additional_t_cond=True), 'use_additional_t_cond=True'),
        ('flux2', dict(FLUX2, out_channels=8), 'in_channels=16, out_channels=8'),
        ('sd3', dict(TRANSFORMERS['sd3'], in_channels=12), 'in_channels=12, out_channels=4'),
        ('z_image', dict(TRANSFORMERS['z_image'], all_f_patch_size=(2,)), 'one frame, but got'),
    ],
)
def test_models_that_take_their_image_another_way_are_refused(family, config, message):
    with pytest.raises(ValueError, match=message):
        DiTBackbone(family, config)


def test_sd3_says_up_to_which_size_it_has_positions():
    backbone = tiny_backbone('sd3')
    _, sigma, prompt, _ = dit_inputs(backbone)
    with pytest.raises(ValueError, match=r'up to 32 x 32, but got \(34, 8\)'):
        backbone(torch.zeros(3, 4, 34, 8), sigma, prompt)


def test_the_full_models_can_be_counted_on_the_meta_device():
    with torch.device('meta'):
        backbone = DiTBackbone('wan', dict(num_layers=2), prompt_dims=3584, lora=dict(r=4))
    assert backbone.transformer.config.text_dim == 3584
    assert {own.device.type for own in backbone.parameters()} == {'meta'}
    projection = backbone.transformer.condition_embedder.text_embedder
    assert sum(own.numel() for own in projection.parameters()) == 3585 * 5120 + 5121 * 5120


def test_z_image_starts_its_padding_off_zero_and_keeps_released_ones(tmp_path):
    backbone = tiny_backbone('z_image')
    tokens = dict(backbone.transformer.named_parameters())
    backbone(*dit_inputs(backbone)).square().mean().backward()
    norms = {name: own.grad.norm().item() for name, own in tokens.items()}
    largest = max(value for name, value in norms.items() if 'pad_token' not in name)
    for name in ('x_pad_token', 'cap_pad_token'):
        assert 0.01 < tokens[name].std().item() < 0.04
        assert 0 < norms[name] < 10 * largest  # was 1000 times as much
    again = DiTBackbone('z_image', saved(backbone.transformer, tmp_path))
    assert torch.equal(again.transformer.x_pad_token, tokens['x_pad_token'])
