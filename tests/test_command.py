"""The command ``genseg``: every row of its table, what it says of itself, and mistakes."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from genseg_mm import __version__, command
from genseg_mm.command import COMMANDS, GROUPS
from genseg_mm.launch.command_line import ToolParser

ROOT = Path(__file__).parents[1]
ISSUED = 'train test predict benchmark compare prepare verify browse rehearse plan export doctor'


class Parsed(BaseException):
    """A command line that was read without a mistake."""


@pytest.fixture
def genseg(monkeypatch, capsys):
    """Runs ``genseg WORDS`` in this process; its exit code, output and errors."""
    monkeypatch.setattr(command, '_called', None)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(sys, 'argv', ['genseg'])

    def run(words: str) -> tuple[int, str, str]:
        code = 0
        try:
            command.main(shlex.split(words))
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


def test_the_table_has_the_commands_and_no_other_tool_twice():
    names = [own.name for own in COMMANDS]
    assert set(ISSUED.split()) <= {name.partition(' ')[0] for name in names}
    assert len(set(names)) == len(names) == len({own.tool for own in COMMANDS})
    assert {name.partition(' ')[0] for name in names if ' ' in name} == set(GROUPS)


@pytest.mark.parametrize('own', COMMANDS, ids=lambda own: own.name)
def test_a_row_is_a_tool_whose_help_has_the_example_and_whose_example_is_read(own, genseg, monkeypatch):
    assert (ROOT / 'tools' / own.tool).is_file()
    assert len(own.summary) <= 80 and own.summary[0].islower()
    code, said, errors = genseg(f'{own.name} --help')
    assert (code, errors) == (0, '')
    assert said.startswith(f'usage: genseg {own.name} ') and 'python tools/' not in said
    assert said.endswith(f'example: {f"genseg {own.name} {own.example}".rstrip()}\n')

    for name in ('parse_args', 'parse_intermixed_args'):
        read = getattr(ToolParser, name)

        def parse_alone(self, args=None, namespace=None, read=read):
            raise Parsed(read(self, args, namespace))

        monkeypatch.setattr(ToolParser, name, parse_alone)
    with pytest.raises(Parsed):
        genseg(f'{own.name} {own.example}')


def test_the_overview_names_all_commands_at_once_without_torch():
    code = (
        'import sys\nfrom genseg_mm.command import main\nmain([])\n'
        'print(sorted({"torch", "cv2", "mmcv"} & set(sys.modules)))'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    *lines, imported = result.stdout.splitlines()
    assert imported == '[]'
    assert [line.split()[0] for line in lines if line.startswith('  ')] == list(
        dict.fromkeys(own.name.partition(' ')[0] for own in COMMANDS)
    )


def test_a_group_lists_its_commands(genseg):
    code, said, _ = genseg('prepare --help')
    assert code == 0 and '  objects ' in said and '  hypersim ' in said and '\n  train ' not in said
    assert genseg('prepare') == (0, said, '')


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ('tran', "error: unknown command 'tran'; did you mean 'train'? (`genseg --help` lists them)\n"),
        (
            'prepare hypersin',
            "error: unknown command 'prepare hypersin'; did you mean 'prepare hypersim'? (`genseg prepare --help` "
            'lists them)\n',
        ),
        ('--no-such', "error: unknown command '--no-such' (`genseg --help` lists them)\n"),
        ('../setup.py', "error: unknown command '../setup.py' (`genseg --help` lists them)\n"),
        ('train --no-such x', 'error: unrecognized arguments: --no-such (--help lists what genseg train takes)\n'),
    ],
)
def test_mistakes_are_one_line(words, expected, genseg):
    assert genseg(words) == (2, '', expected)


def test_names_of_tools_are_those_of_the_command_in_errors_too(genseg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (8, 8)).save('photo.png')
    code, _, errors = genseg('predict photo.png gen2seg_unet_shapes_tiny --automatic')
    assert code == 2 and 'train it with genseg train gen2seg_unet_shapes_tiny and give weights=' in errors


def test_any_tool_goes_by_its_file(genseg):
    code, said, _ = genseg('analysis_tools/print_config.py gen2seg_unet_shapes_tiny --get model.type')
    assert code == 0 and 'Gen2Seg' in said


def test_the_example_of_tiny_data_writes_what_is_verified_then(genseg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = next(own.example for own in COMMANDS if own.name == 'prepare tiny')
    assert genseg(f'prepare tiny {example}') == (0, 'wrote tiny_data\n', '')
    monkeypatch.setenv('GENSEG_DATA', 'tiny_data')
    code, said, _ = genseg('verify _base_/benchmarks/bsds500')
    assert code == 0 and re.search(r'^bsds500 +\d', said, re.MULTILINE) and 'not in order' not in said


def test_version(genseg):
    assert genseg('--version') == (0, f'genseg_mm {__version__}\n', '')


def test_what_is_typed_is_what_is_shown(monkeypatch):
    """Of a stopped training, and in the records of benchmarks."""
    from genseg_mm.benchmarking import provenance
    from genseg_mm.stopping import resume_command

    monkeypatch.delenv('GENSEG_COMMAND', raising=False)
    tool = str(ROOT / 'tools/train.py')
    monkeypatch.setattr(command, '_called', (Path(tool), 'genseg train'))
    monkeypatch.setattr(sys, 'argv', [tool, 'x.py'])
    assert (resume_command(), provenance.command()) == ('genseg train x.py --resume', 'genseg train x.py')
    monkeypatch.setattr(sys, 'argv', ['tools/test.py', 'x.py'])  # a fork that runs another tool
    assert provenance.command() == 'python tools/test.py x.py'


def test_the_module_is_the_command(tmp_path):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    words = [sys.executable, '-m', 'genseg_mm', 'plan']
    result = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (result.returncode, result.stdout) == (2, '')
    assert result.stderr.startswith('error: expected configs or --all, but got neither (--help lists what genseg plan')


def test_weights_of_a_name(tmp_path, monkeypatch):
    """``genseg test NAME``: those of the zoo, of a shipped config's file too; of any other config none."""
    weights_of = runpy.run_path(str(ROOT / 'tools/test.py'))['weights_of']
    expected = ROOT / 'genseg_mm/weights/gen2seg_unet_shapes.safetensors'
    for name in ('gen2seg_unet_shapes_long_tiny', 'configs/gen2seg/gen2seg_unet_shapes_long_tiny.py'):
        monkeypatch.chdir(tmp_path if '/' not in name else ROOT)
        assert Path(weights_of(name)) == expected
    monkeypatch.chdir(tmp_path)
    Path('gen2seg_unet_shapes_long_tiny.py').write_text('model = dict()\n')
    for name in ('gen2seg_unet_shapes_tiny', 'gen2seg_unet_shapes_long_tiny.py'):
        with pytest.raises(ValueError, match=r'expected a checkpoint.*weights of .*genmask_sana_shapes_long_tiny'):
            weights_of(name)
