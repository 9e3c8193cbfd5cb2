"""Draws what the shipped tiny models predict, evaluates them, and trains two anew; called by quickstart.sh."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from genseg_mm.datasets.object_bank import PREPARE, default_bank
from genseg_mm.files.package_folders import PREFIX, SENTENCE_ENCODER, place_of_package
from genseg_mm.files.write_lock import WriteLock
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.stopping import ending_with_parent

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Model:
    """One that the quickstart evaluates.

    Attributes:
        paper: 'genmask' or 'gen2seg'.
        title: In the table.
        config: Below the project's root.
        weights: Those that come with the package, trained longer than the quickstart has time for; None trains anew.
        pictures: Of an update of the training, whatever the number of processes.
        processes: That share them, where there are as many cores.
    """

    paper: str
    title: str
    config: str
    weights: str | None = None
    pictures: int = 0
    processes: int = 1


class Job(NamedTuple):
    """Something to run, and the cores that it keeps busy."""

    call: Callable[[], None]
    cores: int = 1


# Scenes of recognisable objects wherever their pictures are at hand, and shapes, which need nothing on disk.
WORLDS = {
    'objects': {
        'shipped_genmask': Model(
            'genmask', 'shipped GenMask', 'configs/genmask/genmask_sana_objects_long_tiny.py',
            'genmask_sana_objects.safetensors',
        ),
        'shipped_unet': Model(
            'gen2seg', 'shipped UNet', 'configs/gen2seg/gen2seg_unet_objects_long_tiny.py',
            'gen2seg_unet_objects.safetensors',
        ),
        'genmask': Model('genmask', 'GenMask-tiny', 'configs/genmask/genmask_sana_objects_quick_tiny.py', pictures=16),
        'gen2seg': Model('gen2seg', 'gen2seg-tiny', 'configs/gen2seg/gen2seg_unet_objects_tiny.py', pictures=4),
    },
    'shapes': {
        'shipped_genmask': Model(
            'genmask', 'shipped GenMask', 'configs/genmask/genmask_sana_shapes_long_tiny.py',
            'genmask_sana_shapes.safetensors',
        ),
        'shipped_unet': Model(
            'gen2seg', 'shipped UNet', 'configs/gen2seg/gen2seg_unet_shapes_long_tiny.py',
            'gen2seg_unet_shapes.safetensors',
        ),
        'shipped_mae': Model(
            'gen2seg', 'shipped MAE', 'configs/gen2seg/gen2seg_mae_shapes_long_tiny.py',
            'gen2seg_mae_shapes.safetensors',
        ),
        # It reads texts far better with twice its config's pictures.
        'genmask': Model(
            'genmask', 'GenMask-tiny', 'configs/genmask/genmask_sana_shapes_tiny.py', pictures=32, processes=2
        ),
        'gen2seg': Model(
            'gen2seg', 'gen2seg-tiny', 'configs/gen2seg/gen2seg_unet_shapes_tiny.py', pictures=8, processes=2
        ),
    },
}  # fmt: skip
SUITES = {'objects': 'configs/benchmarks/objects.py', 'shapes': 'configs/benchmarks/tiny.py'}
SHOWN = re.compile(r'Iter\((train|val|test)\)|error:')
RUNNING: set[subprocess.Popen] = set()


def run(command: list[str], log: Path) -> float:
    """Runs a tool, shows its progress lines, keeps all of its output in ``log``; returns seconds.

    The tool ends with this process, whatever ends that.
    """
    start = time.monotonic()
    environment = {'OMP_NUM_THREADS': '1', **os.environ, 'PYTHON': sys.executable}
    environment['PYTHONUNBUFFERED'] = '1'
    with log.open('w') as file:
        process = subprocess.Popen(
            ending_with_parent(command),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        RUNNING.add(process)
        try:
            for line in process.stdout:
                file.write(line)
                if SHOWN.search(line):
                    print(f'  {log.parent.name}: {line.split(" - INFO - ")[-1].strip()[:150]}', flush=True)
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
            RUNNING.discard(process)
    if process.returncode:
        lines = [line for line in log.read_text().splitlines() if line.strip()] or ['no output']
        last = next((line for line in reversed(lines) if line.startswith('error')), lines[-1])
        sys.exit(f'error: {" ".join(command)} failed: {last}; its whole output is in {log}')
    return time.monotonic() - start


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_jobs(jobs: Sequence[Job], cores: int) -> None:
    """Runs all jobs, each begun in its turn, as soon as its cores are free; the first failure ends all."""
    if cores == 1:
        for job in jobs:
            job.call()
        return
    with ThreadPoolExecutor(len(jobs)) as threads:
        busy: dict[Future, int] = {}
        try:
            for job in jobs:
                needed = min(job.cores, cores)
                while sum(busy.values()) + needed > cores:
                    _collect(busy)
                busy[threads.submit(job.call)] = needed
            while busy:
                _collect(busy)
        except BaseException:
            for process in list(RUNNING):
                process.terminate()
            raise


def _collect(busy: dict[Future, int]) -> None:
    for done in wait(busy, return_when=FIRST_COMPLETED)[0]:
        del busy[done]
        done.result()


def newest(folder: Path, pattern: str) -> Path:
    """The file of this pattern that was written last."""
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f'error: expected {folder / pattern} after the run, but there is none')
    return found[-1]


def training_command(model: Model, options: list[str]) -> list[str]:
    """Processes of one thread, which share the pictures of an update, at most one per core.

    On such small models two are faster than one process of two threads, and they do not stall when another program
    wants a core.
    """
    processes = min(num_cores(), model.processes)
    batch_size = model.pictures // processes
    sizes = [f'train_dataloader.batch_size={batch_size}']
    if Config.fromfile(ROOT / model.config).train_dataloader.sampler.get('group', 1) > 1:
        sizes.append(f'train_dataloader.sampler.group={batch_size}')
    if processes == 1:
        return [sys.executable, 'tools/train.py', model.config, *options, *sizes]
    return ['bash', 'tools/dist_train.sh', model.config, str(processes), *options, *sizes]


def train_and_test(name: str, model: Model, out: Path, seed: int) -> tuple[dict, dict]:
    """Metrics on held-out scenes and seconds of each stage of one model."""
    work_dir = out / name
    if work_dir.exists():
        WriteLock(work_dir, 'end it, or wait for it').release()  # nobody trains in it
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True)
    common = ['--work-dir', str(work_dir), '--cfg-options', f'randomness.seed={seed}']
    print(f'{name}: training {model.config}', flush=True)
    seconds = {f'{name}.train': run(training_command(model, common), work_dir / 'train.txt')}
    best = sorted(work_dir.glob('best_*.pth'))  # of the configs that keep one, chosen on validation scenes
    checkpoint = best[0] if best else newest(work_dir, '*.pth')
    metrics, seconds[f'{name}.test'] = test(name, model, checkpoint, out, common)
    return metrics, seconds


def draw_first(name: str, model: Model, out: Path) -> None:
    """Draws a shipped model's predictions of a few scenes, long before its test on all of them is done."""
    folder = out / 'first' / name
    folder.mkdir(parents=True, exist_ok=True)
    dataset = Config.fromfile(ROOT / model.config).test_dataloader.dataset
    parts = [f'datasets.{number}.' for number in range(len(dataset.get('datasets', [])))] or ['']
    command = [sys.executable, 'tools/test.py', model.config, str(ROOT / 'genseg_mm/weights' / model.weights)]
    command += ['--work-dir', str(folder), '--cfg-options', 'default_hooks.visualization.test=True']
    command += ['test_dataloader.batch_size=4', *(f'test_dataloader.dataset.{part}num_scenes=4' for part in parts)]
    run(command, folder / 'test.txt')
    shutil.copy(newest(folder / 'vis/test', '*.png'), out / f'{name}.png')
    print(f'pictures of {model.title}: {(out / name).relative_to(ROOT)}.png', flush=True)


