"""Adapters against diffusers' own pipelines: same weights, noise, prompt and image, two Euler steps, same latents.

What a pipeline does between its noise and its latents (packing, ids, timestep scale, sign, where the image goes) is
what an adapter has to know, so equality here fixes all of it by value.
"""

import itertools
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_models import FLUX2_VAE, LATENT_CHANNELS, TRANSFORMERS, WAN_VAE
from torch.nn.functional import pixel_unshuffle

from genseg_mm.models.dit_backbone import DiTBackbone
from genseg_mm.models.dit_families import FAMILIES
from genseg_mm.models.prompt_encoders import PromptEmbeddings

SIGMAS = [1.0, 0.6]
NO_ENCODERS = dict(vae=None, text_encoder=None, tokenizer=None)
TWO_ENCODERS = dict(NO_ENCODERS, text_encoder_2=None, tokenizer_2=None)
# Released text-to-image models, before their input is widened.
RELEASED = {
    **TRANSFORMERS,
    'sana': {**TRANSFORMERS['sana'], 'in_channels': 20},
    'sd3': {**TRANSFORMERS['sd3'], 'in_channels': 4},
}


class Case:
    """One family's noise, image, prompt, and the pipeline around its transformer."""

    def __init__(
        self, family: str, pipeline: str, transformer: dict | None = None, size: tuple[int, int] = (8, 12), **parts
    ) -> None:
        import diffusers

        torch.manual_seed(0)
        config = {**RELEASED[family], **(transformer or {})}
        transformer = getattr(diffusers, FAMILIES[family].transformer_class)(**config)
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
        parts = dict(parts, transformer=transformer.eval(), scheduler=scheduler)
        self.family, self.pipeline = family, getattr(diffusers, pipeline)(**parts)
        self.pipeline.set_progress_bar_config(disable=True)
        self.size = size
        shape = (2, LATENT_CHANNELS[family], *size)
        self.noise, self.image = torch.randn(shape), torch.randn(shape)
        self.states, self.pooled = torch.randn(2, 6, 32), torch.randn(2, 24)
        self.mask = torch.ones(2, 6, dtype=torch.bool)

    def packed_noise(self):
        from diffusers import FluxPipeline

        return FluxPipeline._pack_latents(self.noise, *self.noise.shape)

    def of_pipeline(self, **arguments):
        """The pipeline's final latents, (N, C, H, W)."""
        common = dict(
            prompt_embeds=self.states,
            latents=self.noise,
            num_inference_steps=2,
            height=8 * self.size[0],
            width=8 * self.size[1],
            output_type='latent',
            return_dict=False,
        )
        latents = self.pipeline(**{**common, **arguments})[0]
        if self.family == 'flux2' and latents.ndim == 3:  # dev leaves them packed
            return latents.mT.unflatten(2, self.size)
        if self.family == 'flux2':  # klein gives what its autoencoder takes, whose statistics are 0 and 1
            return pixel_unshuffle(latents, 2) / (1 + self.pipeline.vae.config.batch_norm_eps) ** 0.5
        if latents.ndim == 5:
            return latents[:, :, -1]
        if latents.ndim == 3:
            from diffusers import FluxPipeline

            return FluxPipeline._unpack_latents(latents, 64, 96, 8)
        return latents

    def of_backbone(self, tmp_path, with_image, **options):
        """Ours, from the saved transformer, at the noise levels that the pipeline took."""
        self.pipeline.transformer.save_pretrained(tmp_path / 'transformer')
        kind = FAMILIES[self.family].transformer_class
        backbone = DiTBackbone(
            self.family,
            dict(
                type=f'diffusers.{kind}.from_pretrained',
                pretrained_model_name_or_path=str(tmp_path),
                subfolder='transformer',
            ),
            **options,
        ).eval()
        prompt = PromptEmbeddings(self.states, self.mask, self.pooled)
        sigmas = self.pipeline.scheduler.sigmas
        assert sigmas[0] == 1 and 0.3 < sigmas[1] < 0.7 and sigmas[-1] == 0
        latents = self.noise
        for sigma, next_sigma in itertools.pairwise(sigmas):
            with torch.no_grad():
                velocity = backbone(latents, sigma.expand(2), prompt, self.image if with_image else None)
            latents = latents + (next_sigma - sigma) * velocity
        return latents


