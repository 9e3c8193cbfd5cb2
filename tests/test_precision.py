"""The one place that says in which precision a model is evaluated."""

import pytest
import torch

from genseg_mm.benchmarking.jobs import effective_config, model_sha256, read_model_config
from genseg_mm.config_file import read_config_file
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.launch import ToolParser, add_speed_arguments, set_speed
from genseg_mm.models import LatentCodec
from genseg_mm.precision import (
    evaluation_autocast,
    evaluation_dtype,
    evaluation_settings,
    prepare_evaluation,
    set_evaluation,
)


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        (dict(), None),
        (dict(optim_wrapper=None), None),
        (dict(optim_wrapper=dict(type='OptimWrapper')), None),
        (dict(optim_wrapper=dict(type='genseg_mm.AutocastOptimWrapper')), torch.bfloat16),
        (dict(optim_wrapper=dict(type='AmpOptimWrapper')), torch.float16),
        (dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16')), torch.bfloat16),
        (dict(optim_wrapper=dict(type='AmpOptimWrapper'), evaluation_dtype='float32'), None),
        (dict(evaluation_dtype=torch.float16), torch.float16),
    ],
)
def test_it_follows_from_the_config(config, expected):
    assert evaluation_dtype(config) is expected
    with evaluation_autocast(config, 'cpu'):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (expected or torch.float32)


def test_wrong_names_are_refused():
    with pytest.raises(
        ValueError, match="evaluation_dtype: expected one of float32, bfloat16, float16, but got 'half'"
    ):
        evaluation_dtype(dict(evaluation_dtype='half'))


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ('genmask/refcoco.py', torch.bfloat16),
        ('genmask/genmask_sana_shapes_tiny.py', None),
        ('gen2seg/gen2seg_unet_shapes_tiny.py', None),
    ],
)
def test_shipped_configs(config, expected):
    assert evaluation_dtype(read_config_file(f'configs/{config}')) is expected


def test_decoding_without_gradients_keeps_the_autoencoders_precision():
    codec = LatentCodec(dict(type='genseg_mm.PatchCodec'))
    latents = torch.randn(1, codec.latent_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = codec.decode(latents)
    with torch.autocast('cpu', torch.bfloat16):
        with torch.no_grad():
            assert torch.equal(codec.decode(latents), plain)
        assert (codec.decode(latents) - plain).abs().max() > 1e-4  # as a loss in pixel space trains


def test_the_inferencer_runs_in_it():
    cfg = read_config_file('configs/genmask/genmask_sana_shapes_tiny.py')
    image = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    found = []
    with pytest.warns(UserWarning, match='no weights'):
        inferencer = GenSegInferencer(cfg, device='cpu')
    types: list[torch.dtype] = []
    inferencer.model.backbone.output_layer.register_forward_hook(lambda *args: types.append(args[-1].dtype))
    for dtype in (None, 'bfloat16', 'float32'):
        inferencer.cfg.evaluation_dtype = dtype
        inferencer(image, texts='the red circle')
        inferencer(texts='a red circle', task='generate', num_steps=1, guidance_scale=1.0)
        found.append(types.copy())
        types.clear()
    assert found == [[torch.float32] * 2, [torch.bfloat16] * 2, [torch.float32] * 2]


MODELS = dict(
    unet='gen2seg_unet_shapes_long_tiny', mae='gen2seg_mae_shapes_long_tiny', genmask='genmask_sana_shapes_long_tiny'
)
PART = dict(
    unet=lambda model: model.colorer.unet,
    mae=lambda model: model.colorer.mae.vit.layers[0],
    genmask=lambda model: model.backbone.transformer,
)


def first_linear_output(inferencer, image):
    """Type of what the first linear layer gives while a picture is predicted, and its prediction."""
    types = []
    layer = next(own for own in inferencer.model.modules() if isinstance(own, torch.nn.Linear))
    handle = layer.register_forward_hook(lambda *args: types.append(args[-1].dtype))
    result = inferencer(image, **prompts_of(inferencer))['predictions'][0]
    handle.remove()
    return types[0], result


def prompts_of(inferencer):
    return dict(texts='the red circle') if inferencer.takes_texts else dict(points=[[20, 30]])


@pytest.fixture(scope='module')
def image():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (64, 64, 3), generator=generator, dtype=torch.uint8).numpy()


@pytest.mark.parametrize('kind', MODELS)
def test_precision_of_the_inferencer(kind, image):
    """bf16 computes in bfloat16 and moves few pixels."""
    plain = GenSegInferencer(MODELS[kind], device='cpu')
    dtype, expected = first_linear_output(plain, image)
    assert dtype == torch.float32
    dtype, found = first_linear_output(GenSegInferencer(MODELS[kind], device='cpu', precision='bf16'), image)
    assert dtype == torch.bfloat16
    assert (found['masks'] != expected['masks']).mean() < 0.02


@pytest.mark.parametrize('kind', [pytest.param('unet', marks=pytest.mark.slow), 'mae', 'genmask'])
def test_a_compiled_graph_run_as_it_is_gives_the_same(kind, image):
    plain = GenSegInferencer(MODELS[kind], device='cpu')
    expected = plain(image, **prompts_of(plain))['predictions'][0]
    torch._dynamo.reset()
    compiled = GenSegInferencer(MODELS[kind], device='cpu', compile=dict(backend='eager'))
    assert PART[kind](compiled.model)._compiled_call_impl is not None
    found = compiled(image, **prompts_of(compiled))['predictions'][0]
    assert (found['masks'] == expected['masks']).all()
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    assert plain.cfg.get('evaluation_compile') is False and compiled.cfg.evaluation_compile == dict(backend='eager')


