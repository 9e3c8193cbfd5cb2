"""Rows of a speed table: callables side by side, in CPU seconds and as ratios to a yardstick of the same process."""

import contextlib
import io
import json
import math
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

OURS = 'ours'
ENOUGH = 0.05  # seconds that a round of one variant takes at least, by repeating it
LONG = 1.0  # seconds after which a peer of a row with one round is not run again


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: As it is chosen on the command line.
        title: What is measured, in words.
        prepare: Takes the options, gives variants: a name -> a call without arguments. ``'ours'`` is one of them, the
            others are peers. A call may give its own seconds, where it does more than what is measured.
        rounds: So many, interleaved; None: as the options say. With 1, a peer that takes seconds runs once.
        on_gpu: Whether it is measured on a card, too.
    """

    name: str
    title: str
    prepare: Callable[[Any], Mapping[str, Callable[[], float | None]]]
    rounds: int | None = None
    on_gpu: bool = False


@dataclass
class Found:
    """What was measured of a row.

    Attributes:
        title: Of the row.
        seconds: Variant -> median CPU seconds (on a card those of the clock).
        yards: Variant -> median of its ratios to the yardstick beside it.
        over: Peer -> median of the ratios of ours to it, round by round.
    """

    title: str
    seconds: dict[str, float] = field(default_factory=dict)
    yards: dict[str, float] = field(default_factory=dict)
    over: dict[str, float] = field(default_factory=dict)


class Yardstick:
    """A fixed piece of work of tens of milliseconds: products of matrices, a pass over memory, a sort."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.rand(384, 384, generator=generator)
        self.numbers = torch.rand(1 << 20, generator=generator)
        self.order = np.random.default_rng(0).permutation(1 << 17)

    def __call__(self) -> None:
        for _ in range(8):
            self.matrix @ self.matrix
            (self.numbers.exp() + self.numbers.square()).sum()
        for _ in range(4):
            np.sort(self.order)


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def discard(call: Callable[..., Any], *arguments: Any) -> None:
    """Calls without a result, which :func:`timed` would take for seconds."""
    call(*arguments)


def timed(call: Callable[[], float | None], device: str = 'cpu', number: int = 1) -> float:
    """Seconds of one call: of the CPU, on a card of the clock; those that the call gives, where it gives some."""
    if device != 'cpu':
        torch.cuda.synchronize()
    now = cpu_seconds if device == 'cpu' else time.perf_counter
    start, own = now(), 0.0
    for _ in range(number):
        own += call() or 0.0
    if device != 'cpu':
        torch.cuda.synchronize()
    return (own or now() - start) / number


def measure(row: Row, options: Any, yardstick: Callable[[], None], device: str = 'cpu') -> Found:
    """Runs the variants of a row interleaved, the yardstick before each.

    Args:
        row: The row.
        options: Of the command line; ``repeat`` is the number of rounds.
        yardstick: A call without arguments.
        device: 'cpu' or 'cuda'.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # what metrics and data sets say
        return _measure(row, options, yardstick, device)


def _measure(row: Row, options: Any, yardstick: Callable[[], None], device: str) -> Found:
    variants = row.prepare(options)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    yards: dict[str, list[float]] = {name: [] for name in variants}
    number = {}

    def run(name: str, call: Callable[[], float | None]) -> float:
        unit = timed(yardstick)
        seconds[name].append(timed(call, device, number.get(name, 1)))
        yards[name].append(seconds[name][-1] / unit)
        return seconds[name][-1]

    for name, call in variants.items():
        first = run(name, call)  # also warms up
        number[name] = max(1, math.ceil(ENOUGH / max(first, 1e-6))) if first < ENOUGH else 1
        if name == OURS or row.rounds != 1 or first < LONG:
            seconds[name].clear()
            yards[name].clear()
    for _ in range(row.rounds or options.repeat):
        for name, call in variants.items():
            if row.rounds != 1 or not seconds[name]:
                run(name, call)
    found = Found(row.title)
    for name in variants:
        found.seconds[name] = statistics.median(seconds[name])
        found.yards[name] = statistics.median(yards[name])
        if name != OURS:
            pairs = zip(seconds[OURS], seconds[name], strict=True)
            found.over[name] = statistics.median(ours / own for ours, own in pairs)
    return found


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    names = ('avx2', 'avx512', 'avx512_bf16', 'amx_tile')
    checks = {name: getattr(torch.cpu, f'_is_{name}_supported', bool) for name in names}
    return dict(
        processor=_processor(),
        features=[name for name, check in checks.items() if check()],
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        load=round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None,
    )


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), platform.machine())


def markdown(rows: Mapping[str, Found]) -> str:
    """The table: a line per row, seconds of ours, yardsticks, and ours over each peer."""
    lines = ['| row | what | ours, s | yardsticks | ours / peer |', '|---|---|---:|---:|---|']
    for name, own in rows.items():
        over = ', '.join(f'{ratio:.3g} x {peer} ({own.seconds[peer]:.3g} s)' for peer, ratio in own.over.items())
        lines.append(f'| `{name}` | {own.title} | {own.seconds[OURS]:.3g} | {own.yards[OURS]:.3g} | {over or "-"} |')
    return '\n'.join(lines)


def as_json(rows: Mapping[str, Found], failed: Mapping[str, str]) -> str:
    """Rows, what failed and the machine, as text of JSON."""
    plain = {name: vars(own) for name, own in rows.items()}
    return json.dumps(dict(machine=machine(), rows=plain, failed=dict(failed)), indent=1) + '\n'


def regressions(old: Mapping[str, Any], new: Mapping[str, Found], tolerance: float) -> list[str]:
    """A line for each row whose ratio has risen by more than the tolerance, to a peer where both have it.

    Ratios to a peer are compared first: they hold on other machines, too. Only rows without a common peer are compared
    by their yardsticks.

    Args:
        old: ``rows`` of an earlier file.
        new: Rows of now.
        tolerance: 0.3: a ratio may rise to 1.3 times the old one.
    """
    lines = []
    for name, own in new.items():
        before = old.get(name)
        if before is None:
            continue
        ratios = {
            f'times {peer}': (before['over'][peer], own.over[peer]) for peer in own.over if peer in before['over']
        }
        ratios = ratios or {'yardsticks': (before['yards'][OURS], own.yards[OURS])}
        lines += [
            f'{name}: {now:.3g} {unit}, was {then:.3g} ({now / then - 1:+.0%}, allowed {tolerance:+.0%})'
            for unit, (then, now) in ratios.items()
            if now > then * (1 + tolerance)
        ]
    return lines


def read_old(path: str, names: Iterable[str]) -> dict[str, Any]:
    """``rows`` of an earlier file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no such file, or has none of the rows.
    """
    from genseg_mm.files import read_json_dict

    content = read_json_dict(Path(path))
    rows = content.get('rows')
    good = isinstance(rows, dict) and all(
        isinstance(own, dict)
        and all(isinstance(own.get(key), dict) for key in ('over', 'yards'))
        and OURS in own['yards']
        and all(
            isinstance(ratio, int | float) and ratio > 0 for key in ('over', 'yards') for ratio in own[key].values()
        )
        for own in rows.values()
    )
    if not good:
        raise ValueError(f'{path}: expected a file of tools/benchmark_speed.py, but its rows are no ratios')
    if not set(rows) & set(names):
        raise ValueError(f'{path}: expected some of the rows that are measured, but got {", ".join(rows) or "none"}')
    return rows
