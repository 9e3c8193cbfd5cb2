"""Costs of models: hand-worked operations and parameters, shapes against real passes, the tool."""

import json
import statistics
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from costs import (
    PhaseMeter,
    clock,
    count,
    count_flops,
    input_size,
    made_up_batch,
    parameters,
    peak_memory,
    prediction,
    quartiles,
)
from mmengine.config import Config
from models_without_weights import build_on_meta, check_weights, count_on_meta
from torch import nn

from genseg_mm.models import Gen2Seg
from genseg_mm.registry import MODELS

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'


def flops_of(function) -> int:
    with torch.no_grad(), count_flops() as counter:
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_flops_of_hand_worked_layers(device):
    picture = torch.ones(2, 3, 8, 6, device=device)
    layer = nn.Conv2d(3, 5, 3, padding=1, device=device)
    # Of each of 2 * 5 * 8 * 6 values: 3 * 3 * 3 products and sums.
    assert flops_of(lambda: layer(picture)) == 2 * (2 * 5 * 8 * 6) * 27
    strided = nn.Conv2d(3, 5, 2, stride=2, device=device)
    assert flops_of(lambda: strided(picture)) == 2 * (2 * 5 * 4 * 3) * 12
    linear = nn.Linear(6, 7, device=device)
    assert flops_of(lambda: linear(picture)) == 2 * (2 * 3 * 8 * 7) * 6
    query, key = (torch.ones(1, 2, n, 4, device=device) for n in (7, 11))
    # Two heads: 7 x 11 scores of width 4, then 7 x 4 values of 11.
    assert flops_of(lambda: F.scaled_dot_product_attention(query, key, key)) == 2 * 2 * (7 * 11 * 4 + 7 * 4 * 11)


def test_flops_of_the_fused_layers_of_torch():
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    tokens = torch.ones(1, 5, 8)
    projections = 2 * 5 * 8 * (3 * 8) + 2 * 5 * 8 * 8
    attention = 2 * 2 * (5 * 5 * 4 + 5 * 4 * 5)
    assert flops_of(lambda: layer(tokens, tokens, tokens)) == projections + attention
    assert torch.backends.mha.get_fastpath_enabled()


def test_phases_do_not_count_twice():
    used = [0]

    class Owner:
        def inner(self):
            used[0] += 5
            return 'result'

    owner = Owner()
    meter = PhaseMeter(lambda: used[0])
    meter.watch(owner, 'inner', 'inner')
    meter.start_round()
    with meter.phase('outer'):
        used[0] += 1
        with meter.phase('middle'):
            used[0] += 10
            assert owner.inner() == 'result'
            owner.inner()
        used[0] += 2
    assert meter.rounds == [dict(inner=10, middle=10, outer=3)]
    meter.release()
    owner.inner()
    assert meter.rounds == [dict(inner=10, middle=10, outer=3)]
    assert 'inner' not in vars(owner)


def test_quartiles_of_hand_worked_times():
    rounds = [dict(a=float(n), total=2.0) for n in (1, 2, 3, 4, 9)]
    assert quartiles(rounds) == dict(a=(2.0, 3.0, 4.0), total=(2.0, 2.0, 2.0))
    assert quartiles([dict(a=7.0)]) == dict(a=(7.0, 7.0, 7.0))
    # A phase that a repeat does not have took no time in it.
    assert quartiles([dict(a=4.0), {}, {}])['a'] == (0.0, 0.0, 2.0)


def conv_model(**settings):
    colorer = dict(type='torch.nn.Conv2d', in_channels=3, out_channels=3, kernel_size=1)
    return Gen2Seg(colorer, **settings).eval()


def test_costs_of_a_hand_counted_model():
    model = conv_model(normalize='none')
    row = dict(part='colorer', type='Conv2d', total=12, trainable=12, frozen=0)
    assert parameters(model) == [row]  # 9 weights, 3 biases
    model.colorer.bias.requires_grad_(False)
    assert parameters(model) == [{**row, 'trainable': 9, 'frozen': 3}]
    found = count(model, prediction(model, made_up_batch((4, 6), num_prompts=0)))
    assert found == dict(colorer=2 * (3 * 4 * 6) * 3)
    # A shared parameter is its first part's.
    model.head = nn.Linear(3, 3)
    model.head.weight = model.colorer.weight
    assert [own['total'] for own in parameters(model)] == [12, 3]


def test_a_prediction_starts_anew_at_each_call():
    model = conv_model(normalize='none')
    batch = made_up_batch((4, 6), batch=2, num_prompts=3)
    run = prediction(model, batch)
    first, second = run(), run()
    assert torch.equal(first[1].pred_color_map.data, second[1].pred_color_map.data)
    assert first[0].pred_instances.masks.shape == (3, 4, 6)
    assert all('pred_color_map' not in sample for sample in batch['data_samples'])


def test_peak_memory_of_a_hand_counted_call():
    data = torch.ones(1000)

    def run():
        larger = data.repeat(3)  # 12,000 bytes
        return larger + 1  # 12,000 more, while the first are held

    assert peak_memory(run, torch.device('cpu')) == pytest.approx(24_000, abs=500)


