"""Warnings that come back seldom, however often their cause does."""

import logging

from mmengine.logging import print_log


def warn_counted(message: str, count: int, what: str = '') -> None:
    """Logs a warning, with its count, where that is 1, 10, 100, ...

    Args:
        message: What happened.
        count: How often it has happened in this process, this time included.
        what: Name of what is counted, where the message does not say it.
    """
    if str(count).strip('0') == '1':
        counted = f'{count} {what} so far' if what else f'{count} so far'
        print_log(f'{message} ({counted} in this process)', 'current', logging.WARNING)
