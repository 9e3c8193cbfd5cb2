"""Losses, steps, loops, forward passes in bfloat16, and what passes before the first of them."""

import copy
import importlib.util
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from analysis_tools.benchmark_coloring_loss import LOSSES, make_scene, run
from mmengine.config import Config
from mmengine.hooks import Hook
from speed.measuring import Row, cpu_seconds, discard

from genseg_mm.config_file import find_config, read_config_file
from genseg_mm.hub_layouts import sizes_of
from genseg_mm.registry import MODELS

TOOLS = Path(__file__).resolve().parents[1]
STEPS = 20  # of a loop that is timed


def loss(options: Any, instances: int) -> Mapping[str, Callable]:
    """The instance-coloring loss with its gradient."""
    colors, ids = make_scene('480x640', instances, 1, options.on)
    calls = (
        dict(ours='tiles', plain='loop') if options.no_compile else dict(ours='compiled', tiles='tiles', plain='loop')
    )
    variants = {name: partial(discard, run, LOSSES[kind], colors, ids, 'reference') for name, kind in calls.items()}
    if 'gen2seg' in options.peers:
        published = _module(options.peers['gen2seg'] / 'training' / 'util' / 'loss.py').InstanceSegmentationLoss()
        targets = torch.stack([ids // 65536, ids // 256 % 256, ids % 256], 1)
        no_background = torch.ones(len(ids), dtype=torch.bool)  # the other branch needs a card

        def backward() -> None:
            colors.grad = None
            published(colors, targets, no_background).backward()

        variants['gen2seg'] = backward
    return variants


def _module(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist: expected the published code of gen2seg')
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forward(options: Any, model: str) -> Mapping[str, Callable]:
    """A network of full width with random weights, in bfloat16 and in float32; SD's autoencoder once in each."""
    torch.manual_seed(0)
    if model == 'mae':
        network = MODELS.build(dict(type='genseg_mm.MAEColorer', config=dict(image_size=224)))
        images = torch.rand(1, 3, 224, 224) * 2 - 1
    else:
        network = MODELS.build(
            dict(type='genseg_mm.SDColorer', config=sizes_of('stabilityai/stable-diffusion-2', 'unet', 'vae'))
        )
        images = torch.rand(1, 3, 256, 256) * 2 - 1
    network, images = network.eval().to(options.on), images.to(options.on)

    def predict(precise: bool, codec: Any = None) -> None:
        if codec is not None:
            network.codec = codec
        with torch.inference_mode(), torch.autocast(options.on, torch.bfloat16, enabled=not precise):
            network(images)

    if model == 'mae':
        return dict(ours=partial(predict, False), float32=partial(predict, True))
    precise = network.codec
    rounded = copy.deepcopy(precise)
    rounded.autoencoder.to(torch.bfloat16)
    return {
        'ours': partial(predict, False, rounded),
        'UNet alone': partial(predict, False, precise),
        'float32': partial(predict, True, precise),
    }


def step(options: Any) -> Mapping[str, Callable]:
    """A training step of Gen2Seg, and the same with diffusers' UNet and the loss alone."""
    from diffusers import UNet2DConditionModel
    from mmengine.optim import OptimWrapper
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    cfg = read_config_file(find_config('gen2seg_unet_shapes_tiny'))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train().to(options.on)
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True))
    colors, ids = make_scene('64x64', 6, 8, options.on)
    pictures = colors.detach().to(torch.uint8)
    samples = []
    for own in ids:
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
        sample.gt_instance_map = PixelData(data=own[None])
        samples.append(sample)
    unet = UNet2DConditionModel(**model.colorer.unet.config).train().to(options.on)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    patch = model.colorer.patch_size
    text = torch.zeros(8, 1, unet.config.cross_attention_dim, device=options.on)

    def ours() -> None:
        model.train_step(dict(inputs=list(pictures), data_samples=samples), wrapper)

    def plain() -> None:
        latents = torch.nn.functional.pixel_unshuffle(pictures.float() / 127.5 - 1, patch)
        raw = torch.nn.functional.pixel_shuffle(unet(latents, 999, encoder_hidden_states=text).sample, patch)
        LOSSES['tiles'](255 * raw.sigmoid(), ids, 'reference').backward()
        optimizer.step()
        optimizer.zero_grad()

    return dict(ours=ours, diffusers=plain)


class _Clock(Hook):
    """CPU seconds between two iterations of a training."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.iter + 1 in (5, 5 + STEPS):
            self.seconds = cpu_seconds() - self.seconds


def loop(_options: Any) -> Mapping[str, Callable]:
    """Iterations of a whole training by tools/train.py's runner, and by a loop over the same parts."""
    from genseg_mm.launch import build_runner

    cfg = read_config_file(find_config('gen2seg_mae_shapes_tiny'))
    cfg.train_cfg.update(max_iters=5 + STEPS, val_interval=100)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint = None
    cfg.log_level, cfg.launcher = 'ERROR', 'none'
    number = itertools.count()

    def runner_of(folder: str) -> Any:
        own = Config(dict(cfg, work_dir=folder, experiment_name=f'speed{next(number)}'))
        return build_runner(own)

    def ours() -> float:
        with tempfile.TemporaryDirectory(prefix='speed') as folder:
            runner, hook = runner_of(folder), _Clock()
            runner.register_hook(hook)
            runner.train()
        return hook.seconds

    def plain() -> float:
        with tempfile.TemporaryDirectory(prefix='speed') as folder:
            runner = runner_of(folder)
            batches = iter(runner.train_dataloader)
            model = runner.model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        start = 0.0
        for number in range(5 + STEPS):
            if number == 5:
                start = cpu_seconds()
            losses = model(**model.data_preprocessor(next(batches), True), mode='loss')
            sum(own for key, own in losses.items() if 'loss' in key).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return cpu_seconds() - start

    return dict(ours=ours, plain=plain)


def start(_options: Any, words: tuple[str, ...], code: int) -> Mapping[str, Callable]:
    """A tool that ends before it trains, and ``import torch``."""

    def process(*command: str, expected: int = 0) -> None:
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        if done.returncode != expected:
            raise ValueError(f'{" ".join(command)}: expected exit code {expected}, but got {done.returncode}')

    tool = str(TOOLS / 'train.py')
    return {
        'ours': partial(process, tool, *words, expected=code),
        'import torch': partial(process, '-c', 'import torch'),
    }


def first_batch(_options: Any) -> Mapping[str, Callable]:
    """From the command line to the end of the first update."""
    with_options = ['train_cfg.max_iters=1', 'default_hooks.checkpoint=None']
    with_options += [f'{name}=None' for name in ('val_dataloader', 'val_cfg', 'val_evaluator')]

    def ours() -> None:
        with tempfile.TemporaryDirectory(prefix='speed') as folder:
            command = [sys.executable, str(TOOLS / 'train.py'), 'gen2seg_mae_shapes_tiny', '--work-dir', folder]
            done = subprocess.run([*command, '--cfg-options', *with_options], capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f'tools/train.py: {done.stderr.strip()[-200:]}')

    def torch_alone() -> None:
        subprocess.run([sys.executable, '-c', 'import torch'], check=True)

    return {'ours': ours, 'import torch': torch_alone}


TRAINING = (
    Row('loss_10', 'coloring loss and gradient, 480x640, 10 instances', partial(loss, instances=10), on_gpu=True),
    Row('loss_50', 'coloring loss and gradient, 480x640, 50 instances', partial(loss, instances=50), on_gpu=True),
    Row('bf16_mae', 'ViT-MAE base, 224x224, in bfloat16', partial(forward, model='mae'), on_gpu=True),
    Row(
        'bf16_sd2', 'Stable Diffusion 2, 256x256, all in bfloat16', partial(forward, model='sd2'), rounds=2, on_gpu=True
    ),
    Row('training_step', 'a step of the tiny UNet, batch 8', step, on_gpu=True),
    Row('training_loop', f'{STEPS} iterations of the tiny MAE by the runner', loop, rounds=1),
    Row('start_help', 'tools/train.py --help', partial(start, words=('--help',), code=0)),
    Row('start_wrong', 'tools/train.py with a config that is not there', partial(start, words=('no.py',), code=2)),
    Row('start_first_batch', 'tools/train.py until its first update', first_batch, rounds=1),
)
