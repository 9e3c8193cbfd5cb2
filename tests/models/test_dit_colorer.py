"""DiTColorer: the step by hand, every family, sizes, prompts, LoRA, video autoencoders, saving and loading."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from tiny_codecs import AUTOENCODERS
from tiny_dit import saved
from tiny_models import TRANSFORMERS, dit_colorer_config, genmask_config
from tiny_released import images
from tiny_released_dits import make_pipeline
from torch.testing import assert_close

from genseg_mm.datasets.transforms import NetworkResize
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models import DiTColorer, Gen2Seg
from genseg_mm.models.dit_families import FAMILIES
from genseg_mm.models.pretrained_parts import without_values
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.registry import MODELS

ROOT = Path(__file__).parents[2]


def built(family: str, seed: int = 0, transformer: dict | None = None, **overrides: object) -> DiTColorer:
    """A tiny colorer whose output layer is not zero."""
    torch.manual_seed(seed)
    colorer = MODELS.build(dit_colorer_config(family, transformer, **overrides)).eval()
    if not colorer.backbone.has_source:
        torch.nn.init.normal_(colorer.backbone.output_layer.weight, std=0.2)
    return colorer


def with_lora(family: str, transformer: dict) -> dict:
    return dict(dit_colorer_config(family, transformer)['backbone'], lora=dict(r=2))


# The step


@pytest.mark.parametrize('sigma', [1.0, 0.75])
@pytest.mark.parametrize('prediction', ['velocity', 'data'])
def test_one_step_from_the_images_latents_by_hand(prediction: str, sigma: float, monkeypatch: pytest.MonkeyPatch):
    colorer = built('sana', prediction=prediction, sigma=sigma)
    batch = images(32, 48, 2)
    latents = colorer.codec.encode(batch)
    output = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    seen = {}

    def transformer(**inputs: object) -> tuple[torch.Tensor]:
        seen.update(inputs)
        return (output,)

    monkeypatch.setattr(colorer.backbone.transformer, 'forward', transformer)
    expected = output if prediction == 'data' else latents - sigma * output
    assert_close(colorer(batch), colorer.codec.decode(expected))
    assert torch.equal(seen['hidden_states'], latents)  # the image alone, without noise and without further channels
    assert seen['timestep'].tolist() == [1000 * sigma * colorer.backbone.transformer.config.timestep_scale] * 2
    # The prompt of a model from scratch is one token of zeros.
    assert seen['encoder_hidden_states'].shape == (2, 1, 32) and not seen['encoder_hidden_states'].any()


def test_from_scratch_the_map_starts_as_the_image():
    codec = dict(type='genseg_mm.LatentCodec', autoencoder=dict(type='genseg_mm.PatchCodec', patch_size=2))
    backbone = dit_colorer_config('sana')['backbone']
    backbone = dict(backbone, transformer=dict(backbone['transformer'], in_channels=12, out_channels=12))
    batch = images(32, 40)
    assert torch.equal(MODELS.build(dict(type='genseg_mm.DiTColorer', codec=codec, backbone=backbone))(batch), batch)
    # Read as data, zeros would be one flat colour, where the loss has no slope.
    data = MODELS.build(dict(type='genseg_mm.DiTColorer', codec=codec, backbone=backbone, prediction='data'))
    assert data(batch).std() > 1e-3


# Every family


@pytest.mark.parametrize('family', FAMILIES)
class TestEveryFamily:
    def test_any_size_alone_as_in_a_batch(self, family: str):
        colorer = built(family)
        rows, columns = colorer.multiples
        batch = images(2 * rows + 3, 4 * columns - 1, 2)
        with torch.no_grad():
            maps = colorer(batch)
            assert maps.shape == batch.shape and maps.dtype == torch.float32
            assert_close(maps[:1], colorer(batch[:1]), rtol=1e-4, atol=1e-4)
            # What is added at the right and bottom repeats the last row and column, and is cut off again.
            padded = np.pad(batch.numpy(), ((0, 0), (0, 0), (0, rows - 3), (0, 1)), 'edge')
            assert_close(colorer(torch.from_numpy(padded))[..., : -(rows - 3), :-1], maps, rtol=1e-4, atol=1e-4)
            other = colorer(batch.flip(-1))
        assert (other - maps).abs().max() > 1e-2

    def test_learns_through_the_decoder_and_leaves_it_alone(self, family: str):
        model = Gen2Seg(dit_colorer_config(family), normalize='sigmoid')
        torch.nn.init.normal_(model.colorer.backbone.output_layer.weight, std=0.2)
        frozen = {key: value.clone() for key, value in model.colorer.codec.autoencoder.state_dict().items()}
        before = {name: own.detach().clone() for name, own in model.named_parameters() if own.requires_grad}
        ids = torch.zeros(1, 16, 16, dtype=torch.int64)
        ids[:, 2:9, 1:8], ids[:, 8:15, 8:16] = 3, 5
        sample = SegDataSample(gt_instance_map=PixelData(data=ids))
        data = dict(inputs=[images(16, 16)[0] * 127.5 + 127.5], data_samples=[sample])
        optimizer = torch.optim.AdamW([own for own in model.parameters() if own.requires_grad], lr=1e-3)
        losses = [model.train().train_step(data, OptimWrapper(optimizer))['loss'].item() for _ in range(6)]
        assert losses[-1] < losses[0]
        sum(model(**model.data_preprocessor(data, True), mode='loss').values()).backward()
        assert [name for name, own in model.named_parameters() if own.requires_grad and own.grad is None] == []
        assert any(not torch.equal(own, before[name]) for name, own in model.named_parameters() if name in before)
        after = model.colorer.codec.autoencoder.state_dict()
        assert all(torch.equal(value, frozen[key]) for key, value in after.items())

    def test_folder_comes_back_and_lora_trains_its_adapters_alone(self, family: str, tmp_path: Path):
        colorer, batch = built(family), images(16, 16)
        channels = colorer.backbone.latent_channels
        colorer.save_pretrained(tmp_path)
        colorer.save_prompt(tmp_path / 'empty.safetensors')
        released = dict(
            type=f'diffusers.{type(colorer.backbone.transformer).__name__}.from_pretrained',
            pretrained_model_name_or_path=str(tmp_path),
            subfolder='transformer',
        )
        prompt = dict(prompt_embedding=str(tmp_path / 'prompt.safetensors'), codec=dit_colorer_config(family)['codec'])
        torch.manual_seed(0)  # of the autoencoders without weights
        loaded = built(family, transformer=released, **prompt)
        assert loaded.backbone.has_source and loaded.backbone.new_layers == []
        loaded.codec.load_state_dict(colorer.codec.state_dict())
        with torch.no_grad():
            expected = colorer(batch)
            assert_close(loaded(batch), expected)
        assert loaded.backbone.latent_channels == channels

        adapted = built(family, backbone=with_lora(family, released), **prompt)
        adapted.codec.load_state_dict(colorer.codec.state_dict())
        trained = [name for name, own in adapted.named_parameters() if own.requires_grad]
        assert trained and all('.lora_' in name for name in trained)
        with torch.no_grad():
            assert_close(adapted(batch), expected)  # adapters start at zero
            for name, own in adapted.named_parameters():
                if '.lora_B.' in name:
                    torch.nn.init.normal_(own, std=0.5)
            moved = adapted(batch)
        assert (moved - expected).abs().max() > 1e-3
        adapted.save_pretrained(tmp_path / 'adapted')
        assert not (tmp_path / 'adapted' / 'transformer').exists()
        loaded.backbone.load_lora(tmp_path / 'adapted' / 'lora')
        with torch.no_grad():
            assert_close(loaded(batch), moved)


def test_every_family_has_a_tiny_transformer():
    assert set(FAMILIES) == set(TRANSFORMERS)


@pytest.mark.parametrize(
    ('family', 'name'), [('wan', 'wan2.1-1.3b'), ('flux2', 'flux2-klein_lora'), ('qwen_image', 'qwen-image_lora')]
)
def test_full_size_configs_on_released_folders(family: str, name: str, tmp_path: Path):
    """Each with a tiny folder of its pipeline's own classes in place of the release."""
    make_pipeline(family, tmp_path / 'released')
    config = Config.fromfile(ROOT / f'configs/gen2seg/gen2seg_{name}_hypersim-vkitti2.py')

    def moved(value: object) -> object:
        if isinstance(value, dict):
            return {key: moved(own) for key, own in value.items()}
        if isinstance(value, str):
            return {config.released: str(tmp_path / 'released'), 'bfloat16': 'float32'}.get(value, value)
        return value

    model = MODELS.build(moved(config.model.to_dict())).train()
    prompt = model.colorer.prompt
    assert prompt.states.isfinite().all() and prompt.mask.any()
    assert prompt.states.shape[1] == (512 if family != 'qwen_image' else prompt.mask.sum())
    trained = [(name, own) for name, own in model.named_parameters() if own.requires_grad]
    assert all('.lora_' in name for name, _ in trained) == ('lora' in config.filename)
    rows, columns = model.colorer.multiples
    maps = model.colorer(images(2 * rows, 2 * columns + 5))
    assert maps.shape[-2:] == (2 * rows, 2 * columns + 5)
    maps.square().mean().backward()
    assert [name for name, own in trained if own.grad is None] == []
    assert not [name for name in model.state_dict() if 'codec' in name]  # the folder has them


