"""Two network namespaces as two hosts: a command on each of them, as on two machines of a cluster.

    python tests/tools/two_hosts.py tools/dist_train.sh CONFIG 1 [options]

Each host has its own loopback and an own address on a link between them, and reaches nothing else. The environment of
the command has what the launch scripts want to know of several machines. Needs root and iproute2.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

HOSTS = ('10.231.7.1', '10.231.7.2')


def ip(*words: str) -> None:
    result = subprocess.run(['ip', *words], capture_output=True, text=True)
    if result.returncode:
        raise OSError(f'ip {" ".join(words)}: {result.stderr.strip()}')


def why_not() -> str | None:
    """Why there can be no network namespaces here; None if there can."""
    if shutil.which('ip') is None:
        return 'no ip: iproute2 is not installed'
    try:
        with two_hosts():
            return None
    except OSError as error:
        return f'network namespaces are not permitted: {error}'


@contextmanager
def two_hosts() -> Iterator[list[tuple[str, str]]]:
    """Makes two namespaces with a link between them, and removes them; their names and interfaces."""
    own = os.getpid()
    hosts = [(f'genseg{own}-{number}', f'gs{own}-{number}'[-15:]) for number in (0, 1)]
    made = []
    try:
        for name, _ in hosts:
            ip('netns', 'add', name)
            made.append(name)
        (first, link), (second, other) = hosts
        ip('link', 'add', link, 'netns', first, 'type', 'veth', 'peer', 'name', other, 'netns', second)
        for (name, interface), address in zip(hosts, HOSTS, strict=True):
            ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', interface)
            ip('-n', name, 'link', 'set', interface, 'up')
            ip('-n', name, 'link', 'set', 'lo', 'up')
        yield hosts
    finally:
        for name in made:
            ip('netns', 'delete', name)


def start(
    hosts: Sequence[tuple[str, str]], number: int, command: Sequence[str], log: IO | None = None, **environment: str
) -> subprocess.Popen:
    """Starts a command on one of the hosts."""
    name, interface = hosts[number]
    variables = dict(
        NNODES='2',
        NODE_RANK=str(number),
        MASTER_ADDR=HOSTS[0],
        LOCAL_ADDR=HOSTS[number],
        PORT='29611',
        GLOO_SOCKET_IFNAME=interface,
        TP_SOCKET_IFNAME=interface,
    )
    return subprocess.Popen(
        ['ip', 'netns', 'exec', name, *map(str, command)],
        env={**os.environ, **variables, **environment},
        stdout=log,
        stderr=subprocess.STDOUT if log else None,
        start_new_session=True,
    )


def run(command: Sequence[str], logs: Sequence[Path] = (), timeout: float = 600, **environment: str) -> list[int]:
    """Runs a command on both hosts; their exit codes."""
    with two_hosts() as hosts:
        files = [log.open('w') for log in logs] or [None, None]
        jobs = [start(hosts, number, command, file, **environment) for number, file in enumerate(files)]
        try:
            return [job.wait(timeout) for job in jobs]
        finally:
            for job in jobs:
                if job.poll() is None:
                    os.killpg(job.pid, signal.SIGKILL)


if __name__ == '__main__':
    sys.exit(max(run(sys.argv[1:])))
