"""Functions run by several processes of a gloo group, forked from the one of the test."""

import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from short_runs import free_port


def on_ranks(world: int, function: Callable[..., Any], *arguments: Any, errors: bool = False) -> list[Any]:
    """What each of ``world`` processes returns; alone, a process has no group.

    Args:
        world: Number of processes.
        function: Called by each.
        arguments: Of it.
        errors: Whether a ValueError or OSError is an answer, too, instead of a failure of the test.
    """
    with tempfile.TemporaryDirectory() as folder:
        children = start_ranks(world, function, *arguments, folder=Path(folder), errors=errors)
        wait_for(children, Path(folder))
        return [torch.load(Path(folder, f'{rank}.pt'), weights_only=False) for rank in range(world)]


def start_ranks(
    world: int, function: Callable[..., Any], *arguments: Any, folder: Path, errors: bool = False
) -> list[int]:
    """Process ids."""
    children, port = [], free_port()
    for rank in range(world):
        child = os.fork()
        if not child:
            code = 1
            try:
                torch.set_num_threads(1)
                gc.freeze()  # a collection would write into, and so copy, all that the test's process has
                if world > 1:
                    dist.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=world)
                try:
                    answer = function(*arguments)
                except (ValueError, OSError) as error:
                    if not errors:
                        raise
                    answer = error
                torch.save(answer, Path(folder, f'{rank}.pt'))
                code = 0
            except BaseException:
                Path(folder, f'{rank}.log').write_text(traceback.format_exc())
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(child)
    return children


def wait_for(children: list[int], folder: Path, seconds: float = 300) -> None:
    """Raises what the first one that failed has said."""
    running, deadline = list(children), time.monotonic() + seconds
    try:
        while running:
            for child in list(running):
                if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    running.remove(child)
                    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                    told = ''.join(path.read_text() for path in sorted(folder.glob('*.log')))
                    assert code == 0, f'process {children.index(child)} ended with {code}: {told[-3000:]}'
            assert time.monotonic() < deadline, f'processes hang after {seconds} s'
            time.sleep(0.01)
    finally:
        for child in running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
