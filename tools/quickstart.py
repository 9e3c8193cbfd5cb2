"""Evaluates the shipped tiny models, then trains and evaluates two of them anew; called by quickstart.sh."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config

from genseg_mm.files.write_lock import WriteLock
from genseg_mm.launch import ToolParser, run_tool
from genseg_mm.stopping import end_with_parent

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    'genmask': 'configs/genmask/genmask_sana_shapes_tiny.py',
    'gen2seg': 'configs/gen2seg/gen2seg_unet_shapes_tiny.py',
}
# Pictures of an update, whatever the number of processes: GenMask reads texts far better with twice its config's.
PICTURES = {'genmask': 32, 'gen2seg': 8}
# The models that come with the package, trained longer than the quickstart has time for: paper, config, weights.
SHIPPED = {
    'shipped_genmask': (
        'genmask', 'configs/genmask/genmask_sana_shapes_long_tiny.py', 'genmask_sana_shapes.safetensors'
    ),
    'shipped_unet': (
        'gen2seg', 'configs/gen2seg/gen2seg_unet_shapes_long_tiny.py', 'gen2seg_unet_shapes.safetensors'
    ),
    'shipped_mae': (
        'gen2seg', 'configs/gen2seg/gen2seg_mae_shapes_long_tiny.py', 'gen2seg_mae_shapes.safetensors'
    ),
}  # fmt: skip
GENMASK_TITLES = {'shipped_genmask': 'shipped GenMask', 'genmask': 'GenMask-tiny'}
GEN2SEG_TITLES = {'gen2seg': 'gen2seg-tiny', 'shipped_unet': 'shipped UNet', 'shipped_mae': 'shipped MAE'}
SHOWN = re.compile(r'Iter\((train|val|test)\)|Predictions drawn|error:')


def run(command: list[str], log: Path) -> float:
    """Runs a tool, shows its progress lines, keeps all of its output in ``log``; returns seconds.

    The tool ends with this process, whatever ends that.
    """
    start = time.monotonic()
    environment = {'OMP_NUM_THREADS': '1', **os.environ, 'PYTHON': sys.executable}
    environment['PYTHONUNBUFFERED'] = '1'
    with log.open('w') as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=end_with_parent,
        )
        try:
            for line in process.stdout:
                file.write(line)
                if SHOWN.search(line):
                    print('  ' + line.split(' - INFO - ')[-1].rstrip()[:150], flush=True)
        except KeyboardInterrupt:
            process.terminate()
            process.communicate()
            raise
    if process.wait():
        lines = [line for line in log.read_text().splitlines() if line.strip()] or ['no output']
        last = next((line for line in reversed(lines) if line.startswith('error')), lines[-1])
        sys.exit(f'error: {" ".join(command)} failed: {last}; its whole output is in {log}')
    return time.monotonic() - start


def newest(folder: Path, pattern: str) -> Path:
    """The file of this pattern that was written last."""
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f'error: expected {folder / pattern} after the run, but there is none')
    return found[-1]


def training_command(name: str, options: list[str]) -> list[str]:
    """Two processes of one thread, which share the pictures of an update, where there are two cores.

    On such small models they are faster than one process of two threads, and they do not stall when another program
    wants a core.
    """
    processes = min(len(os.sched_getaffinity(0)), 2)
    batch_size = PICTURES[name] // processes
    sizes = [f'train_dataloader.batch_size={batch_size}']
    if Config.fromfile(ROOT / CONFIGS[name]).train_dataloader.sampler.get('group', 1) > 1:
        sizes.append(f'train_dataloader.sampler.group={batch_size}')
    if processes == 1:
        return [sys.executable, 'tools/train.py', CONFIGS[name], *options, *sizes]
    return ['bash', 'tools/dist_train.sh', CONFIGS[name], '2', *options, *sizes]


def train_and_test(name: str, out: Path, seed: int) -> tuple[dict, dict]:
    """Metrics on held-out scenes and seconds of each stage of one model."""
    work_dir = out / name
    if work_dir.exists():
        WriteLock(work_dir, 'end it, or wait for it').release()  # nobody trains in it
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True)
    common = ['--work-dir', str(work_dir), '--cfg-options', f'randomness.seed={seed}']
    print(f'{name}: training {CONFIGS[name]}', flush=True)
    seconds = {f'{name}.train': run(training_command(name, common), work_dir / 'train.txt')}
    best = sorted(work_dir.glob('best_*.pth'))  # of the configs that keep one, chosen on validation scenes
    checkpoint = best[0] if best else newest(work_dir, '*.pth')
    metrics, seconds[f'{name}.test'] = test(name, CONFIGS[name], checkpoint, out, common)
    return metrics, seconds


def test_shipped(name: str, out: Path) -> tuple[dict, dict]:
    """Metrics and seconds of a model that comes with the package."""
    _, config, weights = SHIPPED[name]
    (out / name).mkdir(parents=True, exist_ok=True)
    options = ['--work-dir', str(out / name), '--cfg-options']
    metrics, seconds = test(name, config, ROOT / 'genseg_mm/weights' / weights, out, options)
    return metrics, {f'{name}.test': seconds}


def test(name: str, config: str, weights: Path, out: Path, options: list[str]) -> tuple[dict, float]:
    """Metrics of a model on held-out scenes, seconds taken; its pictures go to ``out``."""
    print(f'{name}: testing {weights.name} on held-out scenes', flush=True)
    command = [sys.executable, 'tools/test.py', config, str(weights), *options]
    command += ['default_hooks.visualization.test=True']
    seconds = run(command, out / name / 'test.txt')
    metrics = json.loads(newest(out / name, '*/*.json').read_text())
    shutil.copy(newest(out / name / 'vis/test', '*.png'), out / f'{name}.png')
    return metrics, seconds


SUBSETS = ('seen', 'unseen', 'textured_seen', 'textured_unseen')


def gen2seg_numbers(metrics: dict) -> dict:
    """The numbers of a gen2seg model that the report takes over, by its names."""
    numbers = {'collapse_share': metrics['collapse_share']}
    for subset in SUBSETS:
        if f'{subset}_mIoU' in metrics:
            numbers[f'{subset}_mIoU'] = metrics[f'{subset}_mIoU']
            for key in ('control_rgb', 'control_position', 'oracle_foreground'):
                numbers[f'{key}_{subset}'] = metrics[f'{subset}_{key}']
    return numbers


def make_report(metrics: dict, seconds: dict) -> dict:
    """The report: percent, except collapse_share (0 to 1); every number under its dotted name and under its section."""
    report = {}
    for model in GENMASK_TITLES:
        if model in metrics:
            report |= {f'{model}.{key}': metrics[model][key] for key in ('oIoU', 'mIoU')}
    for model in GEN2SEG_TITLES:
        if model in metrics:
            numbers = gen2seg_numbers(metrics[model])
            report |= {f'{model}.{name}': value for name, value in numbers.items()}
    report |= {f'seconds.{stage}': round(value, 1) for stage, value in seconds.items()}
    sections: dict = {}
    for dotted, value in report.items():
        section, name = dotted.split('.', 1)
        sections.setdefault(section, {})[name] = value
    return report | sections


def print_table(report: dict, out: Path) -> None:
    """The report as a short table."""
    rows = []
    for model, title in GENMASK_TITLES.items():
        if model in report:
            own = report[model]
            rows.append(f'{title:15} held-out scenes  oIoU {own["oIoU"]:5.1f}   mIoU {own["mIoU"]:5.1f}')
    for model, title in GEN2SEG_TITLES.items():
        own = report.get(model, {})
        rows += [
            f'{title:15} {subset.replace("_", ", "):17} mIoU {own[f"{subset}_mIoU"]:5.1f}   '
            f'controls: rgb {own[f"control_rgb_{subset}"]:.1f}, '
            f'position {own[f"control_position_{subset}"]:.1f}, '
            f'oracle foreground {own[f"oracle_foreground_{subset}"]:.1f}'
            for subset in SUBSETS
            if f'{subset}_mIoU' in own
        ]
        if own:
            rows.append(f'{"":15} collapse share {own["collapse_share"]:.3f} (1 = image-independent)')
    stages = ', '.join(f'{stage} {value:.0f} s' for stage, value in report['seconds'].items())
    pictures = ', '.join(str(path.relative_to(ROOT)) for path in sorted(out.glob('*.png')))
    print('\n' + '\n'.join(rows))
    print(f'times: {stages}\npictures: {pictures}\nreport: {(out / "report.json").relative_to(ROOT)}')
    print('leaderboard of the shipped models: python tools/benchmark.py configs/benchmarks/tiny.py')


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('--only', choices=CONFIGS, help='one of the two models')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    out = ROOT / 'work_dirs/quickstart'
    WriteLock(out, 'wait for it, or end it', reentrant=True)
    metrics, seconds = {}, {}
    for name in (name for name, (paper, *_) in SHIPPED.items() if args.only in (None, paper)):
        metrics[name], own_seconds = test_shipped(name, out)
        seconds |= own_seconds
    for name in [args.only] if args.only else CONFIGS:
        metrics[name], own_seconds = train_and_test(name, out, args.seed)
        seconds |= own_seconds
    report = make_report(metrics, seconds)
    (out / 'report.json').write_text(json.dumps(report, indent=2) + '\n')
    print_table(report, out)


if __name__ == '__main__':
    run_tool(main)
