"""One call for every family: conditions, timesteps, released weights."""

import pytest
import torch
from tiny_models import SANA, WAN

from genseg_mm.models.dit_backbone import DiTBackbone
from genseg_mm.models.prompt_encoders import PromptEmbeddings

TRANSFORMERS = {'sana': SANA, 'wan': WAN}


def build(family, **transformer):
    torch.manual_seed(0)
    backbone = DiTBackbone(family, {**TRANSFORMERS[family], **transformer}, zero_init_output=False)
    return backbone.eval()


def inputs(backbone, num=3, length=6):
    generator = torch.Generator().manual_seed(1)
    channels = backbone.latent_channels
    noisy, image = torch.randn(2, num, channels, 8, 8, generator=generator)
    states = torch.randn(num, length, 32, generator=generator)
    prompt = PromptEmbeddings(states, torch.ones(num, length, dtype=torch.bool))
    return noisy, torch.tensor([1.0, 0.9, 0.3])[:num], prompt, image


@pytest.mark.parametrize('family', TRANSFORMERS)
class TestEveryFamily:
    def test_samples_do_not_see_each_other_in_a_mixed_batch(self, family):
        backbone = build(family)
        noisy, sigma, prompt, image = inputs(backbone)
        has_image = torch.tensor([True, False, True])
        with torch.no_grad():
            mixed = backbone(noisy, sigma, prompt, image, has_image)
            for index in range(3):
                one = slice(index, index + 1)
                alone = backbone(
                    noisy[one],
                    sigma[one],
                    PromptEmbeddings(prompt.states[one], prompt.mask[one]),
                    image[one] if has_image[index] else None,
                )
                torch.testing.assert_close(mixed[one], alone, rtol=1e-4, atol=1e-5)
        assert mixed.dtype == torch.float32

    def test_image_text_and_sigma_all_matter(self, family):
        backbone = build(family)
        noisy, sigma, prompt, image = inputs(backbone)
        with torch.no_grad():
            base = backbone(noisy, sigma, prompt, image)
            others = [
                backbone(noisy, sigma, prompt, image.flip(0)),
                backbone(noisy, sigma, prompt),
                backbone(noisy, sigma * 0.5, prompt, image),
                backbone(noisy, sigma, prompt._replace(states=prompt.states.flip(0)), image),
            ]
        for other in others:
            assert (other - base).abs().max() > 1e-3

    def test_output_starts_at_zero_from_scratch_only(self, family, tmp_path):
        fresh = DiTBackbone(family, TRANSFORMERS[family])
        noisy, sigma, prompt, image = inputs(fresh)
        assert fresh(noisy, sigma, prompt, image).abs().max() == 0
        trained = build(family)
        trained.transformer.save_pretrained(tmp_path)
        name = type(trained.transformer).__name__
        source = dict(
            type=f'diffusers.{name}.from_pretrained', pretrained_model_name_or_path=str(tmp_path)
        )
        loaded = DiTBackbone(family, source).eval()
        with torch.no_grad():
            torch.testing.assert_close(
                loaded(noisy, sigma, prompt, image),
                trained(noisy, sigma, prompt, image),
                rtol=0,
                atol=0,
            )

    def test_gradient_checkpointing_gives_the_same_gradients(self, family):
        grads = []
        for checkpointing in (False, True):
            torch.manual_seed(0)
            backbone = DiTBackbone(
                family,
                TRANSFORMERS[family],
                zero_init_output=False,
                gradient_checkpointing=checkpointing,
            ).train()
            noisy, sigma, prompt, image = inputs(backbone)
            backbone(noisy, sigma, prompt, image).square().mean().backward()
            grads.append([p.grad for p in backbone.parameters()])
        for plain, recomputed in zip(*grads, strict=True):
            torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-7)

    def test_wrong_latents_say_what_came(self, family):
        backbone = build(family)
        noisy, sigma, prompt, _ = inputs(backbone)
        channels = backbone.latent_channels
        with pytest.raises(ValueError, match=f'latents of {channels} channels, but got 1'):
            backbone(noisy[:, :1], sigma, prompt)
        with pytest.raises(ValueError, match=r'multiple of the patch \(2, 2\), but got \(8, 7\)'):
            backbone(noisy[..., :7], sigma, prompt)


def test_sana_widening_starts_at_the_released_function(tmp_path):
    torch.manual_seed(0)
    released = build('sana').transformer.__class__(**{**SANA, 'in_channels': 20})
    released.eval().save_pretrained(tmp_path)
    source = dict(
        type='diffusers.SanaTransformer2DModel.from_pretrained',
        pretrained_model_name_or_path=str(tmp_path),
    )
    backbone = DiTBackbone('sana', source).eval()
    noisy, sigma, prompt, image = inputs(backbone)
    with torch.no_grad():
        expected = released(
            hidden_states=noisy,
            encoder_hidden_states=prompt.states,
            encoder_attention_mask=prompt.mask.long(),
            timestep=sigma * 1000,
        ).sample
        torch.testing.assert_close(
            backbone(noisy, sigma, prompt, image), expected, rtol=1e-5, atol=1e-5
        )
    assert backbone.transformer.config.in_channels == 40


def test_wan_conditions_by_a_clean_frame_at_timestep_zero(monkeypatch):
    backbone = build('wan')
    seen = {}
    forward = backbone.transformer.forward

    def spy(**kwargs):
        seen.update(kwargs)
        return forward(**kwargs)

    monkeypatch.setattr(backbone.transformer, 'forward', spy)
    noisy, sigma, prompt, image = inputs(backbone)
    with torch.no_grad():
        backbone(noisy, sigma, prompt, image)
    assert torch.equal(seen['hidden_states'][:, :, 0], image)
    assert torch.equal(seen['hidden_states'][:, :, 1], noisy)
    tokens = 16  # 8 x 8 latents, patches of 2 x 2
    assert seen['timestep'].dtype == torch.float32 and seen['timestep'].shape == (3, 2 * tokens)
    assert (seen['timestep'][:, :tokens] == 0).all()
    assert seen['timestep'][:, tokens:].tolist() == (sigma * 1000)[:, None].expand(3, 16).tolist()


def test_unknown_family_and_foreign_transformer_are_refused():
    with pytest.raises(ValueError, match=r"one of \['sana', 'wan'\], but got 'unet'"):
        DiTBackbone('unet', {})
    with pytest.raises(ValueError, match='expects a WanTransformer3DModel, but got a Sana'):
        DiTBackbone('wan', dict(SANA, type='diffusers.SanaTransformer2DModel'))
    with pytest.raises(ValueError, match='in_channels=12, out_channels=20'):
        DiTBackbone('sana', dict(SANA, in_channels=12))
