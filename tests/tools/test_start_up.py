"""Help and mistakes of every tool are answered before what takes seconds is imported."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bad_inputs import ROOT, TOOLS, _needed, parser_of, run_tool_with

# What takes half as long as torch to import, or longer, and is for a tool's work alone.
HEAVY = ('mmengine.runner', 'mmengine.model', 'transformers', 'diffusers', 'torch._dynamo')
# Of tools with several paths, one that stands behind the first.
LATER_PATHS = (
    ('test.py', 'gen2seg_unet_shapes_tiny', 'no_such.pth'),
    ('image_demo.py', 'no_such.jpg', 'gen2seg_unet_shapes_long_tiny'),
)  # fmt: skip


def commands(tool: Path, folder: Path) -> Iterator[list[str]]:
    """``--help`` of a tool, and all that it needs with paths at which nothing is."""
    name = tool.relative_to(ROOT / 'tools').as_posix()
    yield [name, '--help']
    parser = parser_of(tool)
    if [own.dest for own in parser._actions if not own.option_strings] == ['out']:
        yield [name, str(folder / 'file.txt' / 'out')]
    elif any('no_such' in word for word in _needed(parser, folder)):
        yield [name, *_needed(parser, folder)]
    yield from (list(words) for words in LATER_PATHS if words[0] == name)


def heavy_modules() -> list[str]:
    """Those of ``HEAVY`` that this process has imported."""
    return [module for module in HEAVY if module in sys.modules]


def print_answers(folder: Path) -> None:
    """Prints [command, exit code, lines of errors, heavy modules] of every tool, each in a fork of this process."""
    import genseg_mm.datasets  # and torch: once for all, since nearly every tool's constants come from there
    import genseg_mm.evaluation  # noqa: F401

    assert not heavy_modules()
    for tool in TOOLS:
        if os.fork() == 0:
            for name, *words in commands(tool, folder):
                outcome = run_tool_with(ROOT / 'tools' / name, words)
                print(json.dumps([[name, *words], outcome.code, outcome.text, heavy_modules()]), flush=True)
            os._exit(0)
        os.wait()


def test_help_and_wrong_paths_import_nothing_heavy(tmp_path: Path) -> None:
    code = 'import pathlib, sys, test_start_up; test_start_up.print_answers(pathlib.Path(sys.argv[1]))'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, (ROOT, ROOT / 'tests', Path(__file__).parent)))}
    (tmp_path / 'file.txt').touch()
    command = [sys.executable, '-c', code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    helped = [command[0] for command, *_ in rows if command[1:] == ['--help']]
    assert helped == [tool.relative_to(ROOT / 'tools').as_posix() for tool in TOOLS]
    assert len(rows) >= 1.6 * len(TOOLS)
    expected = [0 if command[1:] == ['--help'] else 2 for command, *_ in rows]
    wrong = [row for row, code in zip(rows, expected, strict=True) if row[1] != code or row[3]]
    assert wrong == []
    assert 'OneDL' not in done.stdout + done.stderr
