"""One measured result: a model on a benchmark, its numbers and everything needed to get them again (result.json)."""

import json
import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from genseg_mm.files import read_json
from genseg_mm.leaderboard import record_schema
from genseg_mm.leaderboard.record_schema import SCHEMA
from genseg_mm.leaderboard.text_files import write_text


@dataclass(frozen=True)
class Record:
    """A result.json of schema 1.

    Args:
        model: name, title, kind ('model' or 'control'), config, config_sha256, checkpoint, checkpoint_sha256,
            num_parameters.
        benchmark: suite, name, title, task, protocol, sha256, tolerance (in the units of the metrics).
        metrics: Metric -> number, percent unless the metric says otherwise; NaN where the data leave it undefined.
        dataset: type, items, expected (None if unknown), difference (None if complete), incomplete, fingerprint.
        run: key, seed, started (ISO 8601 with time zone), seconds, seconds_per_item {model, data, metric}, processes,
            batch_size, one_by_one, threads, device, hardware, packages, commit, command.
        examples: Pictures {kind, file, caption, score}; files are relative to the folder of the result.json.
        folder: Where it was read from, None if it was not read from a file of its own.
    """

    model: dict[str, Any]
    benchmark: dict[str, Any]
    metrics: dict[str, float]
    dataset: dict[str, Any]
    run: dict[str, Any]
    examples: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = field(default=None, compare=False)

    @property
    def name(self) -> tuple[str, str]:
        """(model, benchmark): at most one record of an output folder has it."""
        return self.model['name'], self.benchmark['name']

    @property
    def is_control(self) -> bool:
        return self.model['kind'] == 'control'

    @property
    def started(self) -> datetime:
        """Start of the run in UTC."""
        return record_schema.parse_time(self.run['started'])

    @property
    def incomplete(self) -> str | None:
        """That the data are not the complete ones, short: '6 of 718 pictures'; None if nothing speaks against them.

        The whole story is ``dataset['difference']``, which may also name small differences from counts that are not
        confirmed.
        """
        return self.dataset['incomplete']

    def file(self, name: str) -> Path | None:
        """A file of the record by its name in the folder; None if it is outside: records may come from others."""
        if self.folder is None:
            return None
        try:
            path = (self.folder / name).resolve()
        except (OSError, ValueError):  # no name of a file: a NUL in it, a loop of links
            return None
        return path if path.is_relative_to(self.folder.resolve()) else None

    @classmethod
    def from_dict(cls, data: Any, where: str | Path = 'record', folder: Path | None = None) -> 'Record':
        """Checks the parsed JSON.

        Raises:
            ValueError: If a key is missing or has a wrong value; names `where` and the key.
        """
        record_schema.check(data, where)
        metrics = record_schema.checked_metrics(data.get('metrics'), where)
        examples = record_schema.checked_examples(data.get('examples', []), where)
        sections = {section: data[section] for section in record_schema.KEYS}
        return cls(**sections, metrics=metrics, examples=examples, folder=folder)

    def to_dict(self) -> dict[str, Any]:
        """What result.json holds; NaN is written as null, because JSON has no NaN."""
        numbers = {key: None if value is None or math.isnan(value) else value for key, value in self.metrics.items()}
        return dict(
            schema=SCHEMA,
            model=self.model,
            benchmark=self.benchmark,
            metrics=numbers,
            dataset=self.dataset,
            run=self.run,
            examples=self.examples,
        )

    @classmethod
    def read(cls, path: str | Path) -> 'Record':
        """Reads a result.json.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no JSON or no valid record; names the file and what is wrong.
        """
        path = Path(path)
        return cls.from_dict(_content(path), path, path.parent)

    def write(self, path: str | Path) -> None:
        """Writes a result.json at once: a reader or a killed run never sees half of it.

        Raises:
            ValueError: If the record is not valid.
        """
        data = self.to_dict()
        self.from_dict(data, path)
        write_text(path, json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + '\n')


def _content(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: expected a result.json or leaderboard.json')
    return read_json(path)


def read_records(path: str | Path) -> list[Record]:
    """Records of a result.json, of a leaderboard.json or of a folder of MODEL/BENCHMARK/result.json.

    Returns:
        In the order of the file, or sorted by path.

    Raises:
        FileNotFoundError: If there is no such file, or no record in the folder.
        ValueError: If a file is not valid, or two records are of the same model and benchmark.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob('*/*/result.json')) or sorted(path.glob('**/result.json'))
        if not files:
            raise FileNotFoundError(
                f'{path}: expected MODEL/BENCHMARK/result.json in it, but there is none: run tools/benchmark.py first'
            )
        records = [Record.read(file) for file in files]
    else:
        data = _content(path)
        if isinstance(data, dict) and 'records' in data:
            records = _records_of_leaderboard(data, path)
        else:
            records = [Record.from_dict(data, path, path.parent)]
    _refuse_doubles(records, path)
    return records


def _records_of_leaderboard(data: dict, path: Path) -> list[Record]:
    if data.get('schema') != SCHEMA or not isinstance(data['records'], list):
        raise ValueError(
            f'{path}: expected schema {SCHEMA} and a list of records, but got schema {data.get("schema")!r} and '
            f'{type(data["records"]).__name__}'
        )
    records = []
    for number, entry in enumerate(data['records']):
        record = Record.from_dict(entry, f'{path}: record {number}')
        records.append(replace(record, folder=path.parent.joinpath(*record.name)))
    return records


def _refuse_doubles(records: list[Record], path: Path) -> None:
    seen: dict[tuple[str, str], Path | None] = {}
    for record in records:
        if record.name in seen:
            raise ValueError(
                f'{path}: expected one record of model {record.name[0]!r} on benchmark {record.name[1]!r}, but got '
                f'two ({seen[record.name]} and {record.folder}): remove one'
            )
        seen[record.name] = record.folder
