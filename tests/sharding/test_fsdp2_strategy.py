"""FSDP2 against DDP against one process: losses, norms, weights, averages; over a resume on another number of them."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from short_runs import run_forked
from tiny_qwen_vl import pretrained, save_tiny_qwen_vl

from genseg_mm.checkpoint import load_weights_only

ROOT = Path(__file__).parents[2]
UPDATES, ACCUMULATED = 4, 2


def fsdp2(**arguments: object) -> dict:
    strategy = dict(type='genseg_mm.FSDP2Strategy', checkpoint='sharded', **arguments)
    return dict(runner_type='genseg_mm.SafeFlexibleRunner', strategy=strategy)


# Processes and what each of them changes in the config.
KINDS = {
    'one': (0, {}),
    'ddp': (2, {}),
    'fsdp2': (2, fsdp2()),
    'reduced each time': (2, fsdp2(reduce_each_micro_batch=True)),
    'offload': (2, fsdp2(offload=True, reduce_each_micro_batch=True)),
    'asynchronous': (2, fsdp2(asynchronous=True)),
    'copies': (4, fsdp2(copies=2)),
}
FLOAT32 = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.98)), clip_grad=dict(max_norm=0.5)
)
MUON = dict(
    type='OptimWrapper',
    constructor='genseg_mm.MuonOptimWrapperConstructor',
    paramwise_cfg=dict(muon_keys=(r'blocks\.\d+\.', r'encoder\.block\.\d+\.')),
    optimizer=dict(type='genseg_mm.MuonAdamW', lr=1e-3),
    clip_grad=dict(max_norm=0.5),
)


class Runs:
    """Trainings of the tiny Wan with two micro-batches of 4 samples, half masks and half pictures, per update.

    ``mixed=False`` has one micro-batch of masks and one of pictures. Of four processes each has the two samples of one
    micro-batch.
    """

    def __init__(
        self,
        folder: Path,
        optim_wrapper: dict = FLOAT32,
        updates: int = UPDATES,
        mixed: bool = True,
        **changes: object,
    ) -> None:
        self.folder, self.optim_wrapper, self.iters, self.mixed = folder, optim_wrapper, updates, mixed
        self.changes = changes
        self.trained = cache(self._trained)

    def config(self, kind: str) -> Path:
        processes, runner = KINDS[kind]
        batch_size = max(4 // max(processes, 1), 2)
        group = batch_size // 2 if self.mixed else batch_size
        cfg = Config.fromfile(ROOT / 'configs/genmask/genmask_wan_shapes_tiny.py')
        data = {f'train_dataloader.dataset.datasets.{part}.num_scenes': 20 for part in (0, 1)}
        hooks = dict(interval=self.iters // 2, save_best=None)
        cfg.merge_from_dict(
            {
                'model.backbone.transformer.num_layers': 2,
                'model.backbone.gradient_checkpointing': True,
                'train_dataloader.batch_size': batch_size,
                'train_dataloader.sampler': dict(ratio=[1, 1], group=group, exact=True),
                'global_batch_size': 4 * ACCUMULATED,
                'train_cfg.max_iters': self.iters,
                'default_hooks.logger.interval': 1,
                'default_hooks.checkpoint': hooks,
                'log_processor.window_size': 1,
                **data,
                **runner,
            }
        )
        for key, value in self.changes.items():
            owner, _, last = key.rpartition('.')
            node = cfg
            for name in owner.split('.'):
                node = node[name]
            node[last] = value
        cfg.custom_hooks = [dict(type='genseg_mm.ParameterEMAHook', decay=0.9)]
        cfg.param_scheduler = []
        cfg.optim_wrapper = self.optim_wrapper
        for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
            cfg[key] = None
        path = self.folder / f'{kind}.py'
        cfg.dump(path)
        return path

    def _trained(self, kind: str, resumed: str | None = None) -> tuple[list[dict], dict]:
        """Logged lines and last checkpoint of a training, or of its second half after the first of another one."""
        work_dir = self.folder / f'{kind}_{resumed}'
        options = []
        if resumed is not None:
            self.trained(resumed)
            options = ['--resume', self.middle(resumed)]
        run_forked(
            'train.py', self.config(kind), '--work-dir', work_dir, *options, cwd=self.folder, processes=KINDS[kind][0]
        )
        log = max(work_dir.glob('*/vis_data/scalars.json'))
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return lines, load_weights_only((work_dir / 'last_checkpoint').read_text())

    def middle(self, kind: str) -> Path:
        name = f'iter_{self.iters // 2}'
        return next((self.folder / f'{kind}_None').glob(f'{name}*'))

    def differences(self, kind: str, other: str, resumed: str | None = None) -> dict[str, float]:
        """Largest differences of everything that is logged or saved."""
        (lines, checkpoint), (others, last) = self.trained(kind, resumed), self.trained(other)
        others = others[-len(lines) :]
        found = {
            key: max(abs(a[key] - b[key]) for a, b in zip(others, lines, strict=True) if key in a)
            for key in ('loss', 'loss_mask', 'loss_image', 'grad_norm')
        }
        for key in ('state_dict', 'trained_state_dict'):
            assert checkpoint[key].keys() == last[key].keys()
            found[key] = max((last[key][name] - own).abs().max().item() for name, own in checkpoint[key].items())
        print(f'{kind} against {other}: ' + ', '.join(f'{key} {value:.1e}' for key, value in found.items()))
        return found


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp('runs'))


def test_fsdp2_is_ddp_is_one_process(runs):
    _, one = runs.trained('one')
    values = one['trained_state_dict']
    assert max((own - one['state_dict'][name]).abs().max() for name, own in values.items()) > 1e-4  # averages
    for kind in ('ddp', 'fsdp2'):
        assert max(runs.differences(kind, 'one').values()) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['reduced each time', 'offload', 'asynchronous', 'copies'])
def test_every_variant_is_one_process(runs, kind):
    assert max(runs.differences(kind, 'one').values()) < 5e-6
    middle, one = (load_weights_only(str(runs.middle(own)))['state_dict'] for own in (kind, 'one'))
    assert max((value - one[name]).abs().max() for name, value in middle.items()) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize('mixed', [True, False])
def test_a_trained_qwen_vl_is_sharded(tmp_path, mixed):
    """Without a picture in a micro-batch, none runs its vision tower, whose gradients are zero all the same."""
    folder = save_tiny_qwen_vl(tmp_path / 'qwen_vl')
    encoder = dict(
        type='genseg_mm.QwenVLPromptEncoder',
        encoder=pretrained(folder),
        processor=folder,
        max_length=48,
        padding='max_length',
        trainable=True,
    )
    changes = {'model.prompt_encoder': encoder, 'model.backbone.transformer.text_dim': 32}
    runs = Runs(tmp_path, mixed=mixed, **changes)
    assert max(runs.differences('fsdp2', 'one').values()) < 2e-5
    assert any('visual' in name for name in runs.trained('one')[1]['trained_state_dict'])


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'resumed'), [('one', 'fsdp2'), ('fsdp2', 'one')])
def test_a_training_goes_on_in_another_number_of_processes(runs, kind, resumed):
    runs.trained(resumed)
    assert runs.middle(resumed).is_dir() == (resumed == 'fsdp2')
    assert max(runs.differences(kind, 'one', resumed).values()) < 5e-6


@pytest.mark.slow
def test_after_20_updates(tmp_path):
    runs = Runs(tmp_path, updates=20)
    for kind in ('ddp', 'fsdp2'):
        assert max(runs.differences(kind, 'one').values()) < 2e-5


def released_config(folder: Path, dtype: str) -> dict:
    """Changes that give a tiny Wan of a released folder, in this precision, adapters."""
    from diffusers import WanTransformer3DModel

    config = Config.fromfile(ROOT / 'configs/genmask/genmask_wan_shapes_tiny.py').model.backbone.transformer
    torch.manual_seed(0)
    WanTransformer3DModel(**{**config, 'num_layers': 2}).save_pretrained(folder)
    source = dict(
        type='diffusers.WanTransformer3DModel.from_pretrained',
        pretrained_model_name_or_path=str(folder),
        torch_dtype=dtype,
    )
    return {'model.backbone.transformer': source, 'model.backbone.lora': dict(r=4)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'dtype', 'most'),
    [('OptimWrapper', 'float32', 5e-6), ('genseg_mm.AutocastOptimWrapper', 'bfloat16', 2e-2)],
)
def test_adapters_on_a_released_folder(tmp_path, kind, dtype, most):
    """bfloat16 makes a last place of its own of the least difference, and AdamW whole steps of what is all rounding."""
    wrapper = dict(type=kind, optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=0.5))
    runs = Runs(tmp_path, wrapper, **released_config(tmp_path / 'wan', dtype))
    assert max(runs.differences('fsdp2', 'ddp').values()) < most


@pytest.mark.slow
def test_muon(tmp_path):
    """Newton-Schulz iterations magnify the rounding of sums over ranks."""
    assert max(Runs(tmp_path, MUON).differences('fsdp2', 'ddp').values()) < 1e-3
