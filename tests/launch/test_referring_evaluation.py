"""An evaluation of sentences on pictures: each picture is encoded once, in one process and in several."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny_datasets import maker

from genseg_mm.datasets.picture_sampler import pictures_of
from genseg_mm.launch.runner import SafeRunner
from genseg_mm.models.picture_memory import PictureMemory

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return maker('refcoco')(tmp_path_factory.mktemp('data') / 'coco')


@pytest.fixture
def evaluate(root, tmp_path, monkeypatch):
    """A function from the size of a batch to metrics, their entries, and how many pictures the autoencoder saw."""
    monkeypatch.setenv('GENSEG_DATA', str(root.parent))
    cfg = Config.fromfile(ROOT / 'configs' / 'genmask' / 'refcoco_tiny.py')
    for key in [key for key in cfg if key.startswith(('train_', 'val_', 'optim', 'param_'))]:
        cfg.pop(key)
    cfg.merge_from_dict({'work_dir': str(tmp_path), 'test_dataloader.dataset.split': 'train'})

    def run(batch_size: int) -> tuple[dict, list, int]:
        cfg.test_dataloader.batch_size = batch_size
        cfg.experiment_name = f'own_{len(runs)}'
        torch.manual_seed(0)  # the same weights
        runner = SafeRunner.from_cfg(cfg)
        runs.append(runner)
        seen: list[int] = []
        encode = runner.model.codec.autoencoder.encode
        runner.model.codec.autoencoder.encode = lambda images: seen.append(len(images)) or encode(images)
        (metric,) = runner.test_loop.evaluator.metrics
        entries: list = []
        compute = metric.compute_metrics
        metric.compute_metrics = lambda results: entries.extend(results) or compute(results)
        return runner.test(), entries, sum(seen)

    runs: list[SafeRunner] = []
    run.runs = runs
    return run


def test_a_picture_is_encoded_once_and_no_score_changes(evaluate, monkeypatch):
    scores, entries, encoded = evaluate(3)
    pictures = pictures_of(evaluate.runs[0].test_loop.dataloader.dataset)
    assert encoded == len(set(pictures)) <= len(pictures) / 2 and len(entries) == len(pictures)
    monkeypatch.setattr(PictureMemory, 'encode', lambda self, own, encode, encoder: list(encode(own)))
    again = evaluate(3)
    assert again == (scores, entries, len(pictures))
    assert evaluate(1) == again


def test_processes_encode_each_picture_once_together(evaluate, monkeypatch):
    scores, entries, _ = evaluate(4)
    num, together, encoded = 3, {}, 0
    for rank in range(num):
        monkeypatch.setattr('genseg_mm.datasets.picture_sampler.get_dist_info', lambda rank=rank: (rank, num))
        _, own, seen = evaluate(4)
        encoded += seen
        together |= dict(zip(evaluate.runs[-1].test_loop.dataloader.sampler.own_indices, own, strict=True))
    pictures = pictures_of(evaluate.runs[0].test_loop.dataloader.dataset)
    assert [together[index] for index in range(len(pictures))] == entries
    assert encoded == len(set(pictures))
    assert scores['mIoU'] > 0
