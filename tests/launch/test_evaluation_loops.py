"""Loops of validation and test: data spread by picture, the precision of training."""

import json
import multiprocessing
import os
from itertools import chain, zip_longest
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import TestLoop as StockTestLoop
from mmengine.runner import ValLoop
from mmengine.structures import BaseDataElement

from genseg_mm.datasets.picture_sampler import spread_by_picture
from genseg_mm.launch.evaluation_loops import (
    PictureTestLoop,
    PictureValLoop,
    check_loop,
    deal_in_order,
    first_samples,
    own_loop,
)
from genseg_mm.launch.runner import SafeRunner
from genseg_mm.registry import DATASETS, LOOPS, METRICS, MODELS

PICTURES = [0, 1, 0, 2, 0, 0, 3, 1, 0, 4, 2]  # of eleven items


@DATASETS.register_module()
class ItemsOfPictures(BaseDataset):
    def load_data_list(self) -> list[dict]:
        return [dict(img_id=own, number=number) for number, own in enumerate(PICTURES)]

    def prepare_data(self, idx: int) -> dict:
        info = self.get_data_info(idx)
        sample = BaseDataElement(metainfo=info)
        return dict(inputs=torch.full((3, 1, 1), float(info['number'])), data_samples=sample)


@MODELS.register_module()
class LayerThatTells(BaseModel):
    """Notes the number of each item, and the type of what its layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen: list[int] = []

    def forward(self, inputs: list, data_samples: list, mode: str = 'tensor') -> list:
        output = self.layer(torch.stack(inputs).flatten(1))
        for sample in data_samples:
            self.seen.append(sample.number)
            sample.set_metainfo(dict(result=3 * sample.number, dtype=str(output.dtype).removeprefix('torch.')))
        return data_samples


@METRICS.register_module()
class InOrder(BaseMetric):
    """The results as they were put together; results with value None are left out by MMEngine, so there are none."""

    default_prefix = 'own'

    def __init__(self, several: int = 1) -> None:
        super().__init__()
        self.several = several

    def process(self, data_batch: dict, data_samples: list) -> None:
        assert len(data_batch['inputs']) == len(data_samples)
        product = torch.ones(2, 2) @ torch.ones(2, 2)  # a metric computes in its own precision
        for sample in data_samples:
            assert product.dtype == torch.float32
            self.results += [(sample['result'], sample['dtype'])] * self.several

    def compute_metrics(self, results: list) -> dict:
        return dict(
            results=[result for result, _ in results],
            dtype=', '.join(sorted({dtype for _, dtype in results})),
        )


def config(tmp_path, name: str, **overrides) -> Config:
    loader = dict(
        batch_size=3,
        num_workers=0,
        sampler=dict(type='genseg_mm.PictureSampler'),
        dataset=dict(type='ItemsOfPictures', pipeline=[]),
    )
    cfg = dict(
        default_scope='genseg_mm',
        model=dict(type='LayerThatTells'),
        work_dir=str(tmp_path),
        experiment_name=name,
        val_dataloader=loader,
        val_cfg=dict(type='ValLoop'),
        val_evaluator=dict(type='InOrder'),
        test_dataloader=loader,
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='InOrder'),
    )
    return Config({**cfg, **overrides})


def test_one_process_goes_by_picture_and_gives_the_datasets_order(tmp_path):
    runner = SafeRunner.from_cfg(config(tmp_path, 'one'))
    for run in (runner.val, runner.test):
        assert run() == {'own/results': [3 * number for number in range(11)], 'own/dtype': 'float32'}
        assert runner.model.seen == [0, 2, 4, 5, 8, 1, 7, 3, 10, 6, 9]
        runner.model.seen.clear()
    assert type(runner.val_loop) is PictureValLoop and type(runner.test_loop) is PictureTestLoop


@pytest.mark.parametrize('world_size', [1, 2, 3, 5, 7])
def test_results_of_any_number_of_processes_come_together_in_order(monkeypatch, world_size):
    """Fake processes; put together as MMEngine's collect_results does it, and as its older versions do."""
    shares = spread_by_picture(PICTURES, world_size)
    everywhere = [(own, [10 * place for place in own]) for own in shares]
    monkeypatch.setattr('genseg_mm.launch.evaluation_loops.all_gather_object', lambda own: everywhere)
    parts = []
    for rank, (own, results) in enumerate(everywhere):
        monkeypatch.setattr('genseg_mm.launch.evaluation_loops.get_dist_info', lambda rank=rank: (rank, world_size))
        metric = SimpleNamespace(results=list(results))
        deal_in_order(metric, own)
        parts.append(metric.results)
    expected = [10 * place for place in range(11)]
    assert [own for own in chain.from_iterable(zip_longest(*parts)) if own is not None][:11] == expected
    assert list(chain.from_iterable(zip(*parts, strict=True)))[:11] == expected