def flux2_parts():
    from genseg_mm.registry import MODELS

    return dict(NO_ENCODERS, vae=MODELS.build(FLUX2_VAE))


def assert_same(case, latents, tmp_path, with_image=False, **options):
    ours = case.of_backbone(tmp_path, with_image, **options)
    torch.testing.assert_close(ours, latents, rtol=1e-4, atol=1e-5)
    assert (ours - case.noise).abs().max() > 0.1


class TestTextToImage:
    def test_wan(self, tmp_path):
        case = Case('wan', 'WanPipeline', **NO_ENCODERS)
        latents = case.of_pipeline(
            latents=case.noise[:, :, None], num_frames=1, num_inference_steps=3, guidance_scale=1.0
        )
        assert_same(case, latents, tmp_path)

    def test_sana(self, tmp_path):
        case = Case('sana', 'SanaPipeline', **NO_ENCODERS)
        latents = case.of_pipeline(
            prompt_attention_mask=case.mask.long(),
            sigmas=SIGMAS,
            timesteps=None,
            guidance_scale=1.0,
            use_resolution_binning=False,
        )
        assert_same(case, latents, tmp_path)

    def test_sd3(self, tmp_path):
        case = Case('sd3', 'StableDiffusion3Pipeline', **TWO_ENCODERS, text_encoder_3=None, tokenizer_3=None)
        latents = case.of_pipeline(pooled_prompt_embeds=case.pooled, sigmas=SIGMAS, guidance_scale=1.0)
        assert_same(case, latents, tmp_path)

    @pytest.mark.parametrize('family', ['flux', 'flux_kontext'])
    def test_flux_with_and_without_a_guidance_input(self, family, tmp_path):
        case = Case(family, 'FluxPipeline', **TWO_ENCODERS)
        latents = case.of_pipeline(
            latents=case.packed_noise(), pooled_prompt_embeds=case.pooled, sigmas=SIGMAS, guidance_scale=1.0
        )
        assert_same(case, latents, tmp_path)

    @pytest.mark.parametrize('size', [(8, 12), (5, 9)])
    def test_flux2_klein(self, size, tmp_path):
        case = Case('flux2', 'Flux2KleinPipeline', size=size, **flux2_parts())
        assert_same(case, case.of_pipeline(sigmas=SIGMAS, guidance_scale=1.0), tmp_path)

    def test_flux2_dev_with_its_guidance_input(self, tmp_path):
        case = Case('flux2', 'Flux2Pipeline', transformer=dict(guidance_embeds=True), **flux2_parts())
        latents = case.of_pipeline(sigmas=SIGMAS, guidance_scale=3.5)
        assert_same(case, latents, tmp_path, embedded_guidance=3.5)

    def test_qwen_image(self, tmp_path):
        case = Case('qwen_image', 'QwenImagePipeline', **NO_ENCODERS)
        latents = case.of_pipeline(
            latents=case.packed_noise(), prompt_embeds_mask=case.mask, sigmas=SIGMAS, true_cfg_scale=1.0
        )
        assert_same(case, latents, tmp_path)

    @pytest.mark.parametrize('size', [(8, 12), (10, 6)])  # 24 and 15 tokens of 2 x 2
    def test_z_image(self, size, tmp_path):
        case = Case('z_image', 'ZImagePipeline', size=size, **NO_ENCODERS)
        latents = case.of_pipeline(prompt_embeds=list(case.states), sigmas=SIGMAS, guidance_scale=0.0)
        assert_same(case, latents, tmp_path)