def test_shapes_alone_cost_what_a_real_pass_costs():
    cfg = Config.fromfile(CONFIGS / '_base_/models/gen2seg_sd2_tiny.py')
    model, size = MODELS.build(cfg.model).eval(), (64, 96)
    real = count(model, prediction(model, made_up_batch(size, num_prompts=0)))
    parts = build_on_meta(cfg.model)
    shapes, left_out = count_on_meta(parts, cfg.model, size)
    assert shapes == {key: real[key] for key in ('encode', 'denoise', 'decode')}
    assert real.keys() == shapes.keys()
    assert left_out == ['what points do with the map']
    assert parameters(parts) == parameters(model)
    cfg = Config.fromfile(CONFIGS / '_base_/models/genmask_sana_tiny.py')
    # As many text tokens as the made-up prompt has bytes, with its end.
    cfg.model.prompt_encoder.max_length = len('the large red object on the left') + 1
    model = MODELS.build(cfg.model).eval()
    real = count(model, prediction(model, made_up_batch((64, 64))))
    shapes, left_out = count_on_meta(build_on_meta(cfg.model), cfg.model, (64, 64))
    assert shapes == real
    assert left_out == []
    cfg.model.mask_head.num_steps = 3
    thrice, _ = count_on_meta(build_on_meta(cfg.model), cfg.model, (64, 64))
    assert thrice['denoise'] == 3 * real['denoise']


def test_released_sizes_without_weights():
    cfg = Config.fromfile(CONFIGS / '_base_/models/gen2seg_sd2.py')
    rows = parameters(build_on_meta(cfg.model))
    # The numbers of Stable Diffusion 2's files.
    assert [(own['part'], own['total'], own['trainable']) for own in rows] == [
        ('colorer.unet', 865_910_724, 865_910_724),
        ('colorer.codec', 83_653_863, 0),
    ]
    cfg = Config.fromfile(CONFIGS / '_base_/models/gen2seg_vit-b.py')
    with pytest.raises(ValueError, match='--meta knows GenMask and Gen2Seg, but got'):
        build_on_meta(cfg.model)


def test_sizes_from_a_folder(tmp_path):
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                 decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
                 decoder_intermediate_size=16, image_size=16, patch_size=8)  # fmt: skip
    (tmp_path / 'mae').mkdir()
    (tmp_path / 'mae' / 'config.json').write_text(json.dumps(dict(sizes, model_type='vit_mae')))
    colorer = dict(type='genseg_mm.MAEColorer', pretrained=str(tmp_path / 'mae'))
    model = dict(type='genseg_mm.Gen2Seg', colorer=colorer)
    built = MODELS.build(dict(type='genseg_mm.MAEColorer', config=sizes))
    expected = sum(own.numel() for own in built.parameters())
    assert parameters(build_on_meta(model))[0]['total'] == expected
    check_weights(model)
    colorer['pretrained'] = 'nobody/nothing'
    with pytest.raises(ValueError, match='model.colorer .*the sizes of nobody/nothing are not'):
        build_on_meta(model)
    with pytest.raises(FileNotFoundError, match='MAEColorer. needs nobody/nothing. Fetch them'):
        check_weights(model)


def test_size_of_the_input():
    resize = dict(type='mmseg.Resize', scale=(96, 72))
    part = dict(pipeline=[dict(type='Load'), resize])
    loader = dict(dataset=dict(datasets=[dict(dataset=part)]))
    assert input_size(dict(test_dataloader=loader)) == (72, 96)
    with pytest.raises(ValueError, match='no test_dataloader'):
        input_size({})


@pytest.fixture
def run(run_tool):
    return partial(run_tool, 'analysis_tools/get_flops.py')


def test_the_tool_on_a_tiny_config(tmp_path, run):
    out = tmp_path / 'cost.json'
    config = CONFIGS / 'gen2seg/gen2seg_unet_shapes_tiny.py'
    options = ('--latency', '--repeats', 3, '--warmup', 1, '--json', out)
    code, text, _ = run(config, *options)
    assert code == 0
    found = json.loads(out.read_text())
    assert found['shape'] == [64, 64]
    assert [own['total'] for own in found['parameters']] == [1_209_532]
    assert '| all |  | 1,209,532 | 1,209,532 | 0 |' in text
    assert found['flops'].keys() == {'colorer', 'prompting'}
    seconds = found['latency']['seconds']
    low, middle, high = seconds['total']
    assert 0 < low <= middle <= high
    parts = statistics.fsum(own[1] for name, own in seconds.items() if name != 'total')
    assert parts == pytest.approx(middle, rel=0.5)
    assert found['latency']['weight_bytes'] == 4 * 1_209_532
    assert 'cpu, float32, ' in text and 'not compiled' in text


def test_the_tool_tells_what_is_missing(run):
    config = CONFIGS / 'genmask/refcoco.py'
    code, _, errors = run(config)
    assert code == 2
    assert 'needs Wan-AI/Wan2.1-T2V-1.3B-Diffusers/vae; model.prompt_encoder.encoder' in errors
    assert 'or count without weights: --meta' in errors
    code, _, errors = run(config, '--shape', 8, 8, 8)
    assert code == 2 and '--shape takes height and width, but got [8, 8, 8]' in errors
    base = CONFIGS / '_base_/schedules/adamw_cosine_tiny.py'
    code, _, errors = run(base)
    assert code == 2 and 'adamw_cosine_tiny.py has no model' in errors


def test_clock_of_the_process():
    wall, own = clock(torch.device('cpu')), clock(torch.device('cpu'), cpu_time=True)
    before = wall(), own()
    sum(range(200_000))
    assert 0 < own() - before[1] < 5 * (wall() - before[0]) + 0.1
