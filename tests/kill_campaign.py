"""Kills trainings, benchmarks and encoders over and over, and counts what that costs.

    PYTHONPATH=. python tests/kill_campaign.py [training sharded benchmark encodings] [--kills 60] [--out FOLDER]

Everything heavy is imported once; each attempt is a fork that runs the tool's own functions, and gets a SIGKILL: half
of them at a random moment, the others as soon as a temporary file shows that something is being saved, or a few
milliseconds later. Then the next attempt goes on (``--resume``, or the same command) until one comes to the end, which
is compared, bit by bit, with an uninterrupted run; then it starts anew. A sharded training is two processes, which
write each checkpoint together, at once or beside the training; half of the kills hit both, the others one of them, and
the other when it has seen that. Prints one line per campaign:

kills       SIGKILLs that hit a run
in a save   those that left a temporary file, or a new file beside the one that it replaces
lost        whole files with results (checkpoints, measurements, shards) gone after a kill or after going on, or torn
leaked      files at an end that an uninterrupted run does not leave
identical   ends whose results are those of the uninterrupted run, of all ends
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for _folder in ('', 'models', 'benchmarking'):
    sys.path.insert(0, str(Path(__file__).parent / _folder))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from short_runs import free_port  # noqa: E402
from toy_parts import toy_runner  # noqa: E402

from genseg_mm.checkpoint import check_whole, load_weights_only  # noqa: E402
from genseg_mm.checkpoint_folders import EXTRA  # noqa: E402
from genseg_mm.files.whole_folders import RECORD  # noqa: E402

_POLL = 0.0005  # seconds


@dataclass
class Campaign:
    """One kind of work that is killed.

    Args:
        name: Of the campaign.
        work: Does the work in a folder, from where it is to the end.
        whole: The files with results in a folder; raises if one is torn.
        outcome: What is there at the end, comparable with ``same``.
        saving: Pattern of the temporary files that exist during a save.
    """

    name: str
    work: Callable[[Path], None]
    whole: Callable[[Path], set[str]]
    outcome: Callable[[Path], Any]
    saving: tuple[str, ...]
    superseded: Callable[[set[str]], set[str]] = lambda files: set()
    seconds_to_notice: float = 0.0  # that the rest of a group has when one of its processes was killed
    kills: int = 0
    in_a_save: int = 0
    lost: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    ends: int = 0
    identical: int = 0

    def run(self, folder: Path, kills: int, rng: random.Random) -> None:
        """Kills so many times."""
        plain = folder / 'uninterrupted'
        start = time.monotonic()
        _wait(self._fork(plain))
        seconds = time.monotonic() - start
        expected, files = self.outcome(plain), _names(plain)
        number = 0
        while self.kills < kills:
            number += 1
            own = folder / f'run{number}'
            own.mkdir()
            while not self._attempt(own, seconds, kills, rng):
                pass
            self.ends += 1
            self.identical += _same(self.outcome(own), expected)
            self.leaked += [f'{own.name}/{name}' for name in sorted(_names(own) - files)]

    def _attempt(self, folder: Path, seconds: float, kills: int, rng: random.Random) -> bool:
        """Whether the work has come to its end."""
        before, seen, stale = self.whole(folder), set(), self._signs(folder)
        child = self._fork(folder)
        aimed = 2 * self.in_a_save <= self.kills
        skip, delay = rng.randrange(4), rng.choice((0, 0, 0.002, 0.01, 0.03))
        deadline = time.monotonic() + (3600 if aimed else rng.uniform(0.05, 0.8) * seconds)
        saves, was_saving = 0, False
        while time.monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG)[0]:
                return True
            saving = bool(self._signs(folder) - stale)
            saves += saving and not was_saving
            was_saving = saving
            if aimed and saving and saves > skip:
                time.sleep(delay)
                break
            seen |= self._published(folder)
            time.sleep(_POLL)
        if self.kills >= kills:
            _wait(child)
            return True
        if not self._kill(child, rng):
            return True
        self.kills += 1
        there = self.whole(folder)
        doubled = self.superseded(there) - self.superseded(before)
        self.in_a_save += bool(self._signs(folder) - stale or doubled)
        gone = (before | seen) - there
        newest = self.superseded(before | seen | there)
        self.lost += [f'{folder.name}/{name}' for name in sorted(gone - newest)]
        return False

    def _kill(self, child: int, rng: random.Random) -> bool:
        """Whether the process, or its whole group, was killed before its end."""
        if self.seconds_to_notice and rng.random() < 0.5:
            with contextlib.suppress(ProcessLookupError, ValueError, IndexError):  # it has ended by itself
                others = Path(f'/proc/{child}/task/{child}/children').read_text().split()
                os.kill(int(rng.choice(others)), signal.SIGKILL)
            deadline = time.monotonic() + self.seconds_to_notice
            while time.monotonic() < deadline and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0

    def _published(self, folder: Path) -> set[str]:
        """Names of files with results, as far as a glance shows."""
        ours, found = {RECORD: lambda path: path.parent.name, EXTRA: lambda path: ''}, set()
        for path in map(Path, _names(folder)):
            name = ours.get(path.name, str)(path)
            if name.endswith(('.pth', '.safetensors', 'result.json')) or path.name == RECORD:
                found.add(name)
        return {name for name in found if not name.endswith('.tmp') and '.part/' not in name}

    def _signs(self, folder: Path) -> set[tuple[str, int]]:
        """The temporary files, each with the time of its last change."""
        found = set()
        for path in (own for pattern in self.saving for own in _found(folder, pattern)):
            with contextlib.suppress(FileNotFoundError):  # published just now
                found.add((str(path), path.stat().st_ctime_ns))
        return found

    def _fork(self, folder: Path) -> int:
        folder.mkdir(exist_ok=True)
        child = os.fork()
        if child:
            return child
        code = 1
        os.setpgid(0, 0)
        try:
            with open(folder.parent / f'{folder.name}.log', 'a') as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            self.work(folder)
            code = 0
        finally:
            if code:
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code)

    def line(self) -> str:
        """The numbers."""
        return (
            f'{self.name:22} kills {self.kills:3}   in a save {self.in_a_save:3}   lost {len(self.lost)}   '
            f'leaked {len(self.leaked)}   identical {self.identical} of {self.ends}'
            + ''.join(f'\n    {name}' for name in [*self.lost, *self.leaked])
        )


def training(max_keep_ckpts: int, ballast: int = 1_000_000) -> Campaign:
    """Of a toy model for 20 iterations, with 4 checkpoints, 2 validations, 2 best checkpoints."""
    options = {
        'model.ballast': ballast,
        'default_hooks.checkpoint.max_keep_ckpts': max_keep_ckpts,
        'default_hooks.logger.interval': 5,
        'default_hooks.visualization': None,
    }

    def superseded(files: set[str]) -> set[str]:
        """Those that a run may delete, since newer ones are there."""
        regular = sorted((_step(name) for name in files if name.startswith('iter_')), reverse=True)
        best = sorted((_step(name) for name in files if name.startswith('best_')), reverse=True)
        return {f'iter_{step}.pth' for step in regular[max_keep_ckpts:]} | {
            f'best_toy_oIoU_iter_{step}.pth' for step in best[1:]
        }

    return Campaign(
        f'training, keep {max_keep_ckpts}',
        lambda folder: toy_runner(folder, options, resume='auto').train() and None,
        _whole_checkpoints,
        _training_outcome,
        ('*.tmp',),
        superseded,
    )


def sharded_training(asynchronous: bool, ballast: int = 300_000) -> Campaign:
    """Of a toy model on two processes for 20 iterations, with 4 sharded checkpoints, the best one among them."""
    options = {
        'model.ballast': ballast,
        'model.channels': 64,
        'default_hooks.checkpoint.max_keep_ckpts': 2,
        'default_hooks.logger.interval': 5,
        'default_hooks.visualization': None,
        'train_dataloader.batch_size': 2,
    }
    strategy = dict(type='genseg_mm.FSDP2Strategy', checkpoint='sharded', asynchronous=asynchronous)

    def rank(folder: Path, number: int, port: int) -> None:
        os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), WORLD_SIZE='2')
        os.environ.update(RANK=str(number), LOCAL_RANK=str(number))
        toy_runner(folder, options, resume='auto', strategy=strategy, launcher='pytorch').train()

    def work(folder: Path) -> None:
        """The other process is a child of this one, in its group, and ends with it."""
        port = free_port()
        child = os.fork()
        if not child:
            code = 1
            try:
                rank(folder, 1, port)
                code = 0
            finally:
                os._exit(code)
        rank(folder, 0, port)
        _wait(child)

    def whole(folder: Path) -> set[str]:
        names = {path.parent.name for path in folder.glob(f'*/{RECORD}') if not path.parent.name.endswith('.tmp')}
        for name in names:
            check_whole(str(folder / name))
        return names

    def superseded(files: set[str]) -> set[str]:
        regular = sorted((name for name in files if name.startswith('iter_')), key=_step, reverse=True)
        best = sorted((name for name in files if name.startswith('best_')), key=_step, reverse=True)
        return {*regular[2:], *best[1:]}

    return Campaign(
        f'sharded, {"beside" if asynchronous else "at once"}',
        work,
        whole,
        lambda folder: _training_outcome(folder, sorted(map(str, whole(folder)))),
        ('*.tmp',),
        superseded,
        seconds_to_notice=5.0,
    )


def _step(name: str) -> int:
    return int(name.removesuffix('.pth').rpartition('_')[2])


def _whole_checkpoints(folder: Path) -> set[str]:
    names = set()
    for path in folder.glob('*.pth'):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None, f'{path} is torn'
        names.add(path.name)
    return names


def _training_outcome(folder: Path, names: list[str] | None = None) -> dict:
    outcome = {}
    for path in sorted(folder.glob('*.pth')) if names is None else [folder / name for name in names]:
        saved = load_weights_only(str(path))
        outcome[path.name] = {key: saved.get(key) for key in ('state_dict', 'optimizer', 'param_schedulers')}
        info = saved['message_hub']['runtime_info']
        outcome[path.name]['info'] = {key: info.get(key) for key in ('best_score', 'keep_ckpt_ids', 'iter', 'toy/oIoU')}
    outcome['pointer'] = Path((folder / 'last_checkpoint').read_text()).name
    return outcome


def benchmark(folder: Path) -> Campaign:
    """Two controls on one benchmark of 24 procedural scenes."""
    from test_benchmark_tool import run as measure
    from test_benchmark_tool import write_suite

    folder.mkdir(parents=True, exist_ok=True)
    suite = write_suite(folder, num=24)

    def whole(out: Path) -> set[str]:
        found = set()
        for path in out.glob('*/*/result.json'):
            json.loads(path.read_text())
            found.add(str(path.relative_to(out)))
        return found

    def outcome(out: Path) -> dict:
        found = {}
        for path in sorted(out.glob('*/*/result.json')):
            with np.load(path.with_name('samples.npz')) as samples:
                found[str(path.relative_to(out))] = {
                    'metrics': json.loads(path.read_text())['metrics'],
                    'samples': {name: torch.from_numpy(samples[name].copy()) for name in samples.files},
                }
        return found

    def work(out: Path) -> None:
        command_line_code = measure(suite, out, no_examples=True)
        assert command_line_code == 0

    return Campaign('benchmark', work, whole, outcome, ('.*.part', '*/*/.*.part'))


def encodings(folder: Path) -> Campaign:
    """Of pictures, masks and texts of a tiny RefCOCO, a shard for each."""
    from cached_data import make_cache, make_tiny_refcoco, write_config

    folder.mkdir(parents=True, exist_ok=True)
    config = write_config(folder / 'c.py', make_tiny_refcoco(folder / 'coco'), 'sana')

    def tensors(out: Path) -> dict:
        found = {}
        for path in sorted(out.glob('*.safetensors')):
            found.update(load_file(path))
        return found

    def outcome(out: Path) -> dict:
        with open(out / 'items.jsonl') as lines:
            items = {line['item']: line['content'] for line in map(json.loads, lines)}
        return dict(tensors=tensors(out), items=items)

    def whole(out: Path) -> set[str]:
        tensors(out)  # raises for a torn one
        return {path.name for path in out.glob('*.safetensors')}

    def work(out: Path) -> None:
        make_cache(config, out, shard_size=1e-6, batch_size=1)

    return Campaign('encodings', work, whole, outcome, ('*.tmp', '.*.part'))


def _wait(child: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise RuntimeError(f'the run to its end failed with exit code {code}')


def _found(folder: Path, pattern: str) -> list[Path]:
    """What a pattern finds in a folder that somebody works in."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # a folder was renamed while this one looked
            return list(folder.glob(pattern))


