"""What the single options of tools/train.py and tools/test.py change in a config."""

import os
import sys
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from mmengine.config import Config, ConfigDict

from genseg_mm.checkpoint import check_is_file
from genseg_mm.registry import class_name

_PICTURES = 'genseg_mm.PredictionGridHook'


def set_resume(cfg: Config, resume: str | None) -> None:
    """``--resume [FILE]``: continue from a file, or from the newest whole checkpoint ('auto').

    Raises:
        FileNotFoundError: If the file, or ``load_from`` of the config, does not exist.
    """
    if resume == 'auto':
        # Other runners know True only, and resume from load_from where it is set.
        cfg.resume = True if 'runner_type' in cfg else 'auto'
        cfg.load_from = None if 'runner_type' in cfg else cfg.get('load_from')
    elif resume is not None:
        cfg.resume, cfg.load_from = True, resume
    _check_exists(cfg.get('load_from'))


def set_checkpoint(cfg: Config, checkpoint: str) -> None:
    """The checkpoint to test."""
    _check_exists(checkpoint)
    cfg.resume, cfg.load_from = False, checkpoint


def _check_exists(checkpoint: str | None) -> None:
    if not checkpoint:
        return
    if checkpoint.startswith(('http://', 'https://')):
        _check_reachable(checkpoint)
    elif '://' not in checkpoint:
        check_is_file(os.path.expanduser(checkpoint))


def _check_reachable(url: str) -> None:
    """Asks for the head of a file that will be downloaded once model and data are built."""
    try:
        with urlopen(Request(url, method='HEAD'), timeout=30):
            return
    except HTTPError as error:
        if error.code in (401, 403, 405, 501):  # servers that do not answer this question
            return
        reason = f'HTTP {error.code} {error.reason}'
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, 'reason', error)
    raise FileNotFoundError(
        f'checkpoint {url} cannot be reached: {reason}; download it where it can, and name the file'
    )


def enable_amp(cfg: Config) -> None:
    """``--amp``: float16 with loss scaling on a GPU, bfloat16 without one.

    A config that names a mixed-precision wrapper itself keeps it.

    Raises:
        ValueError: If the config trains with a wrapper of another kind.
    """
    wrapper = cfg.optim_wrapper
    name = class_name(wrapper.get('type', 'OptimWrapper'))
    if name in ('AmpOptimWrapper', 'AutocastOptimWrapper'):
        return
    if name != 'OptimWrapper':
        raise ValueError(f'--amp needs an OptimWrapper in the config, but got {name}')
    if torch.cuda.is_available():
        wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    else:
        wrapper.type = 'genseg_mm.AutocastOptimWrapper'


def check_device(cfg: Config) -> None:
    """Says in one line what MMEngine asserts deep inside: float16 training needs an accelerator."""
    wrapper = cfg.get('optim_wrapper') or {}
    if class_name(wrapper.get('type', '')) == 'AmpOptimWrapper' and not torch.cuda.is_available():
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' needs a GPU, and none is visible; train with "
            '--cfg-options optim_wrapper.type=genseg_mm.AutocastOptimWrapper (bfloat16) or '
            'optim_wrapper.type=OptimWrapper (float32)'
        )


def enable_lr_scaling(cfg: Config) -> None:
    """``--auto-scale-lr``: the learning rate follows the total batch size."""
    scaling = cfg.get('auto_scale_lr')
    if scaling is None or 'enable' not in scaling or 'base_batch_size' not in scaling:
        raise ValueError('--auto-scale-lr needs auto_scale_lr=dict(enable=False, base_batch_size=N) in the config')
    scaling.enable = True


def enable_pictures(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """``--show``, ``--show-dir``: all predictions through the visualization hook."""
    if show and sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & os.environ.keys():
        raise ValueError('--show needs a display, and there is none; use --show-dir FOLDER')
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.setdefault('visualization', ConfigDict(type=_PICTURES))
    kind = class_name(hook.type)
    hook.update(draw=True, show=show, wait_time=wait_time)
    if kind == 'PredictionGridHook':
        hook.update(test=True, num_images=None)
        if show_dir:
            hook.out_dir = os.path.abspath(show_dir)
    elif show_dir and kind == 'DetVisualizationHook':
        hook.test_out_dir = show_dir
    elif show_dir:
        cfg.visualizer.save_dir = show_dir


def enable_tta(cfg: Config) -> None:
    """``--tta``: wraps the model in ``tta_model`` and reads the images through ``tta_pipeline``."""
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise ValueError(f'--tta needs {" and ".join(missing)} in the config')
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)


def dump_predictions(cfg: Config, path: str) -> None:
    """``--out``: all data samples as a pickled list, as MMDetection writes them."""
    if not path.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out writes a .pkl file, but got {path}')
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    cfg.test_evaluator = [*metrics, dict(type='DumpResults', out_file_path=path)]
