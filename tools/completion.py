"""Prints what makes a shell complete the words of genseg: commands, options, their choices, names of configs, files.

    genseg completion bash > ~/.local/share/bash-completion/completions/genseg
    genseg completion zsh > ~/.zfunc/_genseg             # a folder of $fpath

A new shell completes then. Needs shtab: pip install 'genseg_mm[completion]'.
"""

import argparse
import runpy
import sys

from genseg_mm.command import COMMANDS, GROUPS, Command, tools_folder
from genseg_mm.config_file import shipped_configs
from genseg_mm.launch import ToolParser, run_tool

CONFIGS = ('config', 'configs', 'suite', 'model')  # what tools call an argument that a name of a config may stand for
FUNCTION = '_genseg_configs'


class Made(BaseException):
    """The parser of a tool, when it is about to read a command line."""


def parser_of(own: Command) -> argparse.ArgumentParser:
    """The parser of a tool, as its script makes it."""

    def stop(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise Made(self)

    tool = tools_folder() / own.tool
    names = ('parse_args', 'parse_intermixed_args')
    before, argv = [getattr(ToolParser, name) for name in names], sys.argv
    for name in names:
        setattr(ToolParser, name, stop)
    sys.argv = [str(tool)]
    try:
        functions = runpy.run_path(str(tool))
        (functions.get('parse_args') or functions['main'])()
    except Made as found:
        return found.args[0]
    finally:
        sys.argv = argv
        for name, function in zip(names, before, strict=True):
            setattr(ToolParser, name, function)
    raise AssertionError(f'{tool} reads no command line')


def whole_parser() -> argparse.ArgumentParser:
    """The parser of ``genseg`` with those of all tools in it."""
    import shtab

    whole = argparse.ArgumentParser(prog='genseg')
    tasks = whole.add_subparsers()
    groups = {
        name: tasks.add_parser(name, help=summary, description=summary).add_subparsers()
        for name, summary in GROUPS.items()
    }
    for own in COMMANDS:
        group, _, name = own.name.rpartition(' ')
        place = groups[group] if group else tasks
        parser = place.add_parser(name, parents=[parser_of(own)], add_help=False, help=own.summary)
        for action in parser._actions:
            if action.option_strings or action.choices:
                takes_files = 'FILE' in str(action.metavar) or 'FOLDER' in str(action.metavar) or 'out' in action.dest
                files = shtab.FILE if takes_files else None
            else:
                files = dict.fromkeys(('bash', 'zsh'), FUNCTION) if action.dest in CONFIGS else shtab.FILE
            if files:
                action.complete = files
    return whole


def preamble() -> dict[str, str]:
    """Functions that complete names of configs, or files."""
    names = ' '.join(sorted(name for name in shipped_configs() if '/' not in name))
    return dict(
        bash=f'{FUNCTION}() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
        zsh=f'{FUNCTION}() {{ _alternative "configs:config:({names})" "files:file:_files"; }}',
    )


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('shell', choices=['bash', 'zsh'], help='for which shell')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    import shtab  # only now, as it may be missing

    print(shtab.complete(whole_parser(), args.shell, preamble=preamble()))


if __name__ == '__main__':
    run_tool(main)
