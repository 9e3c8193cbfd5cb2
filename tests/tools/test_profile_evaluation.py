"""Profiles of evaluations: hand-worked medians and shares, a counted run, the tool on tiny data."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from costs import PhaseMeter, watched
from mmengine.dataset import BaseDataset, ConcatDataset
from profile_evaluation import chosen, run_item, summarise, watch_data

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'


def test_medians_and_shares_by_hand():
    rounds = [
        {'data: Load': 1.0, 'data: dataset': 1.0, 'model: rest': 7.0, 'metric: evaluator': 0.5},
        {'data: Load': 3.0, 'data: dataset': 1.0, 'model: rest': 6.0, 'metric: evaluator': 0.5},
        {'data: Load': 2.0, 'data: dataset': 4.0, 'model: rest': 11.0},
    ]
    found = summarise(rounds, at_end=0.5)
    assert found['phases'] == {
        'data: Load': dict(median=2.0, mean=2.0),
        'data: dataset': dict(median=1.0, mean=2.0),
        'model: rest': dict(median=7.0, mean=8.0),
        'metric: evaluator': dict(median=0.5, mean=1 / 3),
        'metric: at the end': dict(median=0.5, mean=0.5),
    }
    assert found['groups'] == dict(data=3.0, model=7.0, metric=1.0)
    assert found['outside_model'] == 4 / 11


def test_items_are_spread_evenly():
    assert chosen(5, 9) == [0, 1, 2, 3, 4]
    assert chosen(101, 3) == [0, 50, 100]


class Ticks:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 0

    def spend(self, ticks):
        self.now += ticks


class Load:
    def __init__(self, ticks):
        self.ticks = ticks

    def __call__(self, results):
        return self.transform(results)

    def transform(self, results):
        self.ticks.spend(3)
        return results


class Pack(Load):
    def transform(self, results):
        self.ticks.spend(4)
        return dict(inputs=torch.zeros(1), data_samples=results)


def dataset_of(ticks):
    class Listed(BaseDataset):
        def load_data_list(self):
            return [dict(img_path='a'), dict(img_path='b')]

        def prepare_data(self, idx):
            ticks.spend(1)
            return super().prepare_data(idx)

    return Listed(pipeline=[Load(ticks), Pack(ticks)])


def test_what_an_item_costs_is_booked_to_who_spends_it():
    ticks = Ticks()
    meter = PhaseMeter(lambda: ticks.now)

    class Colorer(torch.nn.Module):
        def forward(self, inputs):
            ticks.spend(20)
            return inputs

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.colorer = Colorer()

        def test_step(self, batch):
            ticks.spend(5)
            self.colorer(batch['inputs'][0])
            return batch['data_samples']

    class Metric:
        def process(self, data_samples, data_batch):
            ticks.spend(2)

    dataset = ConcatDataset([dataset_of(ticks), dataset_of(ticks)])
    model, metric = Model(), Metric()
    watch_data(dataset, meter)
    meter.watch(metric, 'process', 'metric: Metric')
    with watched(model, meter, 'model: '):
        for index in (0, 3):
            run_item(dataset, index, lambda items: _collated(ticks, items), model, metric, meter)
    assert meter.rounds == [
        {
            'data: Load': 3, 'data: Pack': 4, 'data: dataset': 1, 'data: collate': 6,
            'model: colorer': 20, 'model: rest': 5, 'metric: Metric': 2, 'metric: evaluator': 0,
        }
    ] * 2  # fmt: skip


def _collated(ticks, items):
    ticks.spend(6)
    return {key: [item[key] for item in items] for key in items[0]}


@pytest.fixture
def run(run_tool):
    return partial(run_tool, 'analysis_tools/profile_evaluation.py')


def test_the_tool_on_a_tiny_config(tmp_path, run):
    out = tmp_path / 'profile.json'
    config = CONFIGS / 'genmask/genmask_sana_shapes_tiny.py'
    code, text, _ = run(
        config, '--num-items', 4, '--warmup', 1, '--json', out,
        '--cfg-options', 'test_dataloader.dataset.num_scenes=3',
    )  # fmt: skip
    assert code == 0
    found = json.loads(out.read_text())
    assert (found['items'], found['sizes']) == (4, dict(input=[64, 64], original=[64, 64]))
    assert found['phases'].keys() == {
        'data: TextPrompt', 'data: PackGenSegInputs', 'data: dataset', 'data: collate',
        'model: encode', 'model: prompt', 'model: denoise', 'model: decode', 'model: masks', 'model: rest',
        'metric: ReferringMetric', 'metric: evaluator', 'metric: at the end',
    }  # fmt: skip
    groups = found['groups']
    outside = groups['data'] + groups['metric']
    assert found['outside_model'] == pytest.approx(outside / (outside + groups['model']))
    assert 0 < found['outside_model'] < 1
    # The warm-up leaves nothing behind: the metric has seen each item once.
    assert 0 <= found['metrics']['oIoU'] <= 100
    assert f'outside of the model: {found["outside_model"]:.1%}' in text


def test_a_benchmark_of_a_suite(tmp_path, run):
    suite, out = tmp_path / 'suite.py', tmp_path / 'profile.json'
    suite.write_text(
        "dataset = dict(type='genseg_mm.ShapesDataset', num_scenes=2, image_size=(32, 48), task='instance',\n"
        "    split='test', test_mode=True,\n"
        "    pipeline=[dict(type='model_resize'), dict(type='genseg_mm.PackGenSegInputs')])\n"
        "evaluator = dict(type='genseg_mm.PointPromptMetric', threshold='reference', controls=False)\n"
        "suite = dict(name='mine', title='mine')\n"
        "benchmarks = dict(own=dict(task='points', title='own', protocol='one', dataset=dataset,\n"
        '    evaluator=evaluator))\n'
    )
    config = CONFIGS / 'benchmarks/control_position.py'
    code, text, _ = run(
        config, '--suite', suite, '--benchmark', 'own', '--json', out,
        '--suite-options', 'benchmarks.own.dataset.num_scenes=3',
    )  # fmt: skip
    assert code == 0
    found = json.loads(out.read_text())
    assert (found['benchmark'], found['items'], found['of']) == ('own', 3, 3)
    assert found['sizes'] == dict(input=[32, 48], original=[32, 48])
    assert f'{config} on own: 3 of 3 items, pictures of 32 x 48' in text


def test_wrong_input_is_told(tmp_path, run):
    config = CONFIGS / 'genmask/genmask_sana_shapes_tiny.py'
    code, _, errors = run(config, '--image-size', 32, 32)
    assert code == 2 and 'no Resize with a scale in the test pipeline' in errors
    code, _, errors = run(config, '--benchmark', 'dram')
    assert code == 2 and '--suite and --benchmark go together' in errors
    suite = tmp_path / 'suite.py'
    suite.write_text('suite = dict(name="mine")\nbenchmarks = dict()\n')
    code, _, errors = run(config, '--suite', suite, '--benchmark', 'dran')
    assert code == 2 and "suite.py has no benchmark 'dran', but none" in errors
    base = tmp_path / 'base.py'
    base.write_text('model = dict(type="genseg_mm.Gen2Seg")\n')
    code, _, errors = run(base)
    assert code == 2 and 'base.py has no test_dataloader, which an evaluation needs' in errors
