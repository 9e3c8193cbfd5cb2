"""The commands of the documents: bash reads the text as it stands, and each program runs on small twins of its inputs.

Long trainings are cut to a few iterations. What needs real data or released weights says so in its line, and only that.
"""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from code_blocks import ROOT, code_blocks, documents, needs_of
from made_files import make_data, make_hub, make_street
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from shell_commands import Command, commands_of, lines_of, make_place
from short_runs import run_forked, small_data

from genseg_mm.checkpoint import load_weights_only, model_weights
from genseg_mm.config_file import find_config, shipped_configs
from genseg_mm.datasets.object_bank import PREPARE, default_bank
from genseg_mm.files.package_folders import SENTENCE_ENCODER, place_of_package
from genseg_mm.inference.build_model import shipped_weights
from genseg_mm.models.dit_families import FAMILIES
from genseg_mm.registry import DATASETS, METRICS, MODELS

LINES = [
    (block, line)
    for path in documents()
    for block in code_blocks(path)
    if block.kind == 'bash'
    for line in lines_of(block.source)
]
SHORT = ['train_cfg.max_iters=2', 'default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1']
QUICKSTART = 'tools/quickstart.sh'  # has a test of its own
NO_PROGRAM = ('source .venv/bin/activate', 'export GENSEG_DATA')  # lines that start none of ours
WITHOUT_DATA = ('tools/plan.py', 'tools/rehearse.py')  # of a config with real data
TWO_MODELS = ['shipped_unet', 'control_rgb', '--only', 'dram', 'egohos', '--no-examples']


