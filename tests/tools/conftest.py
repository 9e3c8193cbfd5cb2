"""How tests run a tool: by its command line, in this process."""

import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Runs a tool, named by its path in tools/; exit code, output and errors."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        path = str(TOOLS / name)
        monkeypatch.setattr(sys, 'argv', [path, *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def verify(run_tool: Callable) -> Callable[..., tuple[int, dict[str, dict], str]]:
    """Runs verify_dataset on a config; exit code, the reports by name of dataset, and output."""

    def run(config: object, *arguments: object) -> tuple[int, dict[str, dict], str]:
        out = Path(os.environ['GENSEG_DATA']) / 'report.json'
        code, text, _ = run_tool('dataset_tools/verify_dataset.py', config, '--json', out, *arguments)
        return code, {own['dataset']: own for own in json.loads(out.read_text())['datasets']}, text

    return run
