"""LatentCodec over the real autoencoder classes, and the shipped closed-form codec."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_codecs import AUTOENCODERS

from genseg_mm.models.latent_codec import LatentCodec, PatchCodec, fit_patch_codec
from genseg_mm.registry import MODELS


@pytest.fixture(params=AUTOENCODERS)
def codec(request, tmp_path):
    torch.manual_seed(0)
    config = AUTOENCODERS[request.param]
    if request.param == 'flux2':  # its standardisation is among its tensors
        module = MODELS.build(config)
        module.bn.running_mean.copy_(torch.linspace(-1, 1, 12))
        module.bn.running_var.copy_(torch.linspace(0.5, 3, 12))
        module.save_pretrained(tmp_path)
        config = dict(type=f'{config["type"]}.from_pretrained', pretrained_model_name_or_path=str(tmp_path))
    codec = LatentCodec(config).eval()
    codec.name, codec.of = request.param, config
    return codec


# What the configs above mean: pixels per cell, channels, and how diffusers' pipelines standardise.
FACTORS = dict(kl=2, tiny=4, wan=4, qwen_image=4, kl_sd3=8, dc=4, wan22=16, flux2=4, patch=8)
CHANNELS = dict(kl=4, tiny=4, wan=4, qwen_image=4, kl_sd3=16, dc=8, wan22=6, flux2=12, patch=20)
SHIFT_AND_SCALE = dict(kl=(0.25, 0.5), tiny=(0, 1), kl_sd3=(0.0609, 1.5305), dc=(0, 0.41407))
VIDEO = ('wan', 'qwen_image', 'wan22')


def raw_latents(codec, images):
    """The autoencoder's own latents, by its own interface."""
    if codec.name in VIDEO:
        return codec.autoencoder.encode(images[:, :, None]).latent_dist.mode()[:, :, 0]
    encoded = codec.autoencoder.encode(images)
    if codec.name.startswith(('kl', 'flux2')):
        return encoded.latent_dist.mode()
    return encoded.latent if codec.name == 'dc' else encoded.latents


def of_flux2_pipeline(codec, images):
    """An edited image's latents, (N, 4C, H, W), by diffusers' own pipeline."""
    from diffusers import Flux2KleinPipeline

    parts = dict(scheduler=None, text_encoder=None, tokenizer=None, transformer=None)
    return Flux2KleinPipeline(vae=codec.autoencoder, **parts)._encode_vae_image(images, generator=None)


