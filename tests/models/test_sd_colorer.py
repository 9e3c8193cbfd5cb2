"""SDColorer: the released and the training graph by hand, freezing, memory switch, saving and loading."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_released import SCHEDULER, UNET, VAE, images, make_sd_folder
from torch.testing import assert_close

from genseg_mm.datasets.transforms import NetworkResize
from genseg_mm.models import Gen2Seg, SDColorer
from genseg_mm.models.colorers.sd_colorer import clean_latents

CONFIG = dict(unet=UNET, vae=VAE)
ABAR = 0.0046600949  # alphas_cumprod[999] of Stable Diffusion's schedule


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd_folder(tmp_path_factory.mktemp('released') / 'sd')


@pytest.fixture(scope='module')
def pipe(folder: Path):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(str(folder), safety_checker=None)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / 'copy'))


def decoded_by_hand(pipe, batch: torch.Tensor, prediction_type: str, parity: str) -> torch.Tensor:
    """The map out of the pipeline's own parts; the step is the library's DDIM step to the end."""
    from diffusers import DDIMScheduler

    released = parity == 'released'
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=prediction_type)
    scheduler.set_timesteps(1)
    assert scheduler.timesteps.tolist() == [999]
    padding = {} if released else dict(padding='max_length', max_length=77)
    ids = pipe.tokenizer('', return_tensors='pt', **padding).input_ids
    assert ids.shape == (1, 2 if released else 77)
    with torch.no_grad():
        latents = pipe.vae.encode(batch).latent_dist.mode() * 0.18215
        text = pipe.text_encoder(ids)[0].repeat(len(batch), 1, 1)
        output = pipe.unet(latents, 999, encoder_hidden_states=text).sample
        start = latents if released else torch.zeros_like(latents)
        clean = scheduler.step(output, 999, start).pred_original_sample
        return pipe.vae.decode(clean / 0.18215).sample


# Parity


@pytest.mark.parametrize('parity', ['released', 'training'])
@pytest.mark.parametrize('prediction_type', ['v_prediction', 'epsilon', 'sample'])
@pytest.mark.parametrize('size', [(64, 64), (40, 72)])
def test_color_map_is_that_of_the_pipelines_parts(
    folder: Path, pipe, size: tuple[int, int], prediction_type: str, parity: str
):
    colorer = dict(type='genseg_mm.SDColorer', pretrained=str(folder), prediction_type=prediction_type, parity=parity)
    batch = images(*size)
    decoded = decoded_by_hand(pipe, batch, prediction_type, parity)
    low, high = decoded.min(), decoded.max()
    expected = (decoded - low) / (high - low) * 255
    model = Gen2Seg(colorer, normalize='batch').eval()
    with torch.no_grad():
        assert_close(model.colorer(batch), decoded, rtol=1e-4, atol=1e-5)
    result = model.predict(batch)[0].pred_color_map.data
    assert (result - expected[0]).abs().max() < 1e-2  # of 255 levels


def test_the_two_graphs_differ_by_the_latent_and_the_padding(folder: Path, pipe, monkeypatch):
    batch = images(64, 64)
    colorer, maps = SDColorer(str(folder)).eval(), {}
    for graph in ((start, tokens) for start in ('image', 'zero') for tokens in (2, 77)):
        monkeypatch.setattr(colorer, 'graph', lambda graph=graph: graph)
        with torch.no_grad():
            maps[graph] = colorer(batch)
    for parity, graph in (('released', ('image', 2)), ('training', ('zero', 77))):
        expected = decoded_by_hand(pipe, batch, 'v_prediction', parity)
        assert_close(maps[graph], expected, rtol=1e-4, atol=1e-5)
    for one, first in maps.items():
        for other, second in maps.items():
            difference = (first - second).abs().max()
            assert (difference > 1e-3) == (one != other), (one, other)


def test_parity_follows_the_mode_unless_given(folder: Path):
    colorer = SDColorer(str(folder))
    assert colorer.train().graph() == ('zero', 77)
    assert colorer.eval().graph() == ('image', 2)
    assert SDColorer(str(folder), parity='released').train().graph() == ('image', 2)
    assert SDColorer(str(folder), parity='training').eval().graph() == ('zero', 77)


def test_prediction_type_and_schedule_come_from_the_folder(copied: Path):
    file = copied / 'scheduler/scheduler_config.json'
    settings = json.loads(file.read_text())
    assert SDColorer(str(copied)).prediction_type == 'v_prediction'
    file.write_text(json.dumps({**settings, 'prediction_type': 'epsilon', 'beta_end': 0.02}))
    colorer = SDColorer(str(copied))
    assert colorer.prediction_type == 'epsilon'
    betas = torch.linspace(0.00085**0.5, 0.02**0.5, 1000) ** 2
    assert_close(colorer.alpha_bar, float((1 - betas).prod()), rtol=1e-4, atol=0)
    # Settings of a training schedule, which the library does not know for DDIM, do no harm.
    file.write_text(json.dumps({**settings, '_class_name': 'PNDMScheduler', 'skip_prk_steps': True}))
    assert_close(SDColorer(str(copied)).alpha_bar, ABAR, rtol=1e-6, atol=0)


# The step


def test_clean_latents_by_hand():
    z, output = torch.tensor([2.0]), torch.tensor([0.5])
    a = 0.36  # sqrt(a) = 0.6, sqrt(1 - a) = 0.8
    assert_close(clean_latents(output, z, a, 'v_prediction'), torch.tensor([0.8]))  # 1.2 - 0.4
    assert_close(clean_latents(output, z, a, 'epsilon'), torch.tensor([8 / 3]))  # (2 - 0.4) / 0.6
    assert clean_latents(output, z, a, 'sample').item() == 0.5
    zero = torch.zeros(1)
    assert_close(clean_latents(output, zero, a, 'v_prediction'), torch.tensor([-0.4]))
    assert_close(clean_latents(output, zero, a, 'epsilon'), torch.tensor([-2 / 3]))


@pytest.mark.parametrize('a', [0.0047, 0.5, 0.99])
def test_true_outputs_lead_back_to_the_clean_latent(a: float):
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    z = a**0.5 * clean + (1 - a) ** 0.5 * noise
    velocity = a**0.5 * noise - (1 - a) ** 0.5 * clean
    for output, kind in ((velocity, 'v_prediction'), (noise, 'epsilon'), (clean, 'sample')):
        assert_close(clean_latents(output, z, a, kind), clean, rtol=1e-10, atol=1e-12)


# Training


def test_only_the_unet_learns_and_the_frozen_parts_stay_out_of_checkpoints(folder: Path):
    colorer = SDColorer(str(folder)).train()
    assert not colorer.codec.autoencoder.training
    before = {name: value.clone() for name, value in colorer.codec.autoencoder.state_dict().items()}
    unet = {name: value.clone() for name, value in colorer.unet.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in colorer.parameters() if p.requires_grad], lr=0.1)
    colorer(images(32, 32, 2)).square().mean().backward()
    for name, parameter in colorer.named_parameters():
        assert (parameter.grad is not None) == name.startswith('unet.'), name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    optimizer.step()
    after = colorer.codec.autoencoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert any(not torch.equal(value, unet[name]) for name, value in colorer.unet.state_dict().items())
    state = colorer.state_dict()
    assert {name.split('.')[0] for name in state} == {'unet'}
    fresh = SDColorer(str(folder)).eval()
    fresh.load_state_dict(state, strict=True)
    with torch.no_grad():
        assert torch.equal(fresh(images(32, 32)), colorer.eval()(images(32, 32)))


def test_gradient_checkpointing_changes_no_number(folder: Path):
    batch, results = images(32, 40), []
    for checkpointing in (False, True):
        colorer = SDColorer(str(folder), gradient_checkpointing=checkpointing).train()
        calls = []
        decoder = colorer.codec.autoencoder.decoder
        for block in (colorer.unet.mid_block.resnets[1], decoder.mid_block.resnets[0]):
            block.register_forward_pre_hook(lambda *_, c=calls: c.append(1))
        raw = colorer(batch)
        raw.square().mean().backward()
        assert len(calls) == (4 if checkpointing else 2)
        results.append((raw.detach(), [p.grad for p in colorer.unet.parameters()]))
    assert torch.equal(results[0][0], results[1][0])
    for plain, recomputed in zip(results[0][1], results[1][1], strict=True):
        assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)


def test_built_from_a_config():
    torch.manual_seed(0)
    colorer = SDColorer(config=CONFIG)
    assert (colorer.timestep, colorer.prediction_type) == (999, 'v_prediction')
    assert_close(colorer.alpha_bar, ABAR, rtol=1e-6, atol=0)
    assert colorer.text.shape == (1, 77, 12)
    assert colorer.text.abs().max() == 0
    assert any(name.startswith('codec.autoencoder.') for name in colorer.state_dict())
    colorer(images(16, 24, 2)).mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in colorer.unet.parameters())
    short = SDColorer(config=dict(CONFIG, scheduler=dict(num_train_timesteps=10)), prediction_type='sample')
    assert (short.timestep, short.prediction_type) == (9, 'sample')


def test_another_autoencoder():
    torch.manual_seed(0)
    config = dict(unet=dict(UNET, in_channels=20, out_channels=20), vae=dict(type='genseg_mm.PatchCodec'))
    colorer = SDColorer(config=config, gradient_checkpointing=True)
    batch = images(16, 24)
    colorer.unet.forward = lambda latents, *_, **__: type('Output', (), {'sample': latents})
    expected = colorer.codec.decode(colorer.codec.encode(batch) * -((1 - ABAR) ** 0.5))
    assert_close(colorer.train()(batch), expected, rtol=1e-5, atol=1e-6)


def test_size_of_the_network_and_wrong_size(folder: Path):
    colorer = SDColorer(str(folder))
    resize = NetworkResize(**colorer.network_resize())
    assert resize.sizes(480, 640)[1] == (576, 768)  # no key in model_index.json
    assert resize.sizes(427, 636)[1] == (520, 768)  # 515 rows and 5 of padding
    assert resize.sizes(4000, 3000)[1] == (768, 576)
    with pytest.raises(ValueError, match=r'multiples of 8 .* got \(64, 60\)'):
        colorer(images(64, 60))


# Saving


def test_saved_folder_is_the_source_bit_by_bit(folder: Path, tmp_path: Path):
    colorer = SDColorer(str(folder))
    with torch.no_grad():
        for parameter in colorer.unet.parameters():
            parameter.mul_(1.5).add_(0.01)
    target = tmp_path / 'trained'
    colorer.save_pretrained(target)
    for part in ('vae', 'text_encoder', 'tokenizer', 'scheduler'):
        for file in (folder / part).iterdir():
            assert (target / part / file.name).read_bytes() == file.read_bytes(), file
    trained = load_file(target / 'unet/diffusion_pytorch_model.safetensors')
    assert trained.keys() == colorer.unet.state_dict().keys()
    assert all(torch.equal(trained[n], v) for n, v in colorer.unet.state_dict().items())
    again = SDColorer(str(target)).eval()
    with torch.no_grad():
        assert torch.equal(again(images(32, 32)), colorer.eval()(images(32, 32)))


def test_saved_folder_opens_as_a_pipeline(folder: Path, tmp_path: Path):
    from diffusers import StableDiffusionPipeline

    colorer = SDColorer(str(folder))
    with torch.no_grad():
        colorer.unet.conv_out.bias.fill_(0.25)
    colorer.save_pretrained(tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(str(tmp_path))
    assert pipe.unet.conv_out.bias.tolist() == [0.25] * 4
    assert pipe.tokenizer('').input_ids == [512, 513]
    expected = decoded_by_hand(pipe, images(32, 32), 'v_prediction', 'released')
    with torch.no_grad():
        assert_close(colorer.eval()(images(32, 32)), expected, rtol=1e-4, atol=1e-5)


def test_other_parts_of_a_pipeline_are_left_out(copied: Path, tmp_path: Path):
    from diffusers import StableDiffusionPipeline

    index = json.loads((copied / 'model_index.json').read_text())
    index['safety_checker'] = ['stable_diffusion', 'StableDiffusionSafetyChecker']
    index['requires_safety_checker'] = True
    (copied / 'model_index.json').write_text(json.dumps(index))
    (copied / 'unet/diffusion_pytorch_model.bin').write_bytes(b'never read')
    (copied / 'vae/diffusion_pytorch_model.fp16.safetensors').write_bytes(b'never read')
    SDColorer(str(copied)).save_pretrained(tmp_path / 'out')
    files = {path.name for path in (tmp_path / 'out').rglob('*')}
    assert not {name for name in files if name.endswith(('.bin', '.fp16.safetensors'))}
    assert StableDiffusionPipeline.from_pretrained(str(tmp_path / 'out')).safety_checker is None


def test_saving_needs_a_source(copied: Path, tmp_path: Path):
    with pytest.raises(ValueError, match='built from a config, without text encoder'):
        SDColorer(config=CONFIG).save_pretrained(tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    colorer = SDColorer(str(copied))
    with pytest.raises(ValueError, match='the folder that the frozen parts come from'):
        colorer.save_pretrained(copied)
    shutil.rmtree(copied)
    with pytest.raises(FileNotFoundError, match='no such folder'):
        colorer.save_pretrained(tmp_path / 'out')


# Folders as older versions of the libraries wrote them


def test_older_names_of_weights_are_understood(folder: Path, copied: Path):
    """Stable Diffusion 2's VAE says query and proj_attn, its text encoder has text_model."""
    file = copied / 'vae/diffusion_pytorch_model.safetensors'
    renamed = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}
    state = load_file(file)
    for new, old in renamed.items():
        state = {name.replace(f'attentions.0.{new}.', f'attentions.0.{old}.'): value
                 for name, value in state.items()}  # fmt: skip
    assert sum('.query.' in name or '.proj_attn.' in name for name in state) == 8
    save_file(state, file, {'format': 'pt'})
    file = copied / 'text_encoder/model.safetensors'
    state = {f'text_model.{n.removeprefix("text_model.")}': v for n, v in load_file(file).items()}
    state['text_model.embeddings.position_ids'] = torch.arange(77)[None]
    save_file(state, file, {'format': 'pt'})
    (copied / 'tokenizer/tokenizer.json').unlink()
    old, new = SDColorer(str(copied)).eval(), SDColorer(str(folder)).eval()
    assert torch.equal(old.text, new.text)
    with torch.no_grad():
        assert torch.equal(old(images(32, 32)), new(images(32, 32)))


