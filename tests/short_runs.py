"""What makes runs of tools in tests short: forks that need not import everything again, few samples."""

import contextlib
import gc
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
import torch.utils.cpp_extension
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


class ForkedTool:
    """A tool as a script in a fork of this process, in a process group of its own; used as ``subprocess.Popen`` is.

    What was imported here is there already: starting anew costs a tool more than the few iterations of a test.

    Args:
        tool: Path below tools/.
        arguments: Of the command line.
        cwd: Its working directory.
        log: File for its output.
        environment: Variables to set.
    """

    def __init__(
        self, tool: str, *arguments: object, cwd: Path, log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.log, self.returncode = log, None
        words = [str(ROOT / 'tools' / tool), *map(str, arguments)]
        self.pid = os.fork()
        if not self.pid:
            _run(words, log, cwd, environment or {})
        with contextlib.suppress(PermissionError, ProcessLookupError):  # the child does it, too
            os.setpgid(self.pid, self.pid)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None and os.waitid(os.P_PID, self.pid, ENDED):
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 600) -> tuple[str, None]:
        """Waits for the end; all of its output."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.02)
        return self.log.read_text(), None


def run_forked(tool: str, *arguments: object, cwd: Path, processes: int = 0, logs: Path | None = None) -> str:
    """Runs a tool in forks of this process, and checks that they end well.

    Args:
        tool: Path below tools/.
        arguments: Of the command line.
        cwd: Its working directory.
        processes: That train or test together, each of one thread; 0: one alone.
        logs: Folder where ``<tool>.<rank>.log`` takes the output of each process; ``cwd`` by default.

    Returns:
        The output of the first.
    """
    files = [(logs or cwd) / f'{Path(tool).stem}.{rank}.log' for rank in range(processes or 1)]
    launcher = ['--launcher', 'pytorch'] if processes else []
    shared = dict(WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    running = []
    for rank, log in enumerate(files):
        environment = dict(shared, RANK=str(rank), LOCAL_RANK=str(rank)) if processes else {}
        running.append(ForkedTool(tool, *arguments, *launcher, cwd=cwd, log=log, environment=environment))
    try:
        while running:
            ended = next((own for own in running if own.poll() is not None), None)
            if ended is None:
                time.sleep(0.02)
                continue
            running.remove(ended)
            assert ended.returncode == 0, f'{tool} ended with {ended.returncode}: {ended.log.read_text()[-3000:]}'
    finally:
        for own in running:  # a process whose peer is gone waits for it
            own.kill()
            own.communicate()
    return files[0].read_text()


def free_port() -> int:
    with socket.socket() as own:
        own.bind(('127.0.0.1', 0))
        return own.getsockname()[1]


def _run(words: list[str], log: Path, cwd: Path, environment: dict[str, str]) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        with log.open('w') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        # What pytest put in place of them would keep the lines.
        sys.stdout, sys.stderr = os.fdopen(1, 'w'), os.fdopen(2, 'w')
        torch.set_num_threads(1)  # those of OpenMP do not survive a fork
        gc.freeze()  # MMEngine collects garbage for each dataset that it builds: what was imported is none
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