class Twins:
    """Runs commands on twins, each once, and keeps what was made: checkpoints by config."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.checkpoints: dict[str, Path] = {}
        self.done: dict[tuple, object] = {}

    def tool(self, tool: str, *arguments: object) -> None:
        """A tool in this process, from the folder of the documents' reader."""
        words = [tool, *map(str, arguments)]
        if tuple(words) in self.done:
            return
        self.done[tuple(words)] = True
        argv, handlers = (sys.argv, [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)])
        sys.argv = words
        try:
            runpy.run_path(str(ROOT / tool), run_name='__main__')
        except SystemExit as left:
            assert left.code in (None, 0), words
        finally:
            sys.argv = argv
            for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
                signal.signal(number, handler)

    def config(self, path: str) -> str:
        """The tiny twin of a config, given by its file or its name; itself, of one that an earlier command wrote."""
        if not (ROOT / path).is_file() and (self.place / path).is_file():
            return path
        path = os.path.relpath(find_config(path if '/' not in path else ROOT / path), ROOT)
        assert (ROOT / path).is_file(), f'{path} does not exist'
        twin = path if '_tiny' in path else path.replace('.py', '_tiny.py')
        assert (ROOT / twin).is_file(), f'{path} has no tiny twin'
        return twin

    def work_dir(self, config: str) -> Path:
        return self.place / 'work_dirs' / Path(config).stem

    def train(self, command: Command) -> None:
        config, *options = command.arguments
        assert not options or options[0] == '--cfg-options'
        twin = self.config(config)
        cfg = Config.fromfile(self.place / twin)
        changes = [*SHORT, 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2', *small_data(cfg)]
        if cfg.train_dataloader.sampler.get('group', 1) > 1:
            changes.append('train_dataloader.sampler.group=1')
        for number, part in enumerate(cfg.train_dataloader.dataset.get('datasets', [])):
            at = f'train_dataloader.dataset.datasets.{number}.pipeline'
            large = [place for place, step in enumerate(part.pipeline) if step.get('scale') == (640, 480)]
            changes += [f'{at}.{place}.scale=(160,120)' for place in large]  # attention at this size takes a minute
        self.tool(command.tool, twin, '--cfg-options', *changes, *options[1:])
        self.checkpoints[twin] = self.work_dir(twin) / 'iter_2.pth'
        name = str(self.checkpoints[twin])
        state = model_weights(load_weights_only(name), name)
        assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())

    def checkpoint(self, config: str, written: str) -> Path:
        """What a command means by a checkpoint: a file that the training before it wrote, or one that is shipped."""
        if (ROOT / written).is_file():
            return ROOT / written
        if (self.place / written).is_file():  # bash has found it: best_*.pth
            return self.place / written
        config = config if '.py' in config else self.config(config)
        if written != 'CHECKPOINT':
            # work_dirs/<config>/iter_<last iteration>.pth
            assert Path(written).parent == Path('work_dirs') / Path(config).stem
            assert Path(written).stem == f'iter_{Config.fromfile(self.place / config).train_cfg.max_iters}'
        return self.checkpoints[self.config(config)]

    def test(self, command: Command) -> None:
        config, *options = command.arguments
        if not options or options[0].startswith('-'):  # the weights that come with it
            options.insert(0, os.path.relpath(shipped_weights(find_config(config)), ROOT))
        checkpoint, *options = options
        twin = self.config(config)
        weights = self.checkpoint(config, checkpoint)
        cfg = Config.fromfile(self.place / twin)
        if weights.suffix == '.pth' or 'long' in config:
            few = small_data(cfg, ('test',))
            options += ['--cfg-options'] * ('--cfg-options' not in options and bool(few)) + few
        self.tool(command.tool, twin, weights, *options)
        metrics = json.loads(max(self.work_dir(twin).glob('*/*.json')).read_text())
        score = metrics.get('oIoU', metrics.get('mIoU'))
        assert 0 <= score <= 100 and (weights.suffix == '.pth' or score > 70)

    def benchmark(self, command: Command) -> None:
        suite, *rest = command.arguments
        if (self.place / suite).is_file() and not (ROOT / suite).is_file():  # of the document
            self.tool(command.tool, *command.arguments)
            board = json.loads(next(self.place.glob('work_dirs/benchmarks/squares/leaderboard.json')).read_text())
            assert [one['metrics'].get('mIoU') for one in board['records']] == [100.0, None]
            return
        assert Path(find_config(suite if '/' not in suite else ROOT / suite)).is_file()
        models = [word for word in rest if '=' in word]
        for model in models:
            name, config, checkpoint = model.replace('=', ':').split(':')
            assert (ROOT / config).is_file() and name and checkpoint == 'CHECKPOINT'
        if '--check' in rest:
            out = self.place / 'work_dirs/benchmarks/tiny'
            (self.place / 'OLD').mkdir(exist_ok=True)
            shutil.copy(out / 'leaderboard.json', self.place / 'OLD/leaderboard.json')
            self.tool(command.tool, 'configs/benchmarks/tiny.py', *TWO_MODELS, *rest[rest.index('--check') :])
            return
        self.tool(command.tool, 'configs/benchmarks/tiny.py', *TWO_MODELS)
        board = json.loads((self.place / 'work_dirs/benchmarks/tiny/leaderboard.json').read_text())
        assert len(board['records']) == 4
        assert {path.name for path in (self.place / 'work_dirs/tiny_data').iterdir()} == {
            'DRAM_processed', 'egohos', 'tiny_benchmarks.json',
        }  # fmt: skip

    def compare(self, command: Command) -> None:
        first, second, *options = command.arguments
        assert first == 'OUT/MODEL_A/BENCHMARK' and second == 'OUT/MODEL_B/BENCHMARK'
        out = 'work_dirs/benchmarks/tiny'
        self.tool(command.tool, f'{out}/shipped_unet/dram', f'{out}/control_rgb/dram', *options)
        assert (self.place / options[1] / 'report.md').is_file()

    def verify(self, command: Command) -> None:
        report = self.place / 'verified.json'
        config, *options = command.arguments
        twin = config.replace('.py', '_tiny.py')
        self.tool(command.tool, twin if (ROOT / twin).is_file() else config, *options, '--json', report)
        datasets = json.loads(report.read_text())['datasets']
        assert all(one['items'] and not one['missing'] for one in datasets)

    def browse(self, command: Command) -> None:
        self.tool(command.tool, self.config(command.arguments[0]), '--out-dir', 'browsed')
        pictures = list((self.place / 'browsed').rglob('*.png'))
        assert pictures and all(np.asarray(Image.open(path)).std() > 10 for path in pictures)

    def own_data(self, command: Command) -> None:
        self.tool(command.tool, *command.arguments)

    def prepare_hypersim(self, command: Command) -> None:
        self.tool(command.tool, *command.arguments)
        assert len((self.place / 'data/hypersim/index.csv').read_text().splitlines()) > 2

    def cache(self, command: Command) -> None:
        config, *options = command.arguments
        options[options.index('/data/cache')] = 'data/cache'
        self.tool(command.tool, self.config(config), *options)
        assert list((self.place / 'data/cache').rglob('*.safetensors'))

    def publish(self, command: Command) -> None:
        checkpoint, *rest = command.arguments
        config = f'configs/genmask/{Path(checkpoint).parent.name}.py'
        self.tool(command.tool, self.checkpoint(config, checkpoint), *rest)
        assert (self.place / rest[0]).stat().st_size > 1e6

    def export(self, command: Command) -> None:
        if any(find_spec(name) is None for name in ('onnx', 'onnxscript', 'onnxruntime')) and 'torch' not in (
            command.arguments
        ):
            return  # the extra [onnx]; tests/exporting says so
        self.tool(command.tool, *command.arguments)
        assert (self.place / command.arguments[-1]).stat().st_size > 1e6

    def doctor(self, command: Command) -> None:
        self.tool(command.tool, *command.arguments)

    def demo(self, command: Command) -> None:
        if command.arguments[0] == 'street.jpg':
            make_street(self.place / 'street.jpg')
            self.tool(command.tool, *command.arguments)
            assert json.loads((self.place / 'outputs/preds/street.json').read_text())['masks']
            assert np.asarray(Image.open(self.place / 'outputs/vis/street.png')).std() > 10
            return
        self.tool(command.tool, *command.arguments)
        picture = np.asarray(Image.open(self.place / 'outputs/preds/00000000.png'))
        assert picture.shape == (64, 64, 3)

    def to_pretrained(self, command: Command) -> None:
        config, checkpoint, out = command.arguments
        self.tool(command.tool, config, self.checkpoint(config, checkpoint), out)
        assert (self.place / out / 'model_index.json').is_file()

    def whole(self, command: Command) -> None:
        """A command that is short as it stands."""
        self.tool(command.tool, *command.arguments)

    def rehearse(self, command: Command) -> None:
        """In a process of its own: where the hub's folders are is read when its packages are imported."""
        words = [sys.executable, ROOT / command.tool, *command.arguments, '--until', 'train']
        environment = dict(os.environ, PYTHONPATH=str(ROOT))
        done = subprocess.run(words, cwd=self.place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and '1 of 1 passed' in done.stdout, done.stdout + done.stderr

    def options(self, command: Command) -> None:
        """A command that serves, or sets up: only its options are looked up."""
        program = sys.executable if command.tool.endswith('.py') else '/bin/bash'
        usage = subprocess.run([program, ROOT / command.tool, '--help'], capture_output=True, text=True)
        assert usage.returncode == 0, usage.stderr
        assert all(word in usage.stdout for word in command.arguments if word.startswith('--')), command

    def pip(self, command: Command) -> None:
        """Extras that are named are those of setup.py."""
        extras = runpy.run_path(str(ROOT / 'setup.py'), run_name='requirements')['EXTRAS']
        install, *wishes = command.arguments
        assert install == 'install' and wishes
        for wish in wishes:
            assert set(re.findall(r'[a-z]+', wish.partition('[')[2])) <= set(extras), command

    def quickstart(self, command: Command | None = None, world: str = 'shapes') -> None:
        """All of it but set-up and most iterations; the table is compared with the one in docs/quickstart.md."""
        settings = runpy.run_path(str(ROOT / 'tools/quickstart.py'))['main'].__globals__
        whole_command, whole_test, whole_run = (settings[name] for name in ('training_command', 'test', 'run'))
        begun: set[str] = set()

        def run(command: list[str], log: Path) -> float:
            """The first command of each program as the quickstart runs it, the others in forks."""
            program, *words = command[1:]
            if program not in begun:
                begun.add(program)
                return whole_run(command, log)
            start, processes = time.monotonic(), 0
            if Path(program).name == 'dist_train.sh':
                program, processes = 'tools/train.py', int(words.pop(1))
            run_forked(Path(program).name, *words, cwd=self.place, processes=processes, logs=log.parent)
            return time.monotonic() - start

        def training_command(model: object, options: list[str]) -> list[str]:
            few = small_data(Config.fromfile(ROOT / model.config))
            return [*whole_command(model, options), *SHORT, 'train_cfg.val_interval=2', *few]

        def test(name: str, model: object, weights: Path, out: Path, options: list[str]) -> tuple:
            few = small_data(Config.fromfile(ROOT / model.config), ('test',))
            own = options if model.weights else [*options, *few]
            return whole_test(name, model, weights, out, own)

        # On one core: forks of a process with threads may wait for ever.
        settings.update(ROOT=self.place, training_command=training_command, test=test, run=run, num_cores=lambda: 1)
        models = settings['WORLDS'][world]
        for model in models.values():
            cfg = Config.fromfile(ROOT / model.config)
            with DefaultScope.overwrite_default_scope(cfg.default_scope):
                MODELS.build(cfg.model)  # imports what the forks need
        argv, sys.argv = sys.argv, ['quickstart.py', '--world', world]
        try:
            settings['main']()
        finally:
            sys.argv = argv
        report = json.loads((self.place / 'work_dirs/quickstart/report.json').read_text())
        compare_with_listing(report, models, settings['lines_of'], world)

    def run_tests(self, command: Command) -> None:
        usage = subprocess.run(['/bin/bash', ROOT / command.tool, '--help'], capture_output=True, text=True)
        assert usage.returncode == 0 and 'ruff check' in usage.stdout


TWINS: dict[str, Callable[[Twins, Command], None]] = {
    QUICKSTART: Twins.quickstart,
    'tools/run_tests.sh': Twins.run_tests,
    'tools/train.py': Twins.train,
    'tools/test.py': Twins.test,
    'tools/benchmark.py': Twins.benchmark,
    'tools/image_demo.py': Twins.demo,
    'tools/doctor.py': Twins.doctor,
    'tools/export.py': Twins.export,
    'tools/analysis_tools/compare.py': Twins.compare,
    'tools/analysis_tools/browse_dataset.py': Twins.browse,
    'tools/dataset_tools/verify_dataset.py': Twins.verify,
    'tools/dataset_tools/make_tiny_own.py': Twins.own_data,
    'tools/dataset_tools/prepare_own.py': Twins.own_data,
    'tools/dataset_tools/prepare_hypersim.py': Twins.prepare_hypersim,
    'tools/dataset_tools/cache_encodings.py': Twins.cache,
    'tools/model_converters/publish_model.py': Twins.publish,
    'tools/model_converters/gen2seg_to_pretrained.py': Twins.to_pretrained,
    'tools/plan.py': Twins.whole,
    'tools/rehearse.py': Twins.rehearse,
    'tools/app.py': Twins.options,
    'tools/benchmark_speed.py': Twins.options,
    'tools/setup_env.sh': Twins.options,
    'tools/build_docs.sh': Twins.options,
    'pip': Twins.pip,
}


def compare_with_listing(report: dict, models: dict, lines_of: Callable, world: str) -> None:
    """The lines of docs/quickstart.md: of shipped models number by number; of trainings, which were cut, by name."""
    listings = [one.source for path in documents() for one in code_blocks(path) if 'shipped GenMask' in one.source]
    printed = listings[('objects', 'shapes').index(world)].splitlines()
    for name, model in models.items():
        made = lines_of(model, report[name])
        start = next(at for at, line in enumerate(printed) if line.startswith(model.title))
        for line, own in zip(printed[start : start + len(made)], made, strict=True):
            said, measured = (re.split(r'[ ,]+', one.strip()) for one in (line, own))
            assert len(said) == len(measured), f'docs/quickstart.md has {line!r}, but the quickstart prints {own!r}'
            for word, value in zip(said, measured, strict=True):
                if not re.fullmatch(r'[0-9.]+', value):
                    assert word == value, f'docs/quickstart.md has {line!r}, but the quickstart prints {own!r}'
                elif model.weights:
                    assert float(word) == pytest.approx(float(value), abs=0.15), line


def needs_by_words(line: str, commands: list[Command]) -> set[str]:
    """What the words of a line ask for that is not in the repository."""
    words = [word for command in commands for word in command.arguments]
    needs = set()
    if 'GENSEG_DATA=' in line or any(command.data_root for command in commands):
        needs |= {'data', 'download'}
    for word in words:
        path = ROOT / word.partition('=')[2].partition(':')[0] if '=' in word else ROOT / word
        if word.endswith('.py') and path.is_file() and '_tiny' not in word and 'tiny.py' not in word:
            needs |= {'data'}
    reading = [one for one in commands if one.arguments and one.tool not in WITHOUT_DATA]
    first = {command.arguments[0] for command in reading}
    if any('tiny' not in word for word in first & set(shipped_configs())):
        needs |= {'data'}
    if any('prepare_hypersim' in command.tool for command in commands):
        needs |= {'data'}
    return needs


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp('commands'), ROOT)


