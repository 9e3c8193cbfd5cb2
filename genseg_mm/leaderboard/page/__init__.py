"""The leaderboard as one page of HTML that needs nothing else: no server, no request, no framework."""

from genseg_mm.leaderboard.page.document import html_text

__all__ = ['html_text']