def test_an_autoencoder_in_another_precision(image):
    kinds = (None, 'bf16')
    plain, switched = (GenSegInferencer(MODELS['genmask'], device='cpu', codec_precision=own) for own in kinds)
    latents = torch.randn(1, 20, 4, 4, generator=torch.Generator().manual_seed(0))
    pictures = []
    for inferencer, dtype in ((plain, torch.float32), (switched, torch.bfloat16)):
        codec = inferencer.model.codec
        assert {own.dtype for own in codec.autoencoder.buffers()} == {dtype}
        assert codec.latents_mean.dtype == torch.float32
        assert first_linear_output(inferencer, image)[0] == torch.float32  # of the network
        pictures.append(codec.decode(latents))
    assert 0 < (pictures[0] - pictures[1]).abs().max() < 0.05  # of [-1, 1]
    with pytest.raises(ValueError, match='--codec-precision: expected a model with an autoencoder, but Gen2Seg has'):
        GenSegInferencer(MODELS['mae'], device='cpu', codec_precision='bf16')


def test_channels_last_changes_the_layout_alone(image):
    plain, switched = (GenSegInferencer(MODELS['unet'], device='cpu', channels_last=own) for own in (False, True))
    weights = [own.model.colorer.unet.conv_in.weight for own in (plain, switched)]
    assert weights[0].is_contiguous() and weights[1].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(*weights)
    maps = [own(image)['predictions'][0]['color_map'] for own in (plain, switched)]
    assert abs(maps[0] - maps[1]).max() < 0.01  # of 255
    with pytest.raises(ValueError, match='--channels-last: expected a model with 2-D convolutions, but Gen2Seg has'):
        GenSegInferencer(MODELS['mae'], device='cpu', channels_last=True)


def test_what_cannot_be_is_one_line(monkeypatch):
    with pytest.raises(ValueError, match="precision: expected one of fp32, bf16, fp16, but got 'half'"):
        set_evaluation({}, precision='half')
    with pytest.raises(ValueError, match="codec_precision: expected one of fp32, bf16, fp16, but got 'half'"):
        set_evaluation({}, codec_precision='half')
    with pytest.raises(ValueError, match="evaluation_codec_dtype: expected one of float32, .* but got 'int8'"):
        evaluation_settings(dict(evaluation_codec_dtype='int8'))
    with pytest.raises(ValueError, match="evaluation_compile: expected True, False or a dict .* but got 'yes'"):
        evaluation_settings(dict(evaluation_compile='yes'))
    with pytest.raises(ValueError, match='evaluation_channels_last: expected True or False, but got 1'):
        evaluation_settings(dict(evaluation_channels_last=1))
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match='--compile: expected a Gen2Seg .* but got a Linear'):
        prepare_evaluation(model, dict(evaluation_compile=True), torch.device('cpu'))
    model.compiled_parts = lambda: [model]
    with pytest.raises(ValueError, match='--compile: torch.compile makes no kernel for cpu here; .*nonsense'):
        prepare_evaluation(model, dict(evaluation_compile=dict(backend='nonsense')), torch.device('cpu'))
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'an old card')
    with pytest.raises(ValueError, match='--precision bf16: an old card has no bfloat16; use --precision fp16 or fp32'):
        prepare_evaluation(model, dict(evaluation_dtype='bfloat16'), torch.device('cuda'))


def test_a_network_that_does_not_compile_is_named():
    from torch._dynamo.exc import Unsupported

    cfg = dict(evaluation_compile=True)
    message = r'--compile: this model cannot be compiled here \(an odd call\)'
    with pytest.raises(ValueError, match=message), evaluation_autocast(cfg, 'cpu'):
        raise Unsupported('an odd call')
    with pytest.raises(RuntimeError, match='something else'), evaluation_autocast(cfg, 'cpu'):
        raise RuntimeError('something else')


def test_switches_reach_a_benchmark():
    """They are part of a result's key: what was measured without them is measured again."""
    entry = dict(config='gen2seg_unet_shapes_long_tiny', checkpoint=None, settings=None)
    plain, _ = read_model_config(entry)
    switched, _ = read_model_config(dict(entry, speed=dict(precision='bf16', compile=True, channels_last=True)))
    codec, _ = read_model_config(dict(entry, speed=dict(codec_precision='bf16')))
    parts = [model_sha256(own) for own in (plain, switched)]
    assert len({*parts, model_sha256(codec)}) == 3
    benchmark = dict(dataset=dict(type='X', pipeline=[]), evaluator=dict(type='genseg_mm.ReferringMetric'))
    cfg = effective_config(switched, benchmark)
    assert (cfg.evaluation_dtype, cfg.evaluation_compile, cfg.evaluation_channels_last) == ('bfloat16', True, True)
    assert 'evaluation_compile' not in effective_config(plain, benchmark)
    assert effective_config(codec, benchmark).evaluation_codec_dtype == 'bfloat16'


def test_switches_of_a_command_line():
    parser = ToolParser()
    add_speed_arguments(parser)
    cfg = dict(evaluation_dtype='float16')
    set_speed(cfg, parser.parse_args([]))
    assert cfg == dict(evaluation_dtype='float16')
    words = ['--precision', 'fp32', '--codec-precision', 'bf16', '--compile', '--channels-last']
    set_speed(cfg, parser.parse_args(words))
    assert cfg == dict(
        evaluation_dtype='float32', evaluation_codec_dtype='bfloat16', evaluation_compile=True,
        evaluation_channels_last=True,
    )  # fmt: skip