def test_latents_are_standardised_and_decode_back(codec):
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = codec.encode(images)
    factor = FACTORS[codec.name]
    assert (codec.downsample, codec.latent_channels) == (factor, CHANNELS[codec.name])
    with torch.no_grad():
        raw = raw_latents(codec, images)
        if codec.name in VIDEO:
            config = AUTOENCODERS[codec.name]
            mean = torch.tensor(config['latents_mean']).view(1, -1, 1, 1)
            std = torch.tensor(config['latents_std']).view(1, -1, 1, 1)
            expected = (raw - mean) / std
            decoded = codec.autoencoder.decode(raw[:, :, None]).sample[:, :, 0]
        elif codec.name == 'flux2':
            expected = of_flux2_pipeline(codec, images)
            decoded = codec.autoencoder.decode(raw).sample
        else:
            patch = (0.0, codec.autoencoder.config.scaling_factor)
            shift, scale = SHIFT_AND_SCALE.get(codec.name, patch)
            expected = (raw - shift) * scale
            decoded = codec.autoencoder.decode(raw).sample
    assert latents.shape == (2, CHANNELS[codec.name], 32 // factor, 48 // factor)
    torch.testing.assert_close(latents, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(codec.decode(latents), decoded, rtol=1e-4, atol=1e-4)
    assert decoded.shape == images.shape


def test_decoding_without_the_cut_has_a_gradient_everywhere(codec):
    latents = 3 * torch.randn(1, CHANNELS[codec.name], 2, 2, generator=torch.Generator().manual_seed(0))
    if codec.name in VIDEO:  # so large an output that the cut bites
        last = codec.autoencoder.decoder.conv_out
        last.weight.data *= 30
    cut, whole = codec.decode(latents), codec.decode(latents, clamp=False)
    bound = 1 if codec.name in VIDEO else float('inf')
    torch.testing.assert_close(whole.clamp(-bound, bound), cut, rtol=0, atol=0)
    assert (whole.abs().max() > 1).item() or codec.name not in VIDEO
    if codec.name in VIDEO:
        beyond = whole.abs() > 1
        grads = []
        for clamp in (True, False):
            own = latents.clone().requires_grad_()
            codec.decode(own, clamp=clamp)[beyond].sum().backward()
            grads.append(own.grad.abs().sum().item())
        assert grads[0] == 0 < grads[1]


def test_frozen_and_chunking_changes_nothing(codec):
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    whole = codec.encode(images)
    torch.manual_seed(0)
    codec = LatentCodec(codec.of, max_batch=2).eval()
    torch.testing.assert_close(codec.encode(images), whole, rtol=1e-5, atol=1e-5)
    codec.train()
    assert not codec.autoencoder.training
    assert [p for p in codec.parameters() if p.requires_grad] == []
    latents = whole.requires_grad_()
    codec.decode(latents).sum().backward()
    assert latents.grad.abs().sum() > 0  # a loss in pixel space reaches the latents


def test_autocast_leaves_the_encodings_as_a_cache_has_them(codec):
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = codec.encode(images)
    with torch.autocast('cpu', torch.bfloat16):
        latents = codec.encode(images)
    torch.testing.assert_close(latents, expected, rtol=0, atol=0)


def test_wrong_size_names_the_factor():
    codec = LatentCodec(AUTOENCODERS['patch'])
    with pytest.raises(ValueError, match=r'multiples of 8 .* but got \(28, 32\)'):
        codec.encode(torch.zeros(1, 3, 28, 32))


def test_an_autoencoder_that_leaves_other_patches_to_its_pipeline_is_refused():
    config = dict(AUTOENCODERS['flux2'], patch_size=(1, 2))
    with pytest.raises(ValueError, match=r'AutoencoderKLFlux2 leaves patches .*patch_size \(1, 2\)\): expected square'):
        LatentCodec(config)


def test_saved_folder_is_a_source_that_stays_out_of_checkpoints(tmp_path):
    torch.manual_seed(0)
    built = LatentCodec(AUTOENCODERS['kl'])
    built.autoencoder.save_pretrained(tmp_path)
    loaded = LatentCodec(
        dict(type='diffusers.AutoencoderKL.from_pretrained', pretrained_model_name_or_path=str(tmp_path))
    )
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(loaded.encode(images), built.encode(images), rtol=0, atol=0)
    owner = torch.nn.ModuleDict({'codec': loaded, 'other': torch.nn.Linear(2, 2)})
    assert set(owner.state_dict()) == {'other.weight', 'other.bias'}
    assert len(built.state_dict()) > 20  # without a source it has to be kept
    before = loaded.encode(images)
    owner.load_state_dict(owner.state_dict(), strict=True)
    torch.testing.assert_close(loaded.encode(images), before, rtol=0, atol=0)
    assert len(loaded.autoencoder.state_dict()) == len(built.autoencoder.state_dict())


def test_patch_codec_keeps_what_its_components_span():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 8, 8, generator=generator) * 2 - 1
    masks = (torch.rand(6, 1, 8, 8, generator=generator) > 0.5).float().expand(-1, 3, -1, -1) * 2 - 1
    state = fit_patch_codec(images, masks, latent_channels=48, patch_size=4)
    gram = state['basis'] @ state['basis'].T
    torch.testing.assert_close(gram, torch.eye(48), rtol=0, atol=1e-5)


def test_patch_codec_with_all_components_is_exact(tmp_path):
    images = torch.rand(6, 3, 8, 8) * 2 - 1
    save_file(fit_patch_codec(images, images, 48, 4), tmp_path / 'codec.safetensors')
    codec = LatentCodec(dict(type='genseg_mm.PatchCodec', weights=str(tmp_path / 'codec.safetensors')))
    torch.testing.assert_close(codec.decode(codec.encode(images)), images, rtol=0, atol=1e-5)
    assert abs(codec.encode(images).std().item() - 1) < 0.02
    # Without weights, whole patches: nothing is lost at all.
    whole = LatentCodec(dict(type='genseg_mm.PatchCodec', patch_size=4))
    assert torch.equal(whole.encode(images), torch.nn.functional.pixel_unshuffle(images, 4))
    assert torch.equal(whole.decode(whole.encode(images)), images) and whole.downsample == 4
    with pytest.raises(ValueError, match='patch_size must be a whole number of at least 1, but got 0'):
        LatentCodec(dict(type='genseg_mm.PatchCodec', patch_size=0))


def test_shipped_codec_is_as_good_as_its_note_says():
    from genseg_mm.datasets import ShapesDataset

    codec = LatentCodec(dict(type='genseg_mm.PatchCodec'))
    dataset = ShapesDataset(num_scenes=40, split='test', expressions='random', pipeline=[])
    samples = [dataset[i] for i in range(40)]
    images = torch.stack([torch.from_numpy(s['img'][..., ::-1].copy()) for s in samples])
    images = images.permute(0, 3, 1, 2) / 127.5 - 1
    masks = torch.stack([torch.from_numpy(s['gt_seg_map']) for s in samples]).bool()
    drawn = masks[:, None].expand(-1, 3, -1, -1).float() * 2 - 1
    again = codec.decode(codec.encode(drawn)).mean(1) > 0
    assert ((again & masks).sum() / (again | masks).sum()).item() > 0.975
    error = (codec.decode(codec.encode(images)) - images).pow(2).mean()
    assert (10 * torch.log10(4 / error)).item() > 26


def test_missing_or_wrong_weights_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.safetensors'):
        PatchCodec('nowhere.safetensors')
    save_file({'mean': torch.zeros(3)}, tmp_path / 'bad.safetensors')
    with pytest.raises(ValueError, match=r"bad.safetensors: expected tensors .* but got \['mean'\]"):
        PatchCodec(str(tmp_path / 'bad.safetensors'))