def test_metrics_without_one_result_per_item_are_refused_in_all_processes(monkeypatch):
    everywhere = [([0, 2], ['a']), ([1], ['b'])]
    monkeypatch.setattr('genseg_mm.launch.evaluation_loops.all_gather_object', lambda own: everywhere)
    for rank, (own, results) in enumerate(everywhere):
        monkeypatch.setattr('genseg_mm.launch.evaluation_loops.get_dist_info', lambda rank=rank: (rank, 2))
        with pytest.raises(ValueError, match='keeps 1 results of 2 items: expected one for each; take sampler'):
            deal_in_order(SimpleNamespace(results=list(results)), own)


# As connect_processes sets it where there is no GPU.
WRAPPER = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)


def _evaluate(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    store = f'file://{folder}/store'
    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=world_size)
    cfg = config(folder, 'several', launcher='pytorch', model_wrapper_cfg=WRAPPER)
    os.chdir(folder)  # MMEngine collects in a folder of the working directory
    runner = SafeRunner.from_cfg(cfg)
    found = [runner.val(), runner.test()]
    with open(f'{folder}/{rank}.json', 'w') as file:
        json.dump(dict(metrics=found, seen=runner.model.module.seen), file)
    dist.destroy_process_group()


@pytest.mark.parametrize('world_size', [2, 3])
def test_real_processes(tmp_path, world_size):
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=_evaluate, args=(rank, world_size, str(tmp_path))) for rank in range(world_size)
    ]
    for own in processes:
        own.start()
    for own in processes:
        own.join(120)
    assert [own.exitcode for own in processes] == [0] * world_size
    found = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(world_size)]
    for own in found:
        assert own['metrics'] == [{'own/results': [3 * number for number in range(11)], 'own/dtype': 'float32'}] * 2
    assert len({len(own['seen']) for own in found}) == 1  # as many passes everywhere
    seen = [[PICTURES[number] for number in own['seen']] for own in found]
    assert not set(seen[0]) & set(seen[1])


AUTOCAST = dict(type='genseg_mm.AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.1))


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        (dict(optim_wrapper=AUTOCAST), 'bfloat16'),
        (dict(optim_wrapper=AUTOCAST, evaluation_dtype='float32'), 'float32'),
        (dict(evaluation_dtype='bfloat16'), 'bfloat16'),
        (dict(val_cfg=dict(type='ValLoop', fp16=True), test_cfg=dict(type='TestLoop', fp16=True)), 'float16'),
    ],
)
def test_precision_is_that_of_training_unless_the_config_says_otherwise(tmp_path, settings, expected):
    cfg = config(tmp_path, f'precision-{expected}-{len(settings)}', **settings)
    wrapper = cfg.pop('optim_wrapper', None)
    runner = SafeRunner.from_cfg(cfg)
    runner.cfg.optim_wrapper = wrapper
    assert runner.val()['own/dtype'] == expected == runner.test()['own/dtype']


def test_a_test_prepares_its_model_and_a_validation_leaves_that_of_the_training(tmp_path):
    runner = SafeRunner.from_cfg(config(tmp_path, 'prepared', evaluation_channels_last=True))
    assert runner.val()['own/dtype'] == 'float32'
    with pytest.raises(ValueError, match='--channels-last: expected a model with 2-D convolutions'):
        runner.test()


def test_stock_loops_are_replaced_and_others_are_not():
    for kind in ('ValLoop', 'mmengine.ValLoop', ValLoop):
        assert own_loop(dict(type=kind, fp16=True), 'Val') == dict(type='genseg_mm.PictureValLoop', fp16=True)
    assert own_loop({}, 'Test') == dict(type='genseg_mm.PictureTestLoop')
    for other in (dict(type='MyLoop'), None):
        assert own_loop(other, 'Val') == other


@LOOPS.register_module()
class LoopOfSomebody(StockTestLoop):
    pass


def test_a_loop_that_would_count_repetitions_is_refused(tmp_path):
    runner = SafeRunner.from_cfg(config(tmp_path, 'other-loop', test_cfg=dict(type='LoopOfSomebody')))
    with pytest.raises(
        ValueError, match='test_cfg: expected ValLoop, TestLoop or a subclass .* but got LoopOfSomebody'
    ):
        runner.test()
    check_loop(None, 'val_cfg')


def test_first_samples():
    batch = dict(inputs=[1, 2, 3], stacked=torch.arange(6).view(3, 2), name='abc')
    cut = first_samples(batch, 2, 3)
    assert (cut['inputs'], cut['stacked'].tolist(), cut['name']) == ([1, 2], [[0, 1], [2, 3]], 'abc')
    assert first_samples(batch, 3, 3) is batch
