"""Published weights: the model's tensors alone, read back by the loaders of checkpoints."""

from functools import partial

import pytest
import torch
from safetensors import safe_open

from genseg_mm.checkpoint import load_weights_only


@pytest.fixture
def publish(run_tool):
    return partial(run_tool, 'model_converters/publish_model.py')


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'iter_7.pth'
    state = {'module.weight': torch.tensor([1 / 3, 2.0]), 'steps': torch.tensor(9)}
    meta = dict(iter=7, seed=3, experiment_name='run')
    torch.save(dict(state_dict=state, meta=meta, optimizer=dict(state={0: torch.ones(5)})), path)
    return path


def test_weights_are_kept_and_the_rest_left(publish, checkpoint, tmp_path):
    whole, half = tmp_path / 'a/whole.safetensors', tmp_path / 'half.safetensors'
    assert publish(checkpoint, whole)[0] == 0
    weights = load_weights_only(str(whole))
    assert sorted(weights) == ['steps', 'weight'] and weights['steps'] == 9
    assert torch.equal(weights['weight'], torch.tensor([1 / 3, 2.0]))
    with safe_open(whole, 'pt') as file:
        facts = file.metadata()
    assert (facts['iter'], facts['seed'], facts['experiment_name']) == ('7', '3', 'run')
    assert publish(checkpoint, half, '--half')[0] == 0
    assert torch.equal(load_weights_only(str(half))['weight'], torch.tensor([1 / 3, 2.0]).half())


def test_wrong_input_is_refused_in_one_line(publish, checkpoint, tmp_path):
    out = tmp_path / 'out.safetensors'
    out.write_bytes(b'mine')
    for arguments, message in (
        ((checkpoint, out), 'exists; --force replaces it'),
        ((checkpoint, tmp_path / 'out.pth'), 'must end in .safetensors'),
        ((tmp_path / 'no.pth', tmp_path / 'b.safetensors'), 'does not exist'),
    ):
        code, _, error = publish(*arguments)
        assert code != 0 and message in error.splitlines()[0]
    assert out.read_bytes() == b'mine'
    alone, worse = tmp_path / 'alone.pth', tmp_path / 'worse.pth'
    torch.save(dict(weight=torch.ones(2)), alone)
    torch.save(dict(state_dict=dict(weight='text')), worse)
    assert 'alone.pth must be a checkpoint of a training' in publish(alone, out, '--force')[2]
    assert 'worse.pth holds no weights' in publish(worse, out, '--force')[2]
    assert out.read_bytes() == b'mine'
    big = tmp_path / 'big.pth'
    torch.save(dict(state_dict=dict(weight=torch.tensor([1e6]))), big)
    assert 'does not fit into float16' in publish(big, out, '--half', '--force')[2]
