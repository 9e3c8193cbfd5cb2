"""FSDP2 against DDP against one process: losses, norms, weights, averages."""

import json
from pathlib import Path

import torch
from mmengine.config import Config
from short_runs import run_forked

ROOT = Path(__file__).parents[2]
UPDATES = 20  # in the slow test; 6 in the other
KINDS = {
    'one': (0, dict()),
    'ddp': (2, dict()),
    'fsdp2': (2, dict(runner_type='genseg_mm.SafeFlexibleRunner', strategy=dict(type='genseg_mm.FSDP2Strategy'))),
}


def tiny_config(folder: Path, kind: str, batch_size: int = 4, **changes: object) -> Path:
    """The tiny Wan on few scenes, half of each update masks and half pictures, two micro-batches per update."""
    processes, runner = KINDS[kind]
    cfg = Config.fromfile(ROOT / 'configs/genmask/genmask_wan_shapes_tiny.py')
    per_process = batch_size // max(processes, 1)
    accumulation = changes.pop('accumulation', 2)
    cfg.merge_from_dict(
        {
            'model.backbone.transformer.num_layers': 2,
            'model.backbone.gradient_checkpointing': True,
            'train_dataloader.batch_size': per_process,
            'train_dataloader.sampler.ratio': [1, 1],
            'train_dataloader.sampler.group': per_process // 2,
            'train_dataloader.sampler.exact': True,
            'train_dataloader.dataset.datasets.0.num_scenes': 20,
            'train_dataloader.dataset.datasets.1.num_scenes': 20,
            'train_cfg.max_iters': UPDATES,
            'global_batch_size': batch_size * accumulation,
            'param_scheduler': [],
            'default_hooks.logger.interval': 1,
            'default_hooks.checkpoint.interval': UPDATES // 2,
            'default_hooks.checkpoint.save_best': None,
            'custom_hooks': [dict(type='genseg_mm.ParameterEMAHook', decay=0.9)],
            'log_processor.window_size': 1,
            **dict.fromkeys(('val_dataloader', 'val_cfg', 'val_evaluator')),
            **runner,
            **changes,
        }
    )
    cfg.optim_wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.98)),
        clip_grad=dict(max_norm=0.5),
    )
    path = folder / f'{kind}.py'
    cfg.dump(path)
    return path


def trained(folder: Path, kind: str, *options: str, **changes: object) -> tuple[list[dict], dict]:
    """Logged lines and last checkpoint of a training."""
    folder.mkdir(exist_ok=True)
    config = tiny_config(folder, kind, **changes)
    work_dir = folder / kind
    run_forked('train.py', config, '--work-dir', work_dir, *options, cwd=folder, processes=KINDS[kind][0])
    log = max(work_dir.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    last = (work_dir / 'last_checkpoint').read_text()
    return lines, torch.load(last, weights_only=False)


def largest_difference(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def test_fsdp2_is_ddp_is_one_process(tmp_path, capsys):
    runs = {kind: trained(tmp_path, kind) for kind in KINDS}
    one_lines, one = runs['one']
    assert one['trained_state_dict'].keys() <= one['state_dict'].keys()
    moved = largest_difference(one['trained_state_dict'], {n: one['state_dict'][n] for n in one['trained_state_dict']})
    assert moved > 1e-3  # the averages are not the values
    for kind in ('ddp', 'fsdp2'):
        lines, checkpoint = runs[kind]
        found = {
            key: max(abs(a[key] - b[key]) for a, b in zip(one_lines, lines, strict=True) if key in a)
            for key in ('loss', 'loss_mask', 'loss_image', 'grad_norm')
        }
        for key in ('state_dict', 'trained_state_dict'):
            found[key] = largest_difference(one[key], checkpoint[key])
        assert checkpoint['optimizer']['state'].keys() == one['optimizer']['state'].keys()
        for key in ('exp_avg', 'exp_avg_sq'):
            states = [own['optimizer']['state'] for own in (one, checkpoint)]
            found[key] = max((states[0][n][key] - states[1][n][key]).abs().max().item() for n in states[0])
        with capsys.disabled():
            print(f'\n{kind} against one process: ' + ', '.join(f'{key} {value:.1e}' for key, value in found.items()))
        assert max(found.values()) < 2e-5, (kind, found)
