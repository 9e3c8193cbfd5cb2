"""The parts of benchmark_training_step.py: nested phases, the switch, one run of a tiny config."""

import argparse
import runpy
from pathlib import Path

import pytest
from costs import PhaseMeter
from mmengine.config import ConfigDict
from tiny_released import UNET

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools/analysis_tools'
TOOL = runpy.run_path(str(TOOLS / 'benchmark_training_step.py'))


class Ticks:
    """A count that rises only by ``rise``."""

    def __init__(self) -> None:
        self.now = 0.0

    def rise(self, by: float) -> None:
        self.now += by


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def meter(ticks: Ticks) -> PhaseMeter:
    meter = PhaseMeter(lambda: ticks.now)
    meter.start_round()
    return meter


def test_inner_phases_are_taken_off_the_outer_ones(meter, ticks):
    with meter.phase('loss'):
        ticks.rise(1)
        with meter.phase('network'):
            ticks.rise(2)
            with meter.phase('encoder'):
                ticks.rise(4)
            with meter.phase('decoder'):
                ticks.rise(8)
            ticks.rise(16)
        ticks.rise(32)
    with meter.phase('network'):
        ticks.rise(64)
    assert meter.rounds == [dict(encoder=4.0, decoder=8.0, network=82.0, loss=33.0)]


def test_backward_is_split_at_the_marks(meter):
    marks = TOOL['BackwardMarks'](meter)
    marks.moments = dict(loss=3.0, decoder=10.0)
    marks.split(start=1.0, end=30.0)
    assert meter.rounds == [{'backward: loss': 2.0, 'backward: decoder': 7.0, 'backward': 20.0}]


def test_checkpointing_is_switched_whatever_the_config_says():
    for given in ({}, dict(gradient_checkpointing=True), dict(gradient_checkpointing=False)):
        model = ConfigDict(colorer=dict(type='x', **given))
        TOOL['set_checkpointing'](model, False)
        assert model.colorer == dict(type='x')
        TOOL['set_checkpointing'](model, True)
        assert model.colorer == dict(type='x', gradient_checkpointing=True)


def test_scenes_are_the_same_in_every_process():
    (one, other) = (next(TOOL['scenes']('16x24', 2, cells=4)) for _ in range(2))
    for key in ('inputs', 'data_samples'):
        assert len(one[key]) == 2
    for a, b in zip(one['data_samples'], other['data_samples'], strict=True):
        assert a.gt_instance_map.data.equal(b.gt_instance_map.data)
        assert a.gt_instance_map.data.unique().tolist() == [0, 1, 2, 3]
    assert one['inputs'][1].equal(other['inputs'][1])


def test_both_variants_of_a_tiny_sd2_start_with_the_same_loss(monkeypatch: pytest.MonkeyPatch):
    tiny = dict(
        unet=UNET,
        vae=dict(
            block_out_channels=(8, 8),
            down_block_types=('DownEncoderBlock2D',) * 2,
            up_block_types=('UpDecoderBlock2D',) * 2,
            norm_num_groups=4,
        ),
    )
    monkeypatch.setitem(TOOL['sd2_config'].__globals__, 'sd2_sizes', lambda: tiny)
    results = {}
    for variant in ('off', 'on'):
        args = argparse.Namespace(
            sd2=True, size='32x32', batch=None, variant=variant, device='cpu', threads=1,
            optimizer=None, cpu_time=True, warmup=1, iters=2,
        )  # fmt: skip
        results[variant] = TOOL['run_variant'](args)
    off, on = results.values()
    assert off['loss'] == on['loss']
    assert off['optimizer'] == 'SGD'
    assert off['trainable'] < off['parameters'] == on['parameters']
    phases = {
        *('data', 'preprocessor', 'encoder', 'network', 'decoder', 'loss', 'optimizer'),
        *('backward', 'backward: loss', 'backward: decoder'),
    }
    for result in results.values():
        assert [set(step) for step in result['steps']] == [phases] * 2
        assert result['peak'] >= result['built'] > 0
