"""The two sides of a comparison: their sample results, and their models to predict some items again."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, init_default_scope
from mmengine.structures import BaseDataElement

from genseg_mm.benchmarking.suite import find_file, parse_model
from genseg_mm.checkpoint import weights_sha256
from genseg_mm.config_file import read_config_file
from genseg_mm.evaluation.sample_results import SampleResults
from genseg_mm.inference.build_model import build_model
from genseg_mm.leaderboard.record import Record

SAMPLES, RESULT, CONFIG = 'samples.npz', 'result.json', 'config.py'


@dataclass(frozen=True)
class ComparedModel:
    """One side.

    Attributes:
        name: For titles.
        samples: Its results.
        folder: Where they are.
        record: Its result.json, None if there is none.
        model: ``CONFIG:CHECKPOINT`` to predict with, None takes what the record names. Where config.py is beside the
            record, it says model and data, and of these only the checkpoint counts.
    """

    name: str
    samples: SampleResults
    folder: Path
    record: Record | None
    model: str | None = None

    @classmethod
    def read(cls, path: str | Path, model: str | None = None) -> 'ComparedModel':
        """Reads a folder of results (of one model on one benchmark), or a file of sample results.

        Raises:
            FileNotFoundError: If there are no sample results.
            ValueError: If a file is not as it should be.
        """
        path = Path(os.path.expanduser(path))
        file = path / SAMPLES if path.is_dir() else path
        if path.is_dir() and not file.is_file():
            below = sorted(own.parent.name for own in path.glob(f'*/{SAMPLES}'))
            hint = f'; it has folders with them: {", ".join(below)}' if below else ''
            raise FileNotFoundError(
                f'{path}: expected {SAMPLES} of one model on one benchmark in it, but there is none{hint}'
            )
        result = file.parent / RESULT
        record = Record.read(result) if file.name == SAMPLES and result.is_file() else None
        name = f'{path}' if record is None else f'{record.model["title"]} on {_benchmark(record)}'
        return cls(name, SampleResults.load(file), file.parent, record, model)

    def predictions(self, indices: Sequence[int]) -> Iterator[tuple[np.ndarray, BaseDataElement]]:
        """Predicts dataset items again: the network's input, BGR (3, h, w), and the data sample, in this order.

        Raises:
            FileNotFoundError: If config, weights or data are missing.
            ValueError: If they are not what was measured.
        """
        cfg, checkpoint = self._config()
        scope = cfg.get('default_scope') or 'genseg_mm'
        init_default_scope(scope)
        from genseg_mm.benchmarking.examples import predicted_items  # a gallery alone needs it, and the runner with it

        with DefaultScope.overwrite_default_scope(scope):
            dataset = DATASETS.build(cfg.test_dataloader.dataset)
        self._check_size(dataset)
        with warnings.catch_warnings():
            if self.record is not None and self.record.is_control:  # without weights on purpose
                warnings.filterwarnings('ignore', 'no weights were given')
            model = build_model(cfg, checkpoint, None, scope)
        yield from predicted_items(model, dataset, indices)

    def _config(self) -> tuple[Config, str | None]:
        """What was measured, as config.py says; else the given config and its test set."""
        given = None if self.model is None else parse_model(self.model)
        measured = self.folder / CONFIG
        if self.record is None or not measured.is_file():
            if given is None:
                raise FileNotFoundError(
                    f'{self.folder} has no {RESULT} and {CONFIG} that name a model and its data: give CONFIG:CHECKPOINT'
                )
            return read_config_file(given['config']), given['checkpoint']
        recorded = self.record.model['checkpoint']
        if recorded is None:
            return read_config_file(measured), None
        checkpoint = (given and given['checkpoint']) or find_file(recorded)
        if not Path(checkpoint).is_file():
            raise FileNotFoundError(f'the weights {checkpoint} of {self.name} are not here: give CONFIG:CHECKPOINT')
        if weights_sha256(checkpoint) != self.record.model['checkpoint_sha256']:
            raise ValueError(
                f'{checkpoint} is not what {self.name} was measured with: its hash is not that of '
                f'{self.folder / RESULT}; give CONFIG:CHECKPOINT, or measure again'
            )
        return read_config_file(measured), checkpoint

    def _check_size(self, dataset: Any) -> None:
        expected = None if self.record is None else self.record.dataset['items']
        if expected not in (None, len(dataset)):
            raise ValueError(f'{self.name} was measured on {expected} items, but the dataset has {len(dataset)} now')


def _benchmark(record: Record) -> str:
    return record.benchmark['title'] or record.benchmark['name']
