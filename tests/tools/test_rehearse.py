"""Rehearsals of full-size configs: what is changed in them, what is found in logs, and whole ones at small widths."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rehearsal import bfloat16, configs, report, stages
from torch.nn import functional as F

from genseg_mm.config_file import read_config_file

ROOT = Path(__file__).parents[2]
FULL_SIZE = configs.full_size_configs()
WHOLE = ['refcoco_pixart-sigma', 'refcoco_flux', 'gen2seg_mae-b_hypersim-vkitti2']  # rehearsed to the end


@pytest.fixture(scope='module')
def out(tmp_path_factory) -> Path:
    """The folder of all rehearsals: the data and the released folders in it are written once."""
    return tmp_path_factory.mktemp('rehearsals')


def rehearse(out: Path, *arguments: object) -> tuple[subprocess.CompletedProcess, dict[str, dict]]:
    """A run of the tool in a process of its own, which has another hub than this one; rows by name of the config."""
    file = out / 'rehearsal.json'
    file.unlink(missing_ok=True)
    command = [sys.executable, ROOT / 'tools/rehearse.py', *arguments, '--out', out]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    rows = json.loads(file.read_text()) if file.exists() else []
    return result, {Path(row['config']).stem: row for row in rows}


def test_tiny_configs_are_not_full_size():
    names = {path.stem for path in FULL_SIZE}
    assert {'refcoco', 'refcoco_qwen-image', 'gen2seg_sd2_hypersim-vkitti2', 'genmask', 'control_rgb'} <= names
    assert not [name for name in names if 'tiny' in name]


@pytest.mark.parametrize(
    'path', [own for own in FULL_SIZE if own.parent.name != 'benchmarks'], ids=lambda own: own.stem
)
def test_changes_stay_within_lengths_batches_and_workers(path, tmp_path):
    """At full width nothing else; the written config differs from the config in these keys alone."""
    cfg = read_config_file(path)
    changes = configs.changes_of(cfg, 'full', 1, 1)
    last = {key.rpartition('.')[2] for key in changes}
    assert last <= {
        'num_workers', 'persistent_workers', 'batch_size', 'group', 'global_batch_size', 'accumulative_counts',
        'max_iters', 'val_interval', 'interval', 'hidden_layer',
    }  # fmt: skip
    (tmp_path / 'changed').mkdir()
    changed = read_config_file(configs.write_config(path, changes, tmp_path / 'changed'))
    for key, value in changes.items():
        cfg.merge_from_dict({key: value})
        assert changed.to_dict() is not None
    assert changed.to_dict() == cfg.to_dict()


def test_tiny_widths_and_small_pictures_change_what_a_config_states():
    cfg = read_config_file('refcoco')
    assert not any(key.endswith('dataloader.dataset') for key in configs.changes_of(cfg, 'tiny', 2, 1))
    changes = configs.changes_of(cfg, 'tiny', 2, 1, pictures='small')
    if 'prompt_dims' in cfg.model.backbone:
        assert changes['model.backbone.prompt_dims'] == cfg.model.backbone.prompt_dims // 32
    dataset = changes['train_dataloader.dataset']['datasets'][1]
    sizes = [own[key] for own in dataset['pipeline'] for key in ('scale', 'crop_size') if key in own]
    assert sizes == [(128, 10**6), 128]
    assert cfg.train_dataloader.dataset.datasets[1].pipeline[2].crop_size == 512  # the config's own stay


def test_hidden_layers_that_are_not_there_become_some_that_are():
    chosen = configs.changes_of(read_config_file('refcoco_flux2-klein'), 'full', 1, 1)
    assert chosen['model.prompt_encoder.hidden_layer'] == (1, 2, 2)
    chosen = configs.changes_of(read_config_file('refcoco_z-image'), 'full', 1, 1)
    assert 'model.prompt_encoder.hidden_layer' not in chosen  # the last but one of two
    chosen = configs.changes_of(read_config_file('refcoco_z-image'), 'full', 1, 1, layers=1)
    assert chosen['model.prompt_encoder.hidden_layer'] == -1


# Under autocast; inputs are (2, 16, 8, 8), and all products have their own operator.
LAYERS = dict(
    linear=lambda x: F.linear(x, x[0, 0]),
    conv2d=lambda x: F.conv2d(x, x, padding=1),
    conv2d_same=lambda x: F.conv2d(x, x[:, :, :3, :3], padding='same'),
    conv3d=lambda x: F.conv3d(x[:, :, None], x[:, :, None, :3, :3], padding=1),
    conv_transpose2d=lambda x: F.conv_transpose2d(x, x.transpose(0, 1)[..., :2, :2]),
    matmul=lambda x: x @ x.transpose(-1, -2),
    einsum=lambda x: torch.einsum('bchw,bcwk->bchk', x, x),
    baddbmm=lambda x: torch.baddbmm(x[0], x[0], x[0]),
    addmm=lambda x: torch.addmm(x[0, 0], x[0, 0], x[0, 0]),
    attention=lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=x.mean(1, keepdim=True)),
    layer_norm=lambda x: F.layer_norm(x, x.shape[-1:]),
)


def computed() -> dict[str, list[torch.Tensor]]:
    generator, found = torch.Generator().manual_seed(0), {}
    for name, layer in LAYERS.items():
        for dtype in (torch.float32, torch.bfloat16):
            value = torch.randn(2, 16, 8, 8, generator=generator).to(dtype).requires_grad_()
            with torch.autocast('cpu', dtype=torch.bfloat16):
                made = layer(value)
            made.float().square().mean().backward()
            found[f'{name} of {dtype}'] = [made.detach(), value.grad]
    return found


def test_bfloat16_in_float32_has_the_same_types_and_values(tmp_path):
    """In a fork, since it stays for the rest of a process."""
    torch.set_num_threads(1)

    def compute() -> None:
        bfloat16.compute_in_float32()
        torch.save(computed(), tmp_path / 'found.pt')

    assert stages.in_fork(compute, tmp_path / 'log').error == ''
    assert 'Warning' not in (tmp_path / 'log').read_text()
    found = torch.load(tmp_path / 'found.pt')
    for name, expected in computed().items():
        for one, other in zip(found[name], expected, strict=True):
            assert one.dtype == other.dtype, name
            assert (one - other).abs().max() <= 0.02 * other.abs().max(), name


def test_findings_are_lines_about_what_is_fresh_missing_or_odd():
    text = (
        '11/29 15:03:03 - mmengine - INFO - WanTransformer3DModel: fresh text_embedder for prompts of width 112\n'
        'Loading: 100%|#| 2/2\r11/29 15:03:04 - mmengine - WARNING - 8 tensors are bfloat16\n'
        '11/29 15:03:05 - mmengine - INFO - Iter(train) [1/1] loss: 1.0\n'
        '11/29 15:03:06 - mmengine - INFO - /a/b/vae: 3 tensors of the files are not used, such as x\n'
        'model = dict(missing=1)\n'
        "The config attributes {'clip_output': False} were passed to AutoencoderKLWan, but are not expected\n"
    )
    # Of the made-up data, of the machine, of a dumped config: nothing to act on.
    text += (
        '11/29 15:03:07 - mmengine - WARNING - RefCOCODataset: 10831 sentences fewer than the 10834 of the complete '
        'dataset; numbers on this copy are not those of the complete dataset\n'
        '11/29 15:03:07 - mmengine - WARNING - CocoInstanceDataset val.json: 2 of 4 pictures left out: no instance\n'
        '11/29 15:03:07 - mmengine - WARNING - HypersimDataset: 6 left out of hypersim: fewer than 10 instances\n'
        "11/29 15:03:07 - mmengine - WARNING - GRefCOCODataset 'train': left out 1 crowd regions\n"
        '11/29 15:03:07 - mmengine - WARNING - The prefix is not set in metric class PointPromptMetric.\n'
        '/x/setup_env.py:56: UserWarning: Setting MKL_NUM_THREADS environment variable for each process to be 1\n'
        '/x/utils.py:485: UserWarning: torch.distributed is disabled, unavailable or uninitialized, assuming\n'
        'verified: 0 files missing\n'
        '    find_unused_parameters=False,\n'
    )
    assert report.findings([text, text]) == [
        'WanTransformer3DModel: fresh text_embedder for prompts of width 112',
        '8 tensors are bfloat16',
        'vae: 3 tensors of the files are not used, such as x',
        "The config attributes {'clip_output': False} were passed to AutoencoderKLWan, but are not expected",
    ]


def test_the_table_of_made_up_rows():
    stage = dict(name='train', command='', seconds=12.4, peak_bytes=3_210_000_000, error='')
    row = dict(config='a.py', repositories={'o/n': ['vae']}, changes={'x.y': 1}, findings=['fresh z'], error='')
    row.update(stages=[stage])
    failed = dict(row, config='b.py', error='test: exit 2', stages=[stage, dict(stage, name='test', error='exit 2')])
    lines = report.table([row, failed]).splitlines()
    assert lines[2:6] == [
        '| config | train | test | result |',
        '|---|---|---|---|',
        '| a.py | 12 s, 3.2 |  | passed |',
        '| b.py | 12 s, 3.2 | 12 s, 3.2 FAILED | failed |',
    ]
    assert '- fresh z' in lines and '**test: exit 2**' in lines and 'changed: x.y=1' in lines


def test_a_config_without_layout_fails_and_names_it(tmp_path):
    path = tmp_path / 'own.py'
    text = (ROOT / 'configs/gen2seg/gen2seg_mae-b_hypersim-vkitti2.py').read_text()
    text = text.replace("'./", f"'{ROOT}/configs/gen2seg/").replace('facebook/vit-mae-base', 'facebook/vit-mae-giant')
    path.write_text(text)
    with pytest.raises(ValueError, match='facebook/vit-mae-giant has no known layout'):
        configs.repositories(read_config_file(path))


def check_whole(row: dict) -> None:
    assert row['error'] == '', row
    assert all(stage['seconds'] > 0 and stage['peak_bytes'] > 1e8 and not stage['error'] for stage in row['stages'])


@pytest.mark.slow
def test_one_of_each_kind_is_rehearsed_to_the_end_at_small_widths(out):
    """A DiT with the image as channels, one with it as tokens (sharded), a colorer."""
    result, rows = rehearse(out, *WHOLE, '--width', 'tiny')
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert list(rows) == WHOLE
    for row in rows.values():
        check_whole(row)
    stages_of = {name: [stage['name'] for stage in row['stages']] for name, row in rows.items()}
    assert stages_of['gen2seg_mae-b_hypersim-vkitti2'] == [
        'folders', 'index', 'train', 'resume and validate', 'test', 'segment', 'publish', 'export',
        'segment as released',
    ]  # fmt: skip
    assert all('generate' in stages_of[name] for name in WHOLE[:2])
    assert rows['gen2seg_mae-b_hypersim-vkitti2']['repositories'] == {'facebook/vit-mae-base': ['']}
    assert '3 of 3 passed' in result.stdout and '| passed |' in (out / 'rehearsal.md').read_text()


def classes(node: object) -> list[str]:
    """All types that a part of a config names."""
    if isinstance(node, dict):
        own = [str(node['type'])] if 'type' in node else []
        return own + classes(list(node.values()))
    return [name for own in node for name in classes(own)] if isinstance(node, (list, tuple)) else []


def kind(path: Path) -> tuple:
    """What its checkpoints and their resuming depend on: classes of the model's parts, adapters, how it is trained."""
    cfg = read_config_file(path).to_dict()
    keys = ('strategy', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'custom_hooks', 'default_hooks')
    parts = [sorted(set(classes(cfg.get(key)))) for key in ('model', *keys)]
    loader, backbone = cfg.get('train_dataloader') or {}, cfg.get('model', {}).get('backbone') or {}
    return repr(parts), repr(classes(loader.get('sampler'))), bool(backbone.get('lora')), 'global_batch_size' in cfg


