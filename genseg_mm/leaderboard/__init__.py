"""The leaderboard: measured records beside published numbers, as Markdown, CSV, JSON and one page of HTML."""

from genseg_mm.leaderboard.board import Leaderboard, build, from_records
from genseg_mm.leaderboard.record import Record, read_records
from genseg_mm.leaderboard.regressions import Regression, count_numbers, format_regressions, regressions
from genseg_mm.leaderboard.reported_rows import ReportedRow, reported

__all__ = [
    'Leaderboard',
    'Record',
    'Regression',
    'ReportedRow',
    'build',
    'count_numbers',
    'format_regressions',
    'from_records',
    'read_records',
    'regressions',
    'reported',
]