def test_shipped(name: str, model: Model, out: Path) -> tuple[dict, dict]:
    """Metrics and seconds of a model that comes with the package."""
    (out / name).mkdir(parents=True, exist_ok=True)
    options = ['--work-dir', str(out / name), '--cfg-options']
    metrics, seconds = test(name, model, ROOT / 'genseg_mm/weights' / model.weights, out, options)
    return metrics, {f'{name}.test': seconds}


def test(name: str, model: Model, weights: Path, out: Path, options: list[str]) -> tuple[dict, float]:
    """Metrics of a model on held-out scenes, seconds taken; its pictures go to ``out``."""
    print(f'{name}: testing {weights.name} on held-out scenes', flush=True)
    command = [sys.executable, 'tools/test.py', model.config, str(weights), *options]
    command += ['default_hooks.visualization.test=True']
    seconds = run(command, out / name / 'test.txt')
    metrics = json.loads(newest(out / name, '*/*.json').read_text())
    shutil.copy(newest(out / name / 'vis/test', '*.png'), out / f'{name}.png')
    return metrics, seconds


# Of the test scenes, as the configs name them: the report's name and what the table says.
REFERRING = {'': 'held-out scenes', 'wordings_': 'held-out wordings'}
SUBSETS = {
    'seen': 'seen',
    'unseen': 'unseen',
    'textured_seen': 'textured, seen',
    'textured_unseen': 'textured, unseen',
}


def genmask_numbers(metrics: dict) -> dict:
    """The numbers of a GenMask that the report takes over, by its names."""
    if 'oIoU/scenes' not in metrics:
        return {key: metrics[key] for key in ('oIoU', 'mIoU')}
    numbers = {
        f'{prefix}{key}': metrics[f'{key}/{subset}']
        for prefix, subset in (('', 'scenes'), ('wordings_', 'wordings'))
        for key in ('oIoU', 'mIoU')
    }
    return numbers | {'N-acc': metrics['N-acc']}