def check_rehearsed(out: Path, chosen: list[Path], until: str) -> None:
    result, rows = rehearse(out, *chosen, '--width', 'tiny', '--until', until)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert list(rows) == [path.stem for path in chosen]
    for row in rows.values():
        check_whole(row)
        assert row['stages'][-1]['name'] == until


@pytest.fixture(scope='module')
def first_and_others() -> tuple[list[Path], list[Path]]:
    """The first config of each kind, but those that are rehearsed to the end, and all others."""
    known, first, others = {}, [], []
    for path in FULL_SIZE:
        if path.parent.name != 'benchmarks':
            known.setdefault(kind(path), []).append(path)
    for paths in known.values():
        whole = [path for path in paths if path.stem in WHOLE]
        first += [] if whole else paths[:1]
        others += [path for path in paths if path not in whole + first]
    assert len(first) + len(WHOLE) + len(others) == sum(path.parent.name != 'benchmarks' for path in FULL_SIZE)
    return first, others


@pytest.mark.slow
def test_each_kind_of_config_trains_resumes_and_validates_at_small_widths(out, first_and_others):
    """The later stages of all: ``python tools/rehearse.py --all --width tiny``, about half an hour."""
    check_rehearsed(out, first_and_others[0], 'resume and validate')


@pytest.mark.slow
def test_every_other_config_trains_and_validates_at_small_widths(out, first_and_others):
    check_rehearsed(out, first_and_others[1], 'train and validate')


@pytest.mark.slow
def test_a_transformer_and_its_encoder_are_rehearsed_at_full_width(out):
    """The paper's model: Wan 1.3B's and Qwen2.5-VL-7B's widths, one layer of each kind."""
    result, rows = rehearse(out, 'refcoco', '--layers', 1)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    check_whole(rows['refcoco'])
    assert max(stage['peak_bytes'] for stage in rows['refcoco']['stages']) > 3e9
