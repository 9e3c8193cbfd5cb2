"""Prints the whole config that a file, its bases and --cfg-options make, or a part of it.

    python tools/analysis_tools/print_config.py CONFIG [--cfg-options KEY=VALUE ...] [--save-path whole.py]
    python tools/analysis_tools/print_config.py CONFIG --get test_dataloader.dataset.pipeline.1

Unknown keys are errors. A single value is printed as it is, for shell scripts.
"""

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config

from genseg_mm.config_file import read_config_file
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.launch.config import CfgOptions, override_config

SUFFIXES = ('.py', '.json', '.yml', '.yaml')


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('--get', metavar='KEY.PATH', help='only this part; members of lists by number')
    parser.add_argument('--save-path', writes=SUFFIXES, metavar='FILE', help=f'also write it ({", ".join(SUFFIXES)})')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='override settings')
    return parser.parse_args()


def part_of(cfg: Config, path: str) -> Any:
    """The value at a path such as 'model.backbone' or 'test_dataloader.dataset.pipeline.1'.

    Raises:
        ValueError: If there is no such key; with what there is.
    """
    node, seen = cfg._cfg_dict.to_dict(), []
    for key in path.split('.'):
        where = '.'.join(seen) or 'the config'
        if isinstance(node, dict):
            names = {str(name): name for name in node}
            if key not in names:
                close = difflib.get_close_matches(key, names, 1)
                hint = f'did you mean {close[0]!r}?' if close else f'it has {", ".join(names)}'
                raise ValueError(f'--get {path}: {where} has no {key!r}; {hint}')
            node = node[names[key]]
        elif isinstance(node, (list, tuple)):
            if not key.isdigit() or int(key) >= len(node):
                raise ValueError(
                    f'--get {path}: {where} is a list of {len(node)}: expected a number below that, but got {key!r}'
                )
            node = node[int(key)]
        else:
            raise ValueError(f'--get {path}: {where} is {node!r}, which has no parts')
        seen.append(key)
    return node


def main() -> None:
    args = parse_args()
    cfg = read_config_file(args.config)
    if args.cfg_options:
        override_config(cfg, args.cfg_options)
    if args.get:
        part = part_of(cfg, args.get)
        if not isinstance(part, dict):
            if args.save_path:
                raise ValueError(f'--save-path takes a dict, but --get {args.get} is {part!r}')
            name = args.get.rpartition('.')[2]
            # A single value as it is, so that a shell can use it; lists as a config writes them.
            listed = isinstance(part, (list, tuple)) and not name.isdigit()
            print(Config({name: part}).pretty_text.strip() if listed else part)
            return
        cfg = Config(part)
    print(cfg.pretty_text)
    if args.save_path:
        Path(args.save_path).parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(args.save_path)
        print(f'written: {args.save_path}', file=sys.stderr)


if __name__ == '__main__':
    run_tool(main)
