"""Runs the text of a shell block by bash, and writes down each program that it starts in place of starting it.

So everything that bash reads is the document's own: quotes, variables, the scripts of tools/ with their options.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from genseg_mm.command import find_tool, tools_folder

_RECORD = """#!/bin/sh
{{ printf '%s\\037' "$GENSEG_DATA" {first} "$@"; printf '\\036'; }} >> "$RECORD"
"""
_BASH = """#!/bin/sh
case "$1" in
tools/quickstart.sh | tools/run_tests.sh | tools/setup_env.sh | tools/build_docs.sh) ;;
*) exec /bin/bash "$@" ;;
esac
"""
_SRUN = """#!/bin/sh
while [ "$1" != python ]; do shift; done
exec "$@"
"""


@dataclass(frozen=True)
class Command:
    """A program as bash would have started it.

    Attributes:
        tool: Its file below the root of the project.
        arguments: Of the tool, without those of launchers.
        processes: Number of processes, None without a launcher.
        data_root: GENSEG_DATA.
        needs: What the line says that it needs.
    """

    tool: str
    arguments: tuple[str, ...]
    processes: int | None = None
    data_root: str = ''
    needs: frozenset[str] = field(default=frozenset(), compare=False)


def commands_of(line: str, place: Path, environment: Mapping[str, str]) -> tuple[list[Command], dict]:
    """The programs that a line starts.

    Args:
        line: Of a block, whole.
        place: Working directory, with links to the project's folders.
        environment: Variables exported by the lines before.

    Returns:
        Commands, and the variables exported after it.
    """
    programs, record, after = place / 'programs', place / 'record', place / 'after'
    if not programs.exists():
        programs.mkdir()
        for name, text in (
            ('python', _RECORD.format(first='')),
            ('bash', _BASH + _RECORD.format(first='').partition('\n')[2]),
            ('srun', _SRUN),
            ('genseg', _RECORD.format(first='genseg')),
            ('pip', _RECORD.format(first='pip')),
        ):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
    record.write_text('')
    variables = dict(environment, RECORD=str(record), PYTHON='python')
    variables['PATH'] = f'{programs}:/usr/bin:/bin'
    script = f'{line}\ncode=$?\nenv -0 > {after}\nexit $code'
    done = subprocess.run(['/bin/bash', '-u', '-c', script], cwd=place, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f'{line}\n{done.stderr}'
    exported = dict(pair.split('=', 1) for pair in after.read_text().split('\0') if '=' in pair)
    kept = {key: value for key, value in exported.items() if key == 'GENSEG_DATA'}
    calls = [call.split('\037')[:-1] for call in record.read_text().split('\036')[:-1]]
    return [_command(root, words) for root, *words in calls], kept


def _command(data_root: str, words: list[str]) -> Command:
    if words[0] == 'genseg':
        tool, _, arguments = find_tool(words[1:])
        return Command(f'tools/{tool.relative_to(tools_folder())}', tuple(arguments), data_root=data_root)
    words = [word for word in words if word != '-u']
    processes = None
    if words[0].endswith('torchrun.py'):
        processes = int(next(word for word in words if word.startswith('--nproc')).split('=')[1])
        words = words[next(i for i, word in enumerate(words) if i and word.endswith('.py')) :]
    if '--launcher' in words:
        at = words.index('--launcher')
        processes = processes or 1
        words = words[:at] + words[at + 2 :]
    tool = re.sub(r'^.*/(?=tools/)', '', words[0])
    return Command(tool, tuple(words[1:]), processes, data_root)


def lines_of(source: str) -> list[str]:
    """Lines of a block, those that go on in the next joined."""
    return [line for line in re.sub(r'\\\n\s*', ' ', source).splitlines() if line.strip()]


def make_place(place: Path, root: Path) -> Path:
    """A folder in which the documents' commands may run: links to the project, and an environment to switch on."""
    for name in ('configs', 'tools', 'genseg_mm', 'docs'):
        os.symlink(root / name, place / name)
    (place / '.venv/bin').mkdir(parents=True)
    (place / '.venv/bin/activate').write_text('')
    return place
