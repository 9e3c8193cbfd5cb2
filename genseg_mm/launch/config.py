"""Command-line options and config of tools/train.py and tools/test.py."""

import argparse
import ast
import os
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from mmengine.config import Config, ConfigDict, DictAction

from genseg_mm.config_file import find_config, read_config_file
from genseg_mm.files.whole_files import check_writable
from genseg_mm.registry import class_name


class CfgOptions(DictAction):
    """MMEngine's ``--cfg-options``, with dicts as Python writes them; malformed input is a usage message."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:  # noqa: ANN001
        literals = {}
        for value in values:
            key, equals, text = value.partition('=')
            if not equals:
                parser.error(f'{option_string} takes key=value pairs, but got {value!r}')
            if text.lstrip('([ ').startswith('{'):  # MMEngine's would be cut at its commas
                try:
                    literals[key] = ast.literal_eval(text)
                except (ValueError, TypeError, SyntaxError, RecursionError):  # TypeError: a dict in a set
                    parser.error(
                        f"{option_string} {key}: expected a dict as Python writes it ({{'a': 1}}), but got {text!r}"
                    )
        rest = [value for value in values if value.partition('=')[0] not in literals]
        super().__call__(parser, namespace, rest, option_string)
        getattr(namespace, self.dest).update(literals)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of training and testing, as in MMDetection and MMSegmentation."""
    parser.add_argument(
        '--work-dir',
        writes='folder',
        help='folder of logs and checkpoints (default: work_dir of the config, else ./work_dirs/<config>)',
    )
    add_launch_arguments(parser, 'override settings of the config, e.g. train_cfg.max_iters=100 model.size="(64,64)"')


def add_launch_arguments(parser: argparse.ArgumentParser, about_options: str) -> None:
    """``--cfg-options``, with this help, ``--launcher`` and what launchers pass."""
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help=about_options)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='what started the processes'
    )
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """``--precision``, ``--compile`` and the like of evaluations; :func:`speed_options` reads them."""
    group = parser.add_argument_group('speed', 'what each saves and changes: docs/speed.md')
    group.add_argument(
        '--precision', choices=['fp32', 'bf16', 'fp16'], help='of the network (default: that of its training)'
    )
    group.add_argument(
        '--codec-precision',
        choices=['fp32', 'bf16', 'fp16'],
        help='of frozen autoencoders (default: that they were loaded in)',
    )
    group.add_argument(
        '--compile', action='store_true', help='compile the network first: seconds to minutes, for many pictures'
    )
    group.add_argument(
        '--channels-last',
        action='store_true',
        help='lay convolutions out with channels last (UNets, autoencoders)',
    )


def speed_options(args: argparse.Namespace) -> dict:
    """What :func:`genseg_mm.precision.set_evaluation` and the inferencer take."""
    from genseg_mm.precision import SWITCH_NAMES  # not before a wrong command line is refused

    return {name: getattr(args, name) for name in SWITCH_NAMES}


def set_speed(cfg: Config, args: argparse.Namespace) -> None:
    """The options of :func:`add_speed_arguments`, into the config of a test."""
    from genseg_mm.precision import set_evaluation

    set_evaluation(cfg, **speed_options(args))


def load_config(args: argparse.Namespace, stage: str) -> Config:
    """Reads the config and applies ``--cfg-options``, ``--work-dir`` and ``--launcher``.

    Args:
        args: Parsed command line.
        stage: 'train' or 'test', which the config has to provide for.

    Raises:
        FileNotFoundError: If there is no such config or checkpoint, or a file it inherits from is missing.
        ImportError: If a package that it needs is not installed.
        NotADirectoryError: If the work dir is a file.
        PermissionError: If nothing can be written there.
        ValueError: If it is no config, a value in it is wrong, or an option does not fit it.
    """
    path = find_config(args.config)
    cfg = read_config_file(path)
    if args.cfg_options:
        override_config(cfg, args.cfg_options)
    for key in ('model', f'{stage}_dataloader', f'{stage}_cfg'):
        if cfg.get(key) is None:
            raise ValueError(f'{path} has no {key}, which {stage}ing needs; is it a base config?')
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(path).stem)
    cfg.work_dir = str(check_writable(cfg.work_dir, '--work-dir'))
    for given in (getattr(args, 'checkpoint', None), getattr(args, 'resume', None)):
        if given and given != 'auto' and '://' not in given:
            _check_exists(given)
    # Only now: looking types up imports the rooms that they are in.
    from genseg_mm.launch.config_checks import check_config

    check_config(cfg, path, stage)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return cfg


def override_config(cfg: Config, options: dict) -> None:
    """Merges ``--cfg-options`` into a config; ValueError for an option that does not fit it, or that nothing reads."""
    from genseg_mm.launch.config_types import check_options

    check_options(cfg, options)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        message = ' '.join(str(error.args[0] if error.args else error).split())
        raise ValueError(f'--cfg-options {", ".join(options)}: does not fit the config: {message}') from error


# ---- what the single options of tools/train.py and tools/test.py change in a config


def set_resume(cfg: Config, resume: str | None) -> None:
    """``--resume [FILE]``: continue from a file, or from the newest whole checkpoint ('auto').

    Raises:
        FileNotFoundError: If the file, or ``load_from`` of the config, does not exist.
    """
    if resume == 'auto':
        # Other runners know True only, and resume from load_from where it is set.
        is_ours = class_name(cfg.get('runner_type', 'SafeRunner')) in ('SafeRunner', 'SafeFlexibleRunner')
        cfg.resume = 'auto' if is_ours else True
        cfg.load_from = cfg.get('load_from') if is_ours else None
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
        from genseg_mm.checkpoint import check_is_file  # imports torch

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
    if _has_gpu():
        wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    else:
        wrapper.type = 'genseg_mm.AutocastOptimWrapper'


def check_device(cfg: Config) -> None:
    """Says in one line what MMEngine asserts deep inside: float16 training needs an accelerator."""
    wrapper = cfg.get('optim_wrapper') or {}
    if class_name(wrapper.get('type', '')) == 'AmpOptimWrapper' and not _has_gpu():
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' needs a GPU, and none is visible; train with "
            '--cfg-options optim_wrapper.type=genseg_mm.AutocastOptimWrapper (bfloat16) or '
            'optim_wrapper.type=OptimWrapper (float32)'
        )


def _has_gpu() -> bool:
    import torch  # not before a wrong command line is refused

    return torch.cuda.is_available()


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
    hook = hooks.setdefault('visualization', ConfigDict(type='genseg_mm.PredictionGridHook'))
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
