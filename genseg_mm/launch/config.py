"""Command-line options and config of tools/train.py and tools/test.py."""

import argparse
import ast
import os
from pathlib import Path

from mmengine.config import Config, DictAction

from genseg_mm.config_file import find_config, read_config_file
from genseg_mm.whole_files import check_writable


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
        '--work-dir', help='folder of logs and checkpoints (default: work_dir of the config, else ./work_dirs/<config>)'
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


def load_config(args: argparse.Namespace, stage: str) -> Config:
    """Reads the config and applies ``--cfg-options``, ``--work-dir`` and ``--launcher``.

    Args:
        args: Parsed command line.
        stage: 'train' or 'test', which the config has to provide for.

    Raises:
        FileNotFoundError: If there is no such config, or a file it inherits from is missing.
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
    # Only now: looking types up imports the rooms that they are in.
    from genseg_mm.launch.config_checks import check_config

    check_config(cfg, path, stage)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return cfg


def override_config(cfg: Config, options: dict) -> None:
    """Merges ``--cfg-options`` into a config; ValueError for an option that does not fit it, or that nothing reads."""
    from genseg_mm.launch.option_checks import check_options

    check_options(cfg, options)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        message = ' '.join(str(error.args[0] if error.args else error).split())
        raise ValueError(f'--cfg-options {", ".join(options)}: does not fit the config: {message}') from error