@pytest.mark.parametrize('kind', ['wan', 'qwen_image', 'kl'])
def test_video_autoencoders_and_others(kind: str):
    """Their cut at -1 and 1, where no gradient passes, is not applied."""
    colorer = built('flux', codec=dict(type='genseg_mm.LatentCodec', autoencoder=AUTOENCODERS[kind]))
    with torch.no_grad():
        colorer.codec.autoencoder.decoder.conv_out.weight.mul_(50)
        maps = colorer(images(24, 16))
    assert maps.shape == (1, 3, 24, 16) and maps.abs().max() > 1
    assert not any(own.requires_grad for own in colorer.codec.parameters())


def test_gradient_checkpointing_changes_no_gradient():
    found = []
    for gradient_checkpointing in (False, True):
        colorer = built('sd3', gradient_checkpointing=gradient_checkpointing).train()
        colorer(images(16, 16)).square().mean().backward()
        found.append([own.grad for own in colorer.parameters() if own.requires_grad])
    for plain, recomputed in zip(*found, strict=True):
        assert_close(plain, recomputed, rtol=1e-4, atol=1e-7)


# Prompt


@pytest.mark.parametrize('family', ['qwen_image', 'wan', 'flux'])
def test_the_prompt_is_embedded_once(family: str, tmp_path: Path):
    encoder = genmask_config(family)['prompt_encoder']
    colorer = built(family, prompt_encoder=encoder, prompt='colour all instances')
    torch.manual_seed(0)
    empty = built(family, prompt_encoder=encoder)
    assert not [name for name, _ in colorer.named_parameters() if 'prompt' in name]
    assert colorer.prompt.mask.sum() > empty.prompt.mask.sum() == 1
    # The checkpoint holds the prompt that it was trained under, and so does a file.
    state = colorer.state_dict()
    assert {'prompt_states', 'prompt_mask'} <= set(state)
    colorer.save_prompt(tmp_path / 'prompt.safetensors')
    stored = built(family, prompt_embedding=str(tmp_path / 'prompt.safetensors'))
    assert all(torch.equal(*pair) for pair in zip(stored.prompt[:2], colorer.prompt[:2], strict=True))
    # The ranks of a sharded training that get their weights from the first read the file, too.
    with without_values():
        empty_handed = MODELS.build(dit_colorer_config(family, prompt_embedding=str(tmp_path / 'prompt.safetensors')))
        with pytest.raises(ValueError, match='no weights here, as where FSDP2 shards .* prompt_embedding=FILE'):
            MODELS.build(dit_colorer_config(family, prompt_encoder=encoder))
    assert torch.equal(empty_handed.prompt.states, colorer.prompt.states)
    assert all(one.is_meta for one in empty_handed.backbone.parameters())
    stored.load_state_dict(state, strict=True)
    batch = images(16, 16)
    with torch.no_grad():
        assert torch.equal(stored(batch), colorer(batch))
        empty.load_state_dict({**state, 'prompt_states': empty.prompt_states, 'prompt_mask': empty.prompt_mask}, False)
        assert family == 'flux' or (empty(batch) - colorer(batch)).abs().max() > 1e-6


