"""Reading JSON and writing text at once, so that nobody sees half a file."""

import json
from pathlib import Path
from typing import Any

from genseg_mm.whole_files import whole_file


def read_json(path: Path) -> Any:
    """Raises FileNotFoundError if there is no such file, ValueError if it is no JSON."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: expected a result.json or leaderboard.json') from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: expected JSON, but {error}') from None


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file through a temporary one beside it, so that it is never half written."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding='utf-8', newline='')
