"""Command-line options and config of tools/train.py and tools/test.py."""

import argparse
import difflib
import inspect
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from genseg_mm.config_file import read_config_file

# Top-level keys that tools and runners read although no config has to have them.
_READ_BY_RUNNERS = {
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn',
    'tta_model', 'tta_pipeline', *inspect.signature(Runner.__init__).parameters,
}  # fmt: skip


class CfgOptions(DictAction):
    """MMEngine's ``--cfg-options`` that answers malformed input with a usage message."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:  # noqa: ANN001
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string} takes key=value pairs, but got {value!r}')
        super().__call__(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of training and testing, as in MMDetection and MMSegmentation."""
    parser.add_argument(
        '--work-dir',
        help='folder of logs and checkpoints (default: work_dir of the config, else '
        './work_dirs/<config>)',
    )
    add_launch_arguments(
        parser,
        'override settings of the config, e.g. train_cfg.max_iters=100 model.size="(64,64)"',
    )


def add_launch_arguments(parser: argparse.ArgumentParser, about_options: str) -> None:
    """``--cfg-options``, with this help, ``--launcher`` and what launchers pass."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help=about_options,
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes',
    )
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace, stage: str) -> Config:
    """Reads the config and applies ``--cfg-options``, ``--work-dir`` and ``--launcher``.

    Args:
        args: Parsed command line.
        stage: 'train' or 'test', which the config has to provide for.

    Raises:
        FileNotFoundError: If there is no such config, or a file it inherits from is missing.
        ValueError: If it is no config, or an option does not fit it.
    """
    cfg = read_config_file(args.config)
    if args.cfg_options:
        override_config(cfg, args.cfg_options)
    for key in ('model', f'{stage}_dataloader', f'{stage}_cfg'):
        if cfg.get(key) is None:
            raise ValueError(
                f'{args.config} has no {key}, which {stage}ing needs; is it a base config?'
            )
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return cfg


def override_config(cfg: Config, options: dict) -> None:
    """Merges ``--cfg-options`` into a config; ValueError for an option that does not fit it."""
    for key in options:
        _check_key(cfg, key)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError) as error:
        message = error.args[0] if error.args else error
        raise ValueError(f'--cfg-options does not fit the config: {message}') from error


def _check_key(cfg: Config, option: str) -> None:
    """Refuses an unknown top-level key, which nothing would read; reports a new one below."""
    node, seen = cfg._cfg_dict, []
    for key in option.split('.'):
        if isinstance(node, (list, tuple)):
            if not key.isdigit() or int(key) >= len(node):
                raise ValueError(
                    f'--cfg-options {option}: {".".join(seen)} is a list of {len(node)}, so an '
                    f'index below {len(node)} must follow, but got {key!r}'
                )
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        elif seen:
            close = difflib.get_close_matches(key, node, 1) if isinstance(node, dict) else []
            near = f' (it has {close[0]!r})' if close else ''
            if int(os.environ.get('RANK', 0)) == 0:
                print(f'note: --cfg-options {option}: {key!r} is new in {".".join(seen)}{near}')
            return
        elif key not in _READ_BY_RUNNERS:
            close = difflib.get_close_matches(key, {*node, *_READ_BY_RUNNERS}, 1)
            near = f'; did you mean {close[0]!r}?' if close else ''
            raise ValueError(f'--cfg-options {option}: the config has no {key!r}{near}')
        else:
            return
        seen.append(key)
