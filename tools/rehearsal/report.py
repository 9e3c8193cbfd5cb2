"""What came of rehearsals: what was fresh, missing or unused, and the table."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

# Lines of a log that say so, of ours and of the libraries.
_SIGNS = re.compile(
    r'fresh |widened|not used|unused|unexpected|missing|not initialized|newly|not expected|ignored|lacks|'
    r'rounds small|deprecat|does not fit|left out|\bWARNING\b|Warning:|^warning',
    re.IGNORECASE,
)
# Nothing that a user of a real training would see, or could act on.
_NOISE = re.compile(
    r'^\s*$|^warnings\.warn|Hooks will be executed|Build settings|local_dir_use_symlinks|SyncBN|FileClient|'
    r'HardDiskBackend|MKL_NUM_THREADS|OMP_NUM_THREADS|prefix is not set in metric|'
    r'torch\.distributed is disabled|resource_tracker|\b0 files missing'
)
# Of the made-up data, which are few and odd on purpose.
_MADE_UP = re.compile(
    r'fewer than the .* of the complete dataset|pictures left out|left out \d+ |\d+ left out of |have no target polygon'
)
_CONFIG_LINE = re.compile(r' = |=dict\(|^[\w.]+=\S*,$')
_STAMP = re.compile(r'^.*?\d\d/\d\d \d\d:\d\d:\d\d - \S+ - (\w+) - ')


def findings(outputs: Iterable[str]) -> list[str]:
    """Lines that tell of something fresh, missing, unused or odd, each once."""
    found: dict[str, None] = {}
    for output in outputs:
        for line in re.split(r'[\r\n]+', output):
            stamp = _STAMP.match(line)
            warns = stamp is not None and stamp[1] == 'WARNING'
            text = _STAMP.sub('', line).strip()
            said = warns or _SIGNS.search(text)
            if said and not any(own.search(text) for own in (_NOISE, _MADE_UP, _CONFIG_LINE)):
                found.setdefault(re.sub(r'/\S*/(?=\S)', '', text)[:400])
    return list(found)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of rehearsals, and what was found in each."""
    names = list(dict.fromkeys(own['name'] for row in rows for own in row['stages']))
    lines = [f'| config | {" | ".join(names)} | result |', '|' + '---|' * (len(names) + 2)]
    for row in rows:
        stages = {own['name']: own for own in row['stages']}
        cells = [_cell(stages.get(name)) for name in names]
        lines.append(f'| {row["config"]} | {" | ".join(cells)} | {"failed" if row["error"] else "passed"} |')
    text = 'Seconds, and most memory in GB.\n\n' + '\n'.join(lines) + '\n'
    for row in rows:
        text += f'\n### {row["config"]}\n\n'
        text += f'released folders: {", ".join(row["repositories"]) or "none"}\n\n'
        text += f'changed: {", ".join(_change(*own) for own in row["changes"].items()) or "nothing"}\n\n'
        if row['error']:
            text += f'**{row["error"]}**\n\n'
        text += ''.join(f'- {line}\n' for line in row['findings'])
    return text


def _cell(stage: dict[str, Any] | None) -> str:
    if stage is None:
        return ''
    return f'{stage["seconds"]:.0f} s, {stage["peak_bytes"] / 1e9:.1f}' + (' FAILED' if stage['error'] else '')


def _change(key: str, value: Any) -> str:
    return f'{key}={value}' if not isinstance(value, dict) else f'{key} (smaller pictures)'
