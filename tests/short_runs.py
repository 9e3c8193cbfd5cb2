"""What makes runs of tools in tests short: forks that need not import everything again, few samples."""

import contextlib
import os
import runpy
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

import torch
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def run_forked(tool: str, *arguments: object, cwd: Path, processes: int = 0) -> str:
    """Runs a tool as a script in forks of this process, and checks that they end well.

    What was imported here is there already: starting anew costs a tool more than the few iterations of a test.

    Args:
        tool: Path below tools/.
        arguments: Of the command line.
        cwd: Its working directory, where ``<tool>.<rank>.log`` takes the output of each process.
        processes: That train or test together, each of one thread; 0: one alone.

    Returns:
        The output of the first.
    """
    path = ROOT / 'tools' / tool
    logs = [cwd / f'{path.stem}.{rank}.log' for rank in range(processes or 1)]
    words = [str(path), *map(str, arguments), *(['--launcher', 'pytorch'] if processes else [])]
    port = str(free_port())
    running = {}
    for rank, log in enumerate(logs):
        shared = dict(WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        environment = dict(shared, RANK=str(rank), LOCAL_RANK=str(rank)) if processes else {}
        child = os.fork()
        if not child:
            _run(words, log, cwd, environment)
        running[child] = log
    try:
        while running:
            child = next((one for one in running if os.waitid(os.P_PID, one, ENDED)), None)
            if child is None:
                time.sleep(0.02)
                continue
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            log = running.pop(child)
            assert status == 0, f'{tool} ended with {status}: {log.read_text()[-3000:]}'
    finally:
        for child in running:  # a process whose peer is gone waits for it
            os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
    return logs[0].read_text()


def free_port() -> int:
    with socket.socket() as own:
        own.bind(('127.0.0.1', 0))
        return own.getsockname()[1]


def _run(words: list[str], log: Path, cwd: Path, environment: dict[str, str]) -> NoReturn:
    code = 1
    try:
        with log.open('w') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        # What pytest put in place of them would keep the lines.
        sys.stdout, sys.stderr = os.fdopen(1, 'w'), os.fdopen(2, 'w')
        torch.set_num_threads(1)  # those of OpenMP do not survive a fork
        os.environ.update(environment)
        os.chdir(cwd)
        sys.argv = words
        runpy.run_path(words[0], run_name='__main__')
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def small_data(cfg: Config, splits: tuple[str, ...] = ('val', 'test')) -> list[str]:
    """Options for a handful of procedural scenes in the loaders of these splits."""
    changes = []
    for split in splits:
        dataset = cfg.get(f'{split}_dataloader').dataset
        parts = {f'datasets.{i}.': one for i, one in enumerate(dataset.get('datasets', []))} or {'': dataset}
        for key, part in parts.items():
            if part.type.endswith(('ShapesDataset', 'ObjectScenesDataset')):
                changes.append(f'{split}_dataloader.dataset.{key}num_scenes=2')
    return changes
