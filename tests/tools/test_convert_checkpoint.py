"""Checkpoints turned into one another and back, with the same numbers."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / 'models'))

from tiny_dit import dit_inputs, saved, tiny_backbone

from genseg_mm.checkpoint import load_weights_only
from genseg_mm.models.dit_backbone import DiTBackbone
from genseg_mm.sharding.sharded_checkpoints import save_sharded

LORA = dict(r=4, lora_alpha=8)


@pytest.fixture
def convert(run_tool):
    return partial(run_tool, 'model_converters/convert_checkpoint.py')


class Model(nn.Module):
    """As a GenMask has its parts."""

    def __init__(self, backbone: DiTBackbone) -> None:
        super().__init__()
        self.backbone, self.codec = backbone, nn.Linear(2, 2)


def trained(backbone: DiTBackbone, folder: Path) -> Path:
    """A checkpoint of a training, as a runner writes it to one file."""
    model = Model(backbone)
    params = [own for own in model.parameters() if own.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-2)
    for _ in range(2):
        backbone(*dit_inputs(backbone)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    folder.mkdir(exist_ok=True)
    checkpoint = dict(
        meta=dict(iter=2, time='t', seed=3),
        message_hub={},
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=2)],
    )
    torch.save(checkpoint, folder / 'iter_2.pth')
    save_sharded(folder / 'iter_2', model, optimizer, {key: checkpoint[key] for key in ('meta', 'message_hub')})
    return folder / 'iter_2.pth'


def write_config(folder: Path, source: dict, **backbone: object) -> Path:
    text = f"model = dict(type='genseg_mm.GenMask', backbone=dict(type='genseg_mm.DiTBackbone', family='wan', transformer={source!r}, **{backbone!r}))"  # noqa: E501
    (folder / 'config.py').write_text(text)
    return folder / 'config.py'


def same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(own, second[key]) for key, own in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def test_there_and_back_is_the_same(convert, tmp_path):
    path = trained(tiny_backbone('wan'), tmp_path / 'run')
    folder, back, again = tmp_path / 'iter_2', tmp_path / 'back.pth', tmp_path / 'again.pth'
    assert convert(path, folder)[0] == 0
    assert convert(folder, back)[0] == 0
    assert same(load_weights_only(str(back)), load_weights_only(str(path)))
    assert convert(tmp_path / 'run/iter_2', again)[0] == 0
    expected = {key: own for key, own in load_weights_only(str(path)).items() if key != 'param_schedulers'}
    assert same(load_weights_only(str(again)), expected)
    assert convert(folder, tmp_path / 'small.pth', '--weights-only')[0] == 0
    small = load_weights_only(str(tmp_path / 'small.pth'))
    assert small.keys() == {'state_dict', 'meta'} and same(small['state_dict'], expected['state_dict'])


def test_a_released_folder_and_back(convert, tmp_path):
    """What from_pretrained opens is the trained transformer, and a released one is weights to start from."""
    source = saved(tiny_backbone('wan').transformer, tmp_path / 'released')
    config = write_config(tmp_path, source)
    backbone = DiTBackbone('wan', source)
    path = trained(backbone, tmp_path / 'run')
    for checkpoint, out in ((path, tmp_path / 'a'), (tmp_path / 'run/iter_2', tmp_path / 'b')):
        assert convert(checkpoint, out, '--config', config) == (0, f'{out}/transformer written\n', '')
        reloaded = DiTBackbone('wan', {**source, 'pretrained_model_name_or_path': str(out)})
        assert same(reloaded.state_dict(), backbone.state_dict())
    assert convert(tmp_path / 'a', tmp_path / 'weights.pth')[0] == 0
    weights = load_weights_only(str(tmp_path / 'weights.pth'))['state_dict']
    assert same(weights, {f'backbone.{name}': own for name, own in backbone.state_dict().items()})


@pytest.mark.parametrize('merge', [False, True])
def test_adapters_are_kept_or_merged(convert, tmp_path, merge):
    source = saved(tiny_backbone('wan').transformer, tmp_path / 'released')
    config = write_config(tmp_path, source, lora=LORA)
    backbone = DiTBackbone('wan', source, lora=LORA)
    trained(backbone, tmp_path / 'run')
    out = tmp_path / 'out'
    assert convert(tmp_path / 'run/iter_2', out, '--config', config, *['--merge-lora'] * merge)[0] == 0
    if merge:
        reloaded = DiTBackbone('wan', {**source, 'pretrained_model_name_or_path': str(out)})
        assert not any('lora' in name for name in reloaded.state_dict())
    else:
        assert all('lora' in name for name in load_file(out / 'lora/adapter_model.safetensors'))
        reloaded = DiTBackbone('wan', source)
        reloaded.load_lora(out / 'lora')
    plain, inputs = DiTBackbone('wan', source), dit_inputs(backbone)
    with torch.no_grad():
        expected, found = backbone.eval()(*inputs), reloaded.eval()(*inputs)
        assert (expected - plain.eval()(*inputs)).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_wrong_input_is_refused_in_one_line(convert, tmp_path):
    source = saved(tiny_backbone('wan').transformer, tmp_path / 'released')
    config = write_config(tmp_path, source)
    path = trained(tiny_backbone('wan'), tmp_path / 'run')
    other = write_config(tmp_path / 'run', source, lora=LORA)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/notes.txt').touch()
    out = tmp_path / 'out'
    for arguments, message in (
        ((tmp_path / 'no.pth', out), 'no.pth does not exist'),
        ((path, path.with_suffix('')), 'exists; --force replaces it'),
        ((path, tmp_path / 'mine', '--force'), 'is a folder of something else'),
        ((path, tmp_path / 'a.safetensors'), 'publish_model.py writes .safetensors'),
        ((tmp_path / 'mine', out), 'expected a sharded checkpoint, or a released folder with transformer/config.json'),
        ((path, out, '--merge-lora'), '--merge-lora expects --config'),
        ((path, out, '--config', config, '--merge-lora'), '--merge-lora expects a DiTBackbone with lora'),
        ((path, out, '--config', other), 'does not fit the config'),
    ):
        code, _, error = convert(*arguments)
        assert code != 0 and message in error and len(error.splitlines()) == 1, error
    assert not out.exists() and (tmp_path / 'mine/notes.txt').exists()
    (path.with_suffix('') / '__0_0.distcp').write_bytes(b'')
    assert '__0_0.distcp is truncated' in convert(path.with_suffix(''), tmp_path / 'out.pth')[2]