def test_pooled_prompts_are_stored_too(tmp_path: Path):
    colorer = built('sd3')
    generator = torch.Generator().manual_seed(0)
    prompt = PromptEmbeddings(
        torch.randn(1, 4, 32, generator=generator),
        torch.tensor([[True, True, True, False]]),
        torch.randn(1, 24, generator=generator),
    )
    colorer._keep_prompt(prompt)
    colorer.save_prompt(tmp_path / 'p.safetensors')
    stored = built('sd3', prompt_embedding=str(tmp_path / 'p.safetensors'))
    assert all(torch.equal(*pair) for pair in zip(stored.prompt, prompt, strict=True))
    with torch.no_grad():
        assert (stored(images(16, 16)) - built('sd3')(images(16, 16))).abs().max() > 1e-5


# Size


def test_the_size_of_the_network():
    model = Gen2Seg(dit_colorer_config('sana'), processing_size=50)
    resize = NetworkResize(**model.network_resize())
    assert resize.sizes(600, 800) == ((37, 50), (48, 64))  # in proportion, cut; then padded to whole tokens of 16
    assert model.colorer.network_resize() == dict(longer_side=0, multiples=(16, 16), pad=True, whole=False)
    assert NetworkResize(**model.colorer.network_resize((40, 50))).sizes(9, 9) == ((40, 50), (40, 50))