def gen2seg_numbers(metrics: dict) -> dict:
    """The numbers of a gen2seg model that the report takes over, by its names."""
    numbers = {'collapse_share': metrics['collapse_share']}
    for subset in SUBSETS:
        if f'{subset}_mIoU' in metrics:
            numbers[f'{subset}_mIoU'] = metrics[f'{subset}_mIoU']
            for key in ('control_rgb', 'control_position', 'oracle_foreground'):
                numbers[f'{key}_{subset}'] = metrics[f'{subset}_{key}']
    return numbers


def make_report(models: dict[str, Model], metrics: dict, seconds: dict) -> dict:
    """The report: percent, except collapse_share (0 to 1); every number under its dotted name and under its section."""
    report = {}
    for name, own in metrics.items():
        numbers = genmask_numbers(own) if models[name].paper == 'genmask' else gen2seg_numbers(own)
        report |= {f'{name}.{key}': value for key, value in numbers.items()}
    report |= {f'seconds.{stage}': round(value, 1) for stage, value in seconds.items()}
    sections: dict = {}
    for dotted, value in report.items():
        section, name = dotted.split('.', 1)
        sections.setdefault(section, {})[name] = value
    return report | sections


def lines_of(model: Model, numbers: dict) -> list[str]:
    """The numbers of a model as lines of the table."""
    if model.paper == 'genmask':
        lines = [
            f'{model.title:15} {title:17} oIoU {numbers[prefix + "oIoU"]:5.1f}   mIoU {numbers[prefix + "mIoU"]:5.1f}'
            for prefix, title in REFERRING.items()
            if f'{prefix}oIoU' in numbers
        ]
        if 'N-acc' in numbers:
            lines.append(f'{"":15} {"no target":17} N-acc {numbers["N-acc"]:5.1f}  (sentences about what is not there)')
        return lines
    lines = [
        f'{model.title:15} {title:17} mIoU {numbers[f"{subset}_mIoU"]:5.1f}   '
        f'controls: rgb {numbers[f"control_rgb_{subset}"]:.1f}, '
        f'position {numbers[f"control_position_{subset}"]:.1f}, '
        f'oracle foreground {numbers[f"oracle_foreground_{subset}"]:.1f}'
        for subset, title in SUBSETS.items()
        if f'{subset}_mIoU' in numbers
    ]
    return [*lines, f'{"":15} collapse share {numbers["collapse_share"]:.3f} (1 = image-independent)']


def print_table(models: dict[str, Model], report: dict, out: Path, suite: str) -> None:
    """The report as a short table."""
    rows = [line for name, model in models.items() if name in report for line in lines_of(model, report[name])]
    stages = ', '.join(f'{stage} {value:.0f} s' for stage, value in report['seconds'].items())
    pictures = ', '.join(str(path.relative_to(ROOT)) for path in sorted(out.glob('*.png')))
    print('\n' + '\n'.join(rows))
    print(f'times: {stages}\npictures: {pictures}\nreport: {(out / "report.json").relative_to(ROOT)}')
    print(f'leaderboard of the shipped models: python tools/benchmark.py {suite}')


def choose_world(asked: str | None) -> str:
    """The world asked for; by default that of objects, where they and the encoder of its sentences are.

    Raises:
        FileNotFoundError: If that of objects is asked for, and something is missing.
    """
    missing = [str(default_bank())] * (not default_bank().is_file())
    missing += [PREFIX + SENTENCE_ENCODER] * (place_of_package(SENTENCE_ENCODER) is None)
    if not missing:
        return asked or 'objects'
    said = f'scenes of objects lack {" and ".join(missing)} (`{PREPARE} --sentence-encoder` fetches both)'
    if asked == 'objects':
        raise FileNotFoundError(f'{said}; --world shapes needs nothing')
    if asked is None:
        print(f'{said}: scenes of shapes instead', flush=True)
    return 'shapes'


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('--only', choices=('genmask', 'gen2seg'), help='one of the two papers')
    parser.add_argument('--world', choices=WORLDS, help='default: objects, or shapes where there are no objects')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    world = choose_world(args.world)
    models = {name: model for name, model in WORLDS[world].items() if args.only in (None, model.paper)}
    out = ROOT / 'work_dirs/quickstart'
    WriteLock(out, 'wait for it, or end it', reentrant=True)
    metrics, seconds, start = {}, {}, time.monotonic()

    def measure(name: str) -> None:
        model = models[name]
        if model.weights:
            metrics[name], own_seconds = test_shipped(name, model, out)
        else:
            metrics[name], own_seconds = train_and_test(name, model, out, args.seed)
        seconds.update(own_seconds)

    shipped = {name: model for name, model in models.items() if model.weights}
    print(f'pictures of {len(shipped)} shipped models first', flush=True)
    jobs = [Job(partial(draw_first, name, model, out)) for name, model in shipped.items()]
    jobs += [Job(partial(measure, name), model.processes) for name, model in models.items()]
    run_jobs(jobs, num_cores())
    seconds['all'] = time.monotonic() - start
    report = make_report(models, {name: metrics[name] for name in models}, seconds)
    (out / 'report.json').write_text(json.dumps(report, indent=2) + '\n')
    print_table(models, report, out, SUITES[world])


if __name__ == '__main__':
    run_tool(main)