def _names(folder: Path) -> set[str]:
    """Files, without those named after the time of a start."""
    names = {str(path.relative_to(folder)) for path in _found(folder, '**/*') if path.is_file()}
    return {name for name in names if not name.startswith('20')}


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(own, second[key]) for key, own in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return first == second


def main() -> None:
    kinds = ('training', 'sharded', 'benchmark', 'encodings')
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kinds', nargs='*', metavar='KIND', help=f'of {", ".join(kinds)} (default: all)')
    parser.add_argument('--kills', type=int, default=60, help='for trainings, half with each max_keep_ckpts')
    parser.add_argument('--sharded-kills', type=int, default=20, help='half of checkpoints written beside the training')
    parser.add_argument('--other-kills', type=int, default=20, help='for each of the others')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='folder for the runs (default: a temporary one)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        out = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='kills')))
        chosen = args.kinds or kinds
        jobs: list[tuple[Campaign, int]] = []
        if 'training' in chosen:
            jobs += [(training(keep), args.kills // 2) for keep in (1, 2)]
        if 'sharded' in chosen:
            jobs += [(sharded_training(beside), args.sharded_kills // 2) for beside in (False, True)]
        if 'benchmark' in chosen:
            jobs.append((benchmark(out / 'suite'), args.other_kills))
        if 'encodings' in chosen:
            jobs.append((encodings(out / 'pictures'), args.other_kills))
        for number, (campaign, kills) in enumerate(jobs):
            folder = out / str(number)
            folder.mkdir(parents=True)
            campaign.run(folder, kills, random.Random(args.seed))
            print(campaign.line(), flush=True)


if __name__ == '__main__':
    main()