@pytest.mark.parametrize('size', [0, 50, (40, 50)])
def test_behind_the_inferencer(size: int | tuple[int, int]):
    torch.manual_seed(0)
    model = Gen2Seg(dit_colorer_config('sana'), processing_size=size, prompting=dict(radius=60.0)).eval()
    infer = GenSegInferencer(model, show_progress=False)
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    (prediction,) = infer(picture, points=[[20, 30], [70, 10]])['predictions']
    assert prediction['masks'].shape == (2, 60, 90) and prediction['masks'][0, 30, 20]
    assert 0 <= prediction['color_map'].min() < 20 and 235 < prediction['color_map'].max() < 255.001


# Wrong arguments


def test_wrong_arguments_say_what_came(tmp_path: Path):
    for arguments, message in (
        (dict(sigma=0.0), r'sigma of DiTColorer must lie in \(0, 1\], but got 0.0'),
        (dict(prediction='noise'), "prediction must be one of velocity, data, but got 'noise'"),
        (dict(prompt_encoder={}, prompt_embedding='x'), 'prompt_encoder or prompt_embedding, but got both'),
        (dict(codec=genmask_config('wan')['codec']), 'of 20 channels, but the codec gives 4: they do not belong'),
        (dict(backbone=genmask_config('sana')['backbone']), 'family sana expects in_channels = out_channels where no'),
    ):
        with pytest.raises(ValueError, match=message):
            built('sana', **arguments)
    with pytest.raises(FileNotFoundError, match='prompt_embedding .*nowhere.*: no such file; DiTColorer.save_prompt'):
        built('sana', prompt_embedding=str(tmp_path / 'nowhere.safetensors'))
    colorer = built('sana')
    released = saved(colorer.backbone.transformer, tmp_path)
    with pytest.raises(ValueError, match='released transformer needs the prompt .* but got neither'):
        built('sana', transformer=released)
    colorer._keep_prompt(colorer.prompt._replace(states=torch.zeros(1, 1, 8)))
    colorer.save_prompt(tmp_path / 'narrow.safetensors')
    with pytest.raises(ValueError, match='prompts of width 32, but got 8 from .*narrow.*: set prompt_dims=8'):
        built('sana', prompt_embedding=str(tmp_path / 'narrow.safetensors'))
    colorer._keep_prompt(colorer.prompt._replace(mask=torch.ones(1, 2, dtype=torch.bool)))
    colorer.save_prompt(tmp_path / 'odd.safetensors')
    with pytest.raises(ValueError, match=r'odd.*: expected states \(1, L, D\), mask \(1, L\) .* but got'):
        built('sana', prompt_embedding=str(tmp_path / 'odd.safetensors'))
    noisy = torch.zeros(1, 20, 2, 2)
    with pytest.raises(ValueError, match='takes_images=False: expected no image_latents, but got some'):
        colorer.backbone(noisy, torch.ones(1), built('sana').prompt, noisy)
