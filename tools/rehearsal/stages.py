"""What a rehearsal runs, in order, and how: the real tools, in forks of a process that has imported everything."""

import contextlib
import gc
import importlib
import os
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config
from rehearsal import bfloat16, configs

from genseg_mm.registry import class_name

TOOLS = Path(__file__).resolve().parents[1]
TEXT = 'the red square on the left'
_LIBRARIES = (
    'genseg_mm', 'diffusers', 'transformers', 'mmcv', 'mmdet', 'mmengine', 'mmseg', 'matplotlib', 'peft', 'pycocotools',
    'scipy', 'torch', 'h5py',
)  # fmt: skip


@dataclass
class Stage:
    """One command.

    Attributes:
        name: What it rehearses.
        tool: Path below tools/.
        arguments: Of the command line.
        needs: A file or folder that has to be there afterwards; '' for none.
        processes: That run it together; 0: one that knows of no others.
    """

    name: str
    tool: str
    arguments: list[str]
    needs: str = ''
    processes: int = 0


@dataclass
class Outcome:
    """What came of a stage.

    Attributes:
        name: Of the stage.
        command: As a user would type it.
        seconds: From start to end.
        peak_bytes: Most memory of its processes, each at its own peak, together.
        error: The last lines of its output if it failed; '' else.
        output: Its whole output.
    """

    name: str
    command: str
    seconds: float
    peak_bytes: int
    error: str = ''
    output: str = field(default='', repr=False)


def stages_of(
    cfg: Config, config: Path, out: Path, picture: Path, processes: int, validates: bool = False
) -> Iterator[Stage]:
    """The stages of a training config; each is asked for when the one before it is done.

    Args:
        cfg: The config.
        config: Its file.
        out: Folder of its results.
        picture: What the inferencer looks at.
        processes: That train and test together.
        validates: After the first update already: 'train and validate' in place of 'train', for who ends there.
    """
    work = out / 'work'
    several = processes if processes > 1 or 'strategy' in cfg else 0
    common = [str(config), '--work-dir', str(work)]
    if 'description_writer' in cfg:
        described = _described_file(cfg)
        yield Stage(
            'describe', 'dataset_tools/write_descriptions.py', [str(config), described, '--split', 'val'], described
        )
    if 'hypersim' in str(cfg.get('train_dataloader')):
        root = Path(os.environ['GENSEG_DATA'], 'hypersim')
        index = str(root / 'index.csv')
        yield Stage('index', 'dataset_tools/prepare_hypersim.py', [str(root), '--out', index], index)
    if validates:
        soon = ['--cfg-options', 'train_cfg.val_interval=1']
        yield Stage('train and validate', 'train.py', [*common, *soon], str(work / 'last_checkpoint'), several)
    else:
        yield Stage('train', 'train.py', common, str(work / 'last_checkpoint'), several)
    longer = ['--cfg-options', 'train_cfg.max_iters=2']
    yield Stage('resume and validate', 'train.py', [*common, '--resume', *longer], '', several)
    checkpoint = (work / 'last_checkpoint').read_text().strip()
    yield Stage('test', 'test.py', [str(config), checkpoint, '--work-dir', str(out / 'test')], '', several)
    kind = class_name(cfg.model.type)
    demo = [str(config), '--weights', checkpoint, '--device', 'cpu', '--out-dir', str(out / 'demo')]
    if kind == 'GenMask':
        yield Stage('segment', 'image_demo.py', [str(picture), *demo, '--texts', TEXT], str(out / 'demo'))
        made = ['--task', 'generate', '--texts', TEXT, '--num-steps', '2']
        yield Stage('generate', 'image_demo.py', [*demo, *made], str(out / 'demo'))
    elif kind == 'Gen2Seg':
        yield Stage('segment', 'image_demo.py', [str(picture), *demo, '--points', '20,20'], str(out / 'demo'))
    if Path(checkpoint).is_file():
        weights = str(out / 'weights.safetensors')
        yield Stage('publish', 'model_converters/publish_model.py', [checkpoint, weights, '--force'], weights)
    backbone = cfg.model.backbone if kind == 'GenMask' else (cfg.model.get('colorer') or {}).get('backbone')
    if backbone:
        released = str(out / 'released')
        arguments = [checkpoint, released, '--config', str(config), '--force']
        if backbone.get('lora'):
            arguments.append('--merge-lora')
        yield Stage('export', 'model_converters/convert_checkpoint.py', arguments, f'{released}/transformer')
    if kind == 'Gen2Seg' and cfg.model.colorer.get('pretrained'):
        released = str(out / 'released')
        arguments = [str(config), checkpoint, released, '--force']
        yield Stage('export', 'model_converters/gen2seg_to_pretrained.py', arguments, released)
        demo = [str(picture), released, '--device', 'cpu', '--points', '20,20', '--out-dir', str(out / 'demo_released')]
        yield Stage('segment as released', 'image_demo.py', demo)


def _described_file(cfg: Config) -> str:
    for transform in cfg.val_dataloader.dataset.pipeline:
        if str(transform.type).endswith('UseDescriptions'):
            return str(transform.file)
    raise ValueError('the config has a description_writer, but val_dataloader has no UseDescriptions that reads them')


