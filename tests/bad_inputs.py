"""Bad inputs to tools, inferencer and readers, each of which has to end in one line; run as a script, a table of them.

    python tests/bad_inputs.py --table          # Markdown: input, exit code, line
    python tests/bad_inputs.py --only train.py  # those whose input has this in it

Many cases share a process: the main function of a tool runs as its user runs it, through the same ``run_tool``. The
cases are data (``bad_input_cases.py``), and for what all tools have in common they are made from their parsers.
"""

import argparse
import contextlib
import io
import os
import runpy
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import bad_input_cases as cases  # noqa: E402

from genseg_mm.launch.command_line import (  # noqa: E402
    ToolParser,
    _parsers_of,
    user_message,
)
from genseg_mm.launch.config import CfgOptions  # noqa: E402

TOOLS = sorted(
    path
    for path in (ROOT / 'tools').rglob('*.py')
    if "if __name__ == '__main__'" in path.read_text()
    # Both run before there is an environment, or instead of torchrun.
    and 'setup_env' not in path.parts and path.name != 'torchrun.py'
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of a bad input.

    Attributes:
        code: Exit code; of Python code the kind of error.
        text: Lines of stderr, or of the error.
    """

    code: int | str
    text: str

    @property
    def is_one_line(self) -> bool:
        """Whether it is what a user should see."""
        lines = self.text.strip().splitlines()
        if isinstance(self.code, int):
            return self.code in (1, 2) and len(lines) == 1 and lines[0].startswith(('error: ', 'error ('))
        return self.code in ('ValueError', 'FileNotFoundError', 'ImportError') and len(lines) == 1


def run_tool_with(tool: Path, arguments: list[str]) -> Outcome:
    """Runs a tool in this process, as a script."""
    before, folder = sys.argv, os.getcwd()
    path = list(sys.path)
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = [str(tool), *arguments]
    sys.path.insert(0, str(tool.parent))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                runpy.run_path(str(tool), run_name='__main__')
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(bool(end.code))
                if isinstance(end.code, str):
                    print(end.code, file=err)
            except BaseException:
                code = 1
                traceback.print_exc(file=err)
    finally:
        sys.argv, sys.path[:] = before, path
        os.chdir(folder)
    return Outcome(code, err.getvalue())


def run_code(code: str, names: dict) -> Outcome:
    """Runs lines of Python, the last of which should raise."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            exec(code, dict(names))
    except Exception as error:
        # What our functions raise is one line itself; through the tools other packages' errors become one, too.
        return Outcome(type(error).__name__, str(error) if user_message(error) else traceback.format_exc())
    return Outcome('nothing', '')


def parser_of(tool: Path) -> ToolParser:
    """The parser of a tool, from its ``--help``."""
    made: list[ToolParser] = []
    original = ToolParser.__init__

    def remember(self: ToolParser, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    ToolParser.__init__ = remember
    try:
        outcome = run_tool_with(tool, ['--help'])
    finally:
        ToolParser.__init__ = original
    assert outcome.code == 0 and made, f'{tool.name} --help: {outcome}'
    return made[0]


def shared_cases(tool: Path, folder: Path) -> Iterator[tuple[list[str], str]]:
    """(arguments, what the line must hold) of the mistakes that one can make with any tool."""
    parser = parser_of(tool)
    words, places = list(_needed(parser, folder)), [own.dest for own in parser._actions if not own.option_strings]
    yield [*words, '--no-such-switch'], 'unrecognized arguments: --no-such-switch'
    for action in parser._actions:
        if not action.option_strings and action.choices and not _parsers_of(action):
            wrong = ['no_such_choice' if word == next(iter(action.choices)) else word for word in words]
            yield wrong, "invalid choice: 'no_such_choice'"
        switch = action.option_strings[-1] if action.option_strings else ''
        if not switch.startswith('--') or action.help == '==SUPPRESS==':
            continue
        if action.type in (int, float):
            many = ['many'] * (action.nargs if isinstance(action.nargs, int) else 1)
            yield [*words, switch, *many], f"argument {switch}: invalid {action.type.__name__} value: 'many'"
        if action.type is int and not action.choices:
            if isinstance(action.nargs, int):
                yield [*words, switch, *['0'] * action.nargs], f'argument {switch}: expected an integer'
            else:
                yield [*words, f'{switch}=-1'], f'argument {switch}: expected an integer'
        if action.choices and action.type is None and action.option_strings:
            yield [*words, switch, 'no_such_choice'], "invalid choice: 'no_such_choice'"
        if switch == '--folder':
            out = ['--out', str(folder / 'out')] if '--out' in parser._option_string_actions else []
            yield [*words, switch, str(folder / 'no_such_folder'), *out], 'no_such_folder'
        if switch == '--device':
            yield [*words, switch, 'cuda'], 'argument --device: device cuda is not here: 0 GPUs are visible'
            yield [*words, switch, 'gpu'], "device must be such as cpu or cuda:0, but got 'gpu'"
        if switch == '--cfg-options':
            # One tool reads them per run, after its config.
            yield [*words, switch, 'a'], "but got 'a'" if isinstance(action, CfgOptions) else 'does not exist'
    yield from _outputs(parser, words, folder)
    if places == ['out']:
        yield [str(folder / 'file.txt' / 'out')], 'file.txt'
    elif any('no_such' in word for word in words):
        yield words, 'no_such'


def _outputs(parser: ToolParser, words: list[str], folder: Path) -> Iterator[tuple[list[str], str]]:
    """As :func:`shared_cases`, of what is written to: below a file, over a folder, with a wrong ending."""
    for own in (parser, *(own for action in parser._actions for own in _parsers_of(action))):
        for action in own._actions:
            if not getattr(action, 'writes', None):
                continue
            name = action.option_strings[-1] if action.option_strings else action.dest
            ending = action.writes[0] if isinstance(action.writes, tuple) else ''

            def named(path: Path, action: argparse.Action = action) -> list[str]:
                if action.option_strings:  # the last one counts
                    return [*words, action.option_strings[-1], str(path)]
                return [str(path) if word.endswith(f'no_such_{action.dest}.py') else word for word in words]

            yield named(folder / 'file.txt' / f'out{ending}'), 'file.txt is a file, expected a folder (--help'
            if action.writes != 'text' and action.type in (None, Path):
                yield named(Path('-')), f'argument {name}: only text goes to the standard output'
            if action.writes not in ('folder', 'either'):
                taken = str(folder / f'folder{ending}')  # a file may get its ending from the argument's type
                Path(action.type(taken) if action.type else taken).mkdir(exist_ok=True)
                yield named(folder / f'folder{ending}'), f'argument {name}: expected a file, but '
            if ending:
                yield named(folder / 'a.wrong'), f'argument {name}: expected a file that ends in {ending}'


def _needed(parser: ToolParser, folder: Path) -> Iterator[str]:
    """A command line that has all that the parser asks for, with files that do not exist."""
    for action in parser._actions:
        tasks = _parsers_of(action)
        if tasks:
            yield from (next(iter(action.choices)), *_needed(tasks[0], folder))
        elif action.option_strings and action.required:
            yield from (action.option_strings[-1], str(folder / 'no_such_file'))
        elif not action.option_strings and action.choices:
            yield next(iter(action.choices))
        elif not action.option_strings and action.nargs != '*':
            yield str(folder / f'no_such_{action.dest}.py')


def all_cases(folder: Path, only: str = '', listed: bool = False) -> Iterator[tuple[str, Outcome, str]]:
    """(input, outcome, what the line must hold) of all cases, run one after the other."""
    cases.make_files(folder)
    os.environ.update(GENSEG_DATA=str(folder / 'no_data'), HF_HUB_OFFLINE='1')
    for tool in () if listed else TOOLS:
        name = tool.relative_to(ROOT / 'tools').as_posix()
        if not only or only in name:
            for arguments, expected in shared_cases(tool, folder):
                yield _shown(name, arguments, folder), run_tool_with(tool, arguments), expected
    for name, text, expected in cases.TOOL_CASES:
        arguments = [word.replace('{}', str(folder)) for word in text.split(' ')]
        if not only or only in f'{name} {text}':
            yield f'{name} {text}', run_tool_with(ROOT / 'tools' / name, arguments), expected
    chosen = [case for case in cases.PYTHON_CASES if only in case[0]]
    names = cases.names(folder) if chosen else {}
    for code, expected in chosen:
        yield code.replace('\n', '; '), run_code(code, names), expected


def _shown(name: str, arguments: list[str], folder: Path) -> str:
    return ' '.join([name, *arguments]).replace(str(folder), '{}')


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--table', action='store_true', help='Markdown instead of one word per case')
    parser.add_argument('--only', default='', metavar='TEXT', help='cases whose input has this in it')
    parser.add_argument('--listed', action='store_true', help='only the listed cases')
    args = parser.parse_args()
    count, wrong = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        if args.table:
            print('| input | exit code or error | line |\n|---|---|---|')
        for shown, outcome, expected in all_cases(Path(folder), args.only, args.listed):
            count += 1
            good = outcome.is_one_line and expected in outcome.text
            wrong += not good
            line = ' '.join(outcome.text.split()).replace(folder, '{}')
            if args.table:
                cells = [own.replace('|', '\\|') for own in (shown, str(outcome.code), line[:300])]
                print(f'| `{cells[0]}` | {cells[1]} | {cells[2]}{"" if good else " **WRONG**"} |')
            elif not good:
                print(f'WRONG {shown}\n  expected: {expected}\n  got {outcome.code}: {line[-600:]}', flush=True)
    print(f'\n{count} bad inputs, {wrong} not answered by the right line')
    sys.exit(int(wrong > 0))


if __name__ == '__main__':
    main()
