"""What datasets and transforms say while a test runs."""

import logging
from collections.abc import Iterator

import pytest
from mmengine.logging import MMLogger


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
