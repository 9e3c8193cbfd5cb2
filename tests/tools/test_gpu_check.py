"""GPU acceptance, tried on the CPU: checks that can fail, one failure that stops no other, the report."""

import json
from argparse import Namespace

import gpu_check
import pytest
import torch
from models_without_weights import build_parts, training_forward

ARGS = Namespace(device='cpu', batch=2, steps=1, out='unused')


def test_checks_measure_and_can_fail(monkeypatch):
    numbers = gpu_check.coloring_loss(ARGS)
    assert 0 < numbers['gradient_error'] < 1e-4 and numbers['milliseconds'] > 0
    exact = gpu_check.tiled_loss

    def rounded(colors, *rest):
        return exact(colors if colors.dtype == torch.float64 else colors.bfloat16().float(), *rest)

    monkeypatch.setattr(gpu_check, 'tiled_loss', rounded)
    with pytest.raises(RuntimeError, match='expected the loss of float64 to 1e-5'):
        gpu_check.coloring_loss(ARGS)
    monkeypatch.undo()
    assert gpu_check.prompting(ARGS)['pixels_other_than_on_cpu'] == 0


def test_step_of_a_whole_model_counts_its_work():
    numbers = gpu_check.genmask_step(ARGS)
    assert numbers['images_per_second'] == pytest.approx(2 / numbers['seconds_of_a_step'])
    model = gpu_check.Config.fromfile(gpu_check.ROOT / gpu_check.TINY[1]).model
    # Patches, the four blocks' linear layers and attention: more than two operations per weight, token and pass.
    tokens, weights = 2 * 2 * 8 * 8, numbers['parameters_trained']
    assert numbers['teraflops'] * numbers['seconds_of_a_step'] * 1e12 > 0.5 * 3 * 2 * tokens * weights
    parts = build_parts(model, 'cpu').train()
    training_forward(parts, 2, (64, 64), 128).backward()
    gradients = {name for name, own in parts.named_parameters() if own.grad is not None}
    assert {name.split('.')[0] for name in gradients} == {'backbone'}  # prompts are random, the codec frozen


def test_a_failing_check_stops_no_other_and_is_in_the_report(tmp_path, monkeypatch, capsys):
    def outcome(name, args):
        numbers = dict(status='passed', numbers=dict(share=0.1234567, name='a'))
        failed = dict(status='failed', why='RuntimeError: a | b')
        return dict(check=name, what='What.', seconds=1.0, **(failed if name == 'precision' else numbers))

    monkeypatch.setattr(gpu_check, 'run_check', outcome)
    arguments = ['gpu_check.py', '--device', 'cpu', '--checks', 'precision', 'prompting', '--out', str(tmp_path)]
    monkeypatch.setattr('sys.argv', arguments)
    with pytest.raises(SystemExit, match='1'):
        gpu_check.main()
    report = json.loads((tmp_path / 'gpu_check.json').read_text())
    assert [own['status'] for own in report['checks']] == ['failed', 'passed']
    page = (tmp_path / 'gpu_check.md').read_text()
    assert r'RuntimeError: a \| b' in page and 'share 0.123; name a' in page
    assert 'precision: failed in 1 s RuntimeError' in capsys.readouterr().out