def run(stage: Stage, log: Path, limit: float) -> Outcome:
    """Runs a stage in forks of this process.

    Args:
        stage: What to run.
        log: File for its output, of the first process; the others' are beside it.
        limit: Seconds after which it is ended.
    """
    words = [str(TOOLS / stage.tool), *stage.arguments]
    command = f'python tools/{stage.tool} {" ".join(stage.arguments)}'
    if stage.processes:
        words += ['--launcher', 'pytorch']
        command = f'torchrun --nproc-per-node {stage.processes} tools/{stage.tool} {" ".join(stage.arguments)}'
    logs = [log if rank == 0 else log.with_suffix(f'.{rank}.log') for rank in range(stage.processes or 1)]
    shared = dict(WORLD_SIZE=str(stage.processes), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(_free_port()))
    start, children = time.monotonic(), {}
    for rank, own in enumerate(logs):
        environment = dict(shared, RANK=str(rank), LOCAL_RANK=str(rank)) if stage.processes else {}
        children[_fork(lambda: runpy.run_path(words[0], run_name='__main__'), own, words, environment)] = rank
    codes, peak = _wait(children, start + limit)
    learn_imports(log)
    output = log.read_text(errors='replace')
    error = ''
    if any(codes.values()):
        failed = min(rank for rank, code in codes.items() if code)
        error = _last_lines(logs[failed].read_text(errors='replace'), codes[failed])
    elif stage.needs and not Path(stage.needs).exists():
        error = f'it ended well, but {stage.needs} is not there'
    return Outcome(stage.name, command, time.monotonic() - start, peak, error, output)


def in_fork(function: Callable[[], Any], log: Path) -> Outcome:
    """Runs a function in a fork, so that this process stays small."""
    start = time.monotonic()
    codes, peak = _wait({_fork(function, log, [sys.argv[0]], {}): 0}, start + 3600)
    output = log.read_text(errors='replace')
    error = _last_lines(output, codes[0]) if codes[0] else ''
    return Outcome('folders', '', time.monotonic() - start, peak, error, output)


def _last_lines(text: str, code: int) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(('error', 'FAILED'))]
    return f'exit {code}: {(said or lines or ["no output"])[-1].strip()[:500]}'


def _wait(children: dict[int, int], end: float) -> tuple[dict[int, int], int]:
    """Exit code of each rank, and the sum of their peaks; the first failure ends all."""
    codes, peak = {}, 0
    try:
        while children:
            for child in list(children):
                done, status, usage = os.wait4(child, os.WNOHANG)
                if done:
                    codes[children.pop(child)] = os.waitstatus_to_exitcode(status)
                    peak += usage.ru_maxrss * 1024
            if children and (time.monotonic() > end or any(codes.values())):
                break
            time.sleep(0.05)
    finally:
        for child, rank in children.items():
            os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                _, _, usage = os.wait4(child, 0)
                peak += usage.ru_maxrss * 1024
            codes.setdefault(rank, -signal.SIGKILL)
    return codes, peak


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(('127.0.0.1', 0))
        return own.getsockname()[1]


def _fork(function: Callable[[], Any], log: Path, words: list[str], environment: dict[str, str]) -> int:
    child = os.fork()
    if not child:
        _become(function, log, words, environment)
    return child


def _become(function: Callable[[], Any], log: Path, words: list[str], environment: dict[str, str]) -> NoReturn:
    import torch

    code, known = 1, set(sys.modules)
    try:
        with log.open('w') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, 'w'), os.fdopen(2, 'w')
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        gc.freeze()  # MMEngine collects garbage for each dataset that it builds: what was imported is none
        if not bfloat16.has_arithmetic():
            bfloat16.compute_in_float32()
        os.environ.update(environment)
        sys.argv = words
        function()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _imports_of(log).write_text('\n'.join(name for name in sys.modules if name not in known))
        os._exit(code)


def _imports_of(log: Path) -> Path:
    return log.with_suffix('.imports')


def learn_imports(log: Path) -> None:
    """Imports what a stage has imported by itself, so that the next ones find it there."""
    for name in _imports_of(log).read_text().splitlines() if _imports_of(log).exists() else []:
        if name.partition('.')[0] in _LIBRARIES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def stages_of_suite(config: Path, out: Path, pictures: str) -> Iterator[Stage]:
    """A suite on the tiny data: the models that it names, or one that an earlier rehearsal trained for it."""
    named = Config.fromfile(config).get('models')
    models: list[str] = []
    if not named:
        method = out.parents[1] / config.stem
        trained = sorted(path.parents[1] for path in method.glob('*/work/last_checkpoint'))
        if not trained:
            raise ValueError(
                f'{config.name} names no model: expected a training of an earlier rehearsal below {method}; rehearse a '
                f'config of configs/{config.stem}/ first'
            )
        checkpoint = (trained[0] / 'work' / 'last_checkpoint').read_text().strip()
        models = [f'rehearsed={trained[0] / trained[0].name}.py:{checkpoint}']
    arguments = [str(config), *models, '--out', str(out / 'results'), '--rerun']
    if named and pictures == 'small':
        released = [name for name, entry in named.items() if not str(entry.config).endswith('.py')]
        smaller = [f'models.{name}.settings.processing_size={configs.SMALL_PICTURE}' for name in released]
        arguments += ['--cfg-options', *smaller]
    yield Stage('benchmark', 'benchmark.py', arguments)


def stages_of_control(config: Path, out: Path) -> Iterator[Stage]:
    """A model that is not trained, on the suite of its task."""
    suite = config.parent / 'gen2seg.py'
    arguments = [str(suite), config.stem, '--out', str(out / 'results'), '--rerun']
    yield Stage('benchmark', 'benchmark.py', arguments)