def test_every_line_is_read_by_bash_and_has_a_twin(place):
    environments: dict[str, dict] = {}
    assert len(LINES) >= 24
    for block, line in LINES:
        commands, environments[block.where] = commands_of(line, place, environments.get(block.where, {}))
        said = needs_of(line)
        for command in commands:
            assert command.tool in TWINS, f'{block.where}: a line that no test runs: {line}'
            assert command.tool == 'pip' or (ROOT / command.tool).is_file()
        if not commands:
            assert line.startswith(NO_PROGRAM), f'{block.where}: {line}'
        asked = needs_by_words(line, commands)
        assert bool(said) == bool(asked) and ('data' in said) == ('data' in asked), f'{block.where}: {line}'
        if 'slurm_train' in line:
            assert commands[0].processes and commands[0].arguments == ('configs/genmask/refcoco.py',)
        elif 'tools/dist_' in line:
            assert str(commands[0].processes) in line.split()


@pytest.fixture(scope='module')
def twins(place):
    make_data(place / 'data')
    make_hub(place)
    return Twins(place)


@pytest.fixture
def written(place, monkeypatch):
    """Writes the files of a document where its reader is, draws its data; afterwards nothing of them is imported."""
    names: list[str] = []

    def write(document: str) -> None:
        blocks = [block for block in code_blocks(ROOT / document) if '/tutorials/' in document]
        for block in blocks:
            if block.kind == 'file':
                (place / block.file).write_text(block.source)
                names.append(Path(block.file).stem)
            elif block.kind == 'python':
                exec(compile(block.source, block.where, 'exec'), {})
        for block in blocks:
            for name in names:
                if f"imports=['{name}'" in block.source:  # a file of one's own is found where the command runs
                    lines = [line for own, line in LINES if own.document == document]
                    assert all(line.startswith('PYTHONPATH=. ') for line in lines), document
                    monkeypatch.syspath_prepend(place)

    yield write
    for registry in (DATASETS, METRICS):
        for name, own in list(registry.module_dict.items()):
            if own.__module__ in names:
                registry.module_dict.pop(name)
    for name, own in list(FAMILIES.items()):
        if own.__module__ in names:
            FAMILIES.pop(name)
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def reader(place, monkeypatch):
    """This process is where the documents' reader is."""
    monkeypatch.chdir(place)
    monkeypatch.setenv('GENSEG_DATA', 'data')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')


DOCUMENTS = list(dict.fromkeys(block.document for block, _ in LINES))


@pytest.mark.slow
@pytest.mark.parametrize('document', DOCUMENTS)
def test_commands_run_on_their_twins(document, twins, reader, written):
    environments, run = {}, 0
    written(document)
    for block, line in LINES:
        if block.document != document:
            continue
        known = environments.get(block.where, {})
        commands, environments[block.where] = commands_of(line, twins.place, known)
        for command in commands:
            if command.tool != QUICKSTART:
                TWINS[command.tool](twins, command)
                run += 1
    assert run


@pytest.mark.slow
@pytest.mark.parametrize('world', ['objects', 'shapes'])
def test_quickstart_measures_what_the_document_prints(world, twins, reader):
    if world == 'objects':
        if not os.environ.get('GENSEG_QUICKSTART_OBJECTS'):
            pytest.skip('takes 10 CPU minutes: GENSEG_QUICKSTART_OBJECTS=1 runs it')
        if not (default_bank().is_file() and place_of_package(SENTENCE_ENCODER)):
            pytest.skip(f'no objects, or no encoder of sentences: `{PREPARE} --sentence-encoder` fetches both')
    assert any(QUICKSTART in line for _, line in LINES)
    twins.quickstart(world=world)