def test_half_precision_weights_are_trained_in_float32(copied: Path):
    for file in copied.rglob('*.safetensors'):
        save_file({n: v.half() for n, v in load_file(file).items()}, file, {'format': 'pt'})
    colorer = SDColorer(str(copied))
    assert {p.dtype for p in (*colorer.parameters(), colorer.text)} == {torch.float32}


# Mistakes


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({}, 'either config .* or pretrained .* got neither'),
        (dict(config=CONFIG, pretrained='x'), 'got both'),
        (dict(config=dict(unet=UNET)), 'unet, vae and optionally scheduler, but got unet'),
        (dict(config=dict(CONFIG, text={})), 'but got text, unet, vae'),
        (dict(config=CONFIG, parity='test'), "parity must be one of released, training, but got 't"),
        (dict(config=CONFIG, prediction_type='flow'), "v_prediction, epsilon, sample, but got 'flow"),
        (dict(config=CONFIG, timestep=1000), r'timestep must be 0 \.\.\. 999, but got 1000'),
        (
            dict(config=dict(CONFIG, unet=dict(UNET, in_channels=9))),
            'the 4 channels of the VAE, but got in_channels 9 and out_channels 4',
        ),
        (
            dict(
                config=dict(CONFIG, scheduler=dict(rescale_betas_zero_snr=True)),
                prediction_type='epsilon',
            ),
            'no estimate at timestep 999',
        ),
    ],
)  # fmt: skip
def test_wrong_arguments(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SDColorer(**arguments)


def test_wrong_text_width(copied: Path):
    file = copied / 'text_encoder/config.json'
    settings = json.loads(file.read_text())
    from transformers import CLIPTextConfig, CLIPTextModel

    CLIPTextModel(CLIPTextConfig(**{**settings, 'hidden_size': 16})).save_pretrained(file.parent)
    with pytest.raises(ValueError, match='prompts of width 12, but the text encoder gives 16'):
        SDColorer(str(copied))


def test_scheduler_of_the_tiny_folder_is_that_of_stable_diffusion(folder: Path):
    settings = json.loads((folder / 'scheduler/scheduler_config.json').read_text())
    assert {key: settings[key] for key in SCHEDULER} == SCHEDULER
