"""Plans of configs: what is read off them, knobs, the page; all full-size configs have known layouts and a plan."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from genseg_mm.planning.memory_plan import GB, Activations, Setup, Sizes, fits
from genseg_mm.planning.training_plan import TrainingPlan, page, picture_size, plan_training, setup_of, table

ROOT = Path(__file__).parents[2]


def test_released_parts_count_whole_in_their_precision():
    """Wan2.1 1.3B on Qwen2.5-VL-7B: by hand from the published numbers of parameters."""
    cfg = Config.fromfile(ROOT / 'configs/genmask/refcoco.py')
    plan = plan_training(cfg, 8)
    terms = plan.per_card()
    assert terms['weights'] / 4 == pytest.approx(1.42e9, rel=0.01)
    assert terms['optimizer'] == 2 * terms['weights'] and 'DDP buckets' not in terms  # gradients are views of them
    assert terms['frozen prompt_encoder'] / 2 == pytest.approx(7.7e9, rel=0.02)
    assert terms['frozen codec'] / 4 == pytest.approx(0.127e9, rel=0.01)
    assert plan.setup.batch * plan.setup.accumulation * 8 == 1024 and plan.size == (512, 512)
    assert plan.activations[False].of(8) > 5 * plan.activations[True].of(8)


def test_what_is_read_off_a_config():
    cfg = Config.fromfile(ROOT / 'configs/genmask/refcoco.py')
    assert setup_of(cfg, 16) == Setup(gpus=16, batch=8, accumulation=8, checkpointing=True)
    for sets, views in ((dict(find_unused_parameters=True), False), (dict(gradient_as_bucket_view=True), True)):
        cfg.model_wrapper_cfg = ConfigDict(type='MMDistributedDataParallel', **sets)
        assert setup_of(cfg, 16).views is views
    cfg.model_wrapper_cfg = None
    cached = ConfigDict(type='genseg_mm.CachedEncodings', folder='cache', what=['image', 'mask'])
    for dataset in cfg.train_dataloader.dataset.datasets:
        assert setup_of(cfg, 16).cached == ()
        dataset.pipeline.insert(0, cached)
    assert setup_of(cfg, 16).cached == ('codec',) and setup_of(cfg, 16).validates
    cfg.strategy = ConfigDict(type='genseg_mm.FSDP2Strategy', reduce_each_micro_batch=True)
    assert setup_of(cfg, 8).sharded and setup_of(cfg, 8).reduce_each_micro_batch
    with pytest.raises(ValueError, match=r'expected a multiple of 56 \(7 processes x'):
        setup_of(cfg, 7)
    cfg.train_dataloader.dataset = dict(type='Any', pipeline=[dict(type='Resize')])
    with pytest.raises(ValueError, match='expected a Resize or crop with a size'):
        picture_size(cfg)


def test_page_says_what_to_turn():
    sizes = Sizes(int(40 * GB), int(80 * GB), dict(codec=int(GB)), 0, 0, 0, 0)
    activations = {True: Activations(0, GB), False: Activations(0, 5 * GB)}
    plan = TrainingPlan(sizes, Setup(gpus=8, batch=8, accumulation=16), activations, (512, 512))
    text = page('x.py', plan, 80 * GB)
    assert 'does not fit: 121.0 GB too much' in text
    assert 'would fit: FSDP2' in text and 'reduce_each_micro_batch=True, batch 8 (28.1 GB)' in text
    assert 'x.py' in table({'a/x.py': plan}, 80 * GB) and '| no; FSDP2' in table({'x.py': plan}, 80 * GB)
    small = TrainingPlan(
        sizes._replace(trained=int(4 * GB), optimizer=int(8 * GB)), Setup(batch=2), activations, (8, 8)
    )
    assert 'fits; the largest batch per card would be 63' in page('x.py', small, 80 * GB)
    frozen = small.sizes._replace(frozen=dict(codec=int(70 * GB)))
    large = TrainingPlan(frozen, Setup(batch=2, validates=False), activations, (8, 8))
    assert 'would fit: encodings from a cache' in page('x.py', large, 80 * GB)
    assert sum(large.per_card(replace(large.setup, cached=('codec',))).values()) == 18 * GB
    assert fits(small.per_card(Setup(batch=63)), 80 * GB) and not fits(small.per_card(Setup(batch=64)), 80 * GB)


@pytest.mark.slow
def test_every_full_size_config_has_a_plan(monkeypatch, tmp_path, capsys):
    import plan

    paths = plan.trained_configs()
    assert len(paths) > 30
    monkeypatch.setattr(sys, 'argv', ['plan.py', '--all', '--gpus', '8', '--json', str(tmp_path / 'plans.json')])
    try:
        plan.main()
    except SystemExit as stopped:
        assert stopped.code == 1
    found = json.loads((tmp_path / 'plans.json').read_text())
    assert set(found) == set(paths)
    assert all(own['per_card']['weights'] and own['per_card']['activations'] for own in found.values())
    for path, own in found.items():  # what a config asks for fits the cards that its docstring names
        if own['setup']['sharded'] or path.endswith('_lora.py'):
            assert sum(own['per_card'].values()) < 80 * GB, path
    # Of the lines those of the table: whether MMEngine logs to stdout, too, depends on who has logged before.
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]) == 2 + len(paths)
