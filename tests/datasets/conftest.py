"""What datasets and transforms say while a test runs."""

import logging
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_tools'


@pytest.fixture
def log_lines() -> Iterator[list[tuple[int, str]]]:
    """(level, message) of every line since the test began, without the name before the first colon."""
    lines = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.levelno, record.getMessage().partition(': ')[2]))

    logger, handler = MMLogger.get_current_instance(), Lines(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope='session')
def tiny_objects(tmp_path_factory) -> Path:
    """A bank of 24 drawn objects."""
    folder = tmp_path_factory.mktemp('objects')
    made = runpy.run_path(str(TOOLS / 'make_tiny_objects.py'))['make_tiny_objects'](folder / 'objects')
    runpy.run_path(str(TOOLS / 'prepare_objects.py'))['prepare_objects'](folder / 'objects.safetensors', made)
    return folder / 'objects.safetensors'