class TestWithAnImage:
    @pytest.mark.parametrize('size', [(8, 12), (9, 11)])
    def test_flux2_klein(self, size, tmp_path, monkeypatch):
        case = Case('flux2', 'Flux2KleinPipeline', size=size, **flux2_parts())
        ids = case.pipeline._prepare_image_ids([case.image[:1]])
        monkeypatch.setattr(
            case.pipeline,
            'prepare_image_latents',
            lambda **_: (case.pipeline._pack_latents(case.image), ids.repeat(2, 1, 1)),
        )
        latents = case.of_pipeline(image=Image.new('RGB', (96, 64)), sigmas=SIGMAS, guidance_scale=1.0)
        assert_same(case, latents, tmp_path, with_image=True)

    def test_flux_kontext(self, tmp_path):
        case = Case('flux_kontext', 'FluxKontextPipeline', **TWO_ENCODERS)
        case.pipeline.latent_channels = 4
        latents = case.of_pipeline(
            image=case.image,
            latents=case.packed_noise(),
            pooled_prompt_embeds=case.pooled,
            sigmas=SIGMAS,
            guidance_scale=1.0,
            _auto_resize=False,
            max_area=64 * 96,
        )
        assert_same(case, latents, tmp_path, with_image=True)

    @pytest.mark.parametrize('family', ['qwen_image', 'qwen_image_edit'])
    def test_qwen_image_edit_with_and_without_zero_cond_t(self, family, tmp_path, monkeypatch):
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit

        case = Case(family, 'QwenImageEditPipeline', **NO_ENCODERS, processor=None)
        case.pipeline.latent_channels = 4
        monkeypatch.setattr(pipeline_qwenimage_edit, 'calculate_dimensions', lambda *_: (96, 64, 1.5))
        case.pipeline.image_processor = SimpleNamespace(
            resize=lambda image, *_: image, preprocess=lambda *_: case.image
        )
        latents = case.of_pipeline(
            image=Image.new('RGB', (96, 64)),
            latents=case.packed_noise(),
            prompt_embeds_mask=case.mask,
            sigmas=SIGMAS,
            true_cfg_scale=1.0,
        )
        assert_same(case, latents, tmp_path, with_image=True)

    def test_wan_image_to_video_by_timesteps(self, tmp_path, monkeypatch):
        from genseg_mm.registry import MODELS

        vae = MODELS.build(WAN_VAE)
        case = Case('wan', 'WanImageToVideoPipeline', **dict(NO_ENCODERS, vae=vae), expand_timesteps=True)
        case.pipeline.vae_scale_factor_spatial = 8
        frames = torch.stack([torch.zeros_like(case.noise), case.noise], 2)
        condition = torch.stack([case.image, torch.zeros_like(case.noise)], 2)
        noisy_frames = torch.tensor([0.0, 1.0])[None, None, :, None, None].expand(1, 1, 2, 8, 12)
        monkeypatch.setattr(case.pipeline, 'prepare_latents', lambda *_: (frames, condition, noisy_frames))
        latents = case.of_pipeline(
            image=torch.zeros(2, 3, 64, 96), latents=None, num_frames=5, num_inference_steps=3, guidance_scale=1.0
        )
        assert_same(case, latents, tmp_path, with_image=True)

    @pytest.mark.parametrize('size', [(8, 12), (10, 6)])
    def test_z_image_omni(self, size, tmp_path, monkeypatch):
        case = Case('z_image', 'ZImageOmniPipeline', size=size, **NO_ENCODERS, siglip=None, siglip_processor=None)
        monkeypatch.setattr(
            case.pipeline, 'prepare_image_latents', lambda **_: [[image] for image in case.image[:, :, None]]
        )
        monkeypatch.setattr(case.pipeline, 'prepare_siglip_embeds', lambda **_: [[], []])
        latents = case.of_pipeline(
            prompt_embeds=[[text[:0], text] for text in case.states], sigmas=SIGMAS, guidance_scale=0.0
        )
        assert_same(case, latents, tmp_path, with_image=True)
