"""Writing text at once, so that nobody sees half a file."""

from pathlib import Path

from genseg_mm.whole_files import whole_file


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file through a temporary one beside it, so that it is never half written."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding='utf-8', newline='')
