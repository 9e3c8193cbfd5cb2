"""Reading of MMEngine's logs of scalars, for analyze_logs.py."""

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path

META = ('iter', 'step', 'epoch')


@dataclass
class TrainingLog:
    """The scalars of one training, resumed or not.

    Attributes:
        name: Of the work dir, or of the file's folder.
        work_dir: Folder of the runs.
        train: Iteration -> values of a training line.
        val: Iteration -> values of a validation line.
        starts: First logged iteration of each run.
        notes: What was left out, and why.
    """

    name: str
    work_dir: Path
    train: dict[int, dict[str, float]] = field(default_factory=dict)
    val: dict[int, dict[str, float]] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, key: str) -> tuple[str, dict[int, dict[str, float]]]:
        """Full name of a key and the lines that have it ('train' or 'val').

        A key may lack its prefix, as in mmdet: 'bbox_mAP' for 'coco/bbox_mAP'. Training lines come first; 'val/time'
        is the time of validation.

        Raises:
            ValueError: If the log has no such key; with those that it has.
        """
        wanted, _, rest = key.partition('/')
        for kind, lines in (('train', self.train), ('val', self.val)):
            names = _names(lines)
            if wanted == kind and rest in names:
                return rest, lines
            if wanted != kind and key in names:
                return key, lines
        for lines in (self.train, self.val):
            short = [name for name in _names(lines) if name.rpartition('/')[2] == key]
            if len(short) == 1:
                return short[0], lines
        names = [*_names(self.train), *_names(self.val)]
        close = difflib.get_close_matches(key, names, 1)
        hint = f' (did you mean {close[0]!r}?)' if close else ''
        raise ValueError(f'{self.name} has no {key!r}{hint}, but {", ".join(dict.fromkeys(names))}')

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Iterations and values of a key, in order."""
        name, lines = self.find(key)
        steps = [step for step in sorted(lines) if name in lines[step]]
        return steps, [lines[step][name] for step in steps]


def _names(lines: dict[int, dict]) -> list[str]:
    return list(dict.fromkeys(name for values in lines.values() for name in values))


def log_files(path: Path) -> list[Path]:
    """The logs of a file, of the folder of one run or of a work dir, oldest first.

    Raises:
        FileNotFoundError: If there are none.
    """
    if path.is_file():
        return [path]
    for pattern in ('vis_data/2*.json', '*/vis_data/2*.json', '2*.json', '**/scalars.json'):
        found = sorted(path.glob(pattern), key=lambda own: own.name)
        if found:
            return found
    raise FileNotFoundError(
        f'{path}: expected a log of MMEngine (vis_data/<time>.json) or a work dir with such logs, but found none'
    )


def read_log(path: str | Path) -> TrainingLog:
    """One training from its file, the folder of a run, or a work dir whose runs are taken as resumed from each other.

    Where a run goes back to an iteration, what was logged from there on before is left out: later values win.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If none of its lines can be read.
    """
    path = Path(path)
    files = log_files(path)
    work_dir = path
    if path.is_file():
        in_run = path.parent.name == 'vis_data'
        work_dir = path.parents[2] if in_run and len(path.parents) > 2 else path.parent
    log = TrainingLog(work_dir.resolve().name, work_dir)
    for file in files:
        last = None
        for values in _lines(file, log):
            last = _add(log, values, last, file)
    if not log.train and not log.val:
        raise ValueError(
            f'{path}: expected lines of MMEngine such as {{"loss": 0.5, "iter": 50, "step": 50}}, but got none'
        )
    return log


def _lines(file: Path, log: TrainingLog) -> list[dict]:
    found, num_bad = [], 0
    for text in file.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            num_bad += bool(text.strip())
            continue
        if isinstance(values, dict) and isinstance(values.get('step'), int):
            found.append(values)
        else:
            num_bad += 1
    if num_bad:
        log.notes.append(f'{file.name}: {num_bad} lines cannot be read (a run that was stopped?)')
    return found


def _add(log: TrainingLog, values: dict, last: int | None, file: Path) -> int | None:
    """Adds a line; returns the last training iteration of the file."""
    own = {key: float(value) for key, value in values.items() if key not in META and isinstance(value, (int, float))}
    if 'iter' not in values:
        # Validation by epochs counts epochs in `step`.
        step = last if last is not None and _by_epoch(log) else values['step']
        log.val[step] = own
        return last
    step = values['step']
    if last is None or step <= last:
        log.starts.append(step)
        _drop_from(log, step, file)
    own.update({'epoch': float(values['epoch'])} if 'epoch' in values else {})
    log.train[step] = own
    return step


def _by_epoch(log: TrainingLog) -> bool:
    return bool(log.train) and 'epoch' in next(reversed(log.train.values()))


def _drop_from(log: TrainingLog, step: int, file: Path) -> None:
    train = [own for own in log.train if own >= step]
    val = [own for own in log.val if own >= step]
    for own in train:
        del log.train[own]
    for own in val:
        del log.val[own]
    if train or val:
        log.notes.append(
            f'{file.name} goes on from iteration {step}: {len(train)} training and {len(val)} validation lines logged '
            f'before, from there to {max(train + val)}, are replaced'
        )
