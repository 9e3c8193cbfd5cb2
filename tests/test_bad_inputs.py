"""Every bad input ends in one line: those that any tool can get, by discovery, and the listed ones."""

import os
import subprocess
import sys
from pathlib import Path

import bad_input_cases as cases
import pytest
from bad_inputs import ROOT, TOOLS, Outcome, _parsers_of, parser_of, run_code, run_tool_with, shared_cases


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('bad_inputs')
    cases.make_files(folder)
    return folder


@pytest.fixture(autouse=True)
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('GENSEG_DATA', str(folder / 'no_data'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    for name in ('RANK', 'WORLD_SIZE', 'GENSEG_TRACEBACK'):
        monkeypatch.delenv(name, raising=False)


def assert_one_line(outcome: Outcome, expected: str) -> None:
    assert outcome.is_one_line, outcome
    assert expected in outcome.text


@pytest.mark.parametrize('tool', TOOLS, ids=lambda tool: tool.stem)
def test_mistakes_that_any_tool_can_get(tool: Path, folder: Path) -> None:
    found = list(shared_cases(tool, folder))
    assert len(found) >= (1 if tool.stem in ('doctor', 'models') else 2)  # which take no file and no number
    for arguments, expected in found:
        outcome = run_tool_with(tool, arguments)
        assert outcome.is_one_line and expected in outcome.text, (arguments, expected, outcome)


OUTPUTS = {'out', 'json', 'out_dir', 'work_dir', 'show_dir', 'save_path', 'curves', 'plain_maps', 'classifier'}


def test_every_output_of_every_tool_is_checked_with_the_arguments() -> None:
    """``shared_cases`` tries those that say that they are written to; here none is left out."""
    found, silent = 0, []
    for tool in TOOLS:
        parser = parser_of(tool)
        for own in (parser, *(own for action in parser._actions for own in _parsers_of(action))):
            outputs = [action for action in own._actions if action.dest in OUTPUTS and action.nargs != 0]
            found += len(outputs)
            silent += [f'{tool.name} {action.dest}' for action in outputs if not action.writes]
    assert silent == [] and found > 50


@pytest.mark.parametrize(('tool', 'arguments', 'expected'), cases.TOOL_CASES)
def test_bad_inputs_of_tools(tool: str, arguments: str, expected: str, folder: Path) -> None:
    words = [word.replace('{}', str(folder)) for word in arguments.split(' ')]
    assert_one_line(run_tool_with(ROOT / 'tools' / tool, words), expected)


@pytest.mark.parametrize(('code', 'expected'), cases.PYTHON_CASES)
def test_bad_inputs_in_python(code: str, expected: str, folder: Path) -> None:
    assert_one_line(run_code(code, cases.names(folder)), expected)


def test_there_are_many_cases() -> None:
    listed = [*cases.TOOL_CASES, *cases.PYTHON_CASES]
    assert len(listed) == len({(case[0], case[1]) for case in listed}) >= 120


def test_a_command_line_is_refused_before_torch_is_imported() -> None:
    code = (
        'import runpy, sys; sys.argv = sys.argv[1:]\n'
        'try: runpy.run_path(sys.argv[0], run_name="__main__")\n'
        'except SystemExit as end: print(end.code, sorted({"torch", "mmcv", "diffusers"} & set(sys.modules)))'
    )
    for tool, *arguments in (
        ('train.py', '--help'), ('train.py', 'none.py'), ('test.py', 'none.py', 'none.pth'),
        ('benchmark.py', 'none.py'), ('image_demo.py', '--no-such'), ('analysis_tools/print_config.py', 'none.py'),
    ):  # fmt: skip
        command = [sys.executable, '-c', code, str(ROOT / 'tools' / tool), *arguments]
        result = subprocess.run(command, capture_output=True, text=True)
        expected = '0 []' if arguments == ['--help'] else '2 []'
        assert result.stdout.splitlines()[-1] == expected, (tool, result)


@pytest.mark.slow
@pytest.mark.parametrize(('tool', 'arguments', 'expected'), [cases.TOOL_CASES[number] for number in range(0, 120, 40)])
def test_the_same_in_processes_of_their_own(tool: str, arguments: str, expected: str, folder: Path) -> None:
    words = [word.replace('{}', str(folder)) for word in arguments.split(' ')]
    result = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), *words],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONWARNINGS': 'ignore'},
    )
    assert_one_line(Outcome(result.returncode, result.stderr), expected)


def test_missing_packages_are_named_with_the_command() -> None:
    from genseg_mm.launch import user_message

    for name, command in (('h5py', 'pip install h5py'), ('cv2', 'pip install opencv-python-headless')):
        message = user_message(ModuleNotFoundError(f'No module named {name!r}', name=name))
        assert f'the package {name} is not installed' in message and command in message
    assert user_message(ModuleNotFoundError("No module named 'genseg_mm.x'", name='genseg_mm.x')) is None
