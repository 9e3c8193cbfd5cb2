"""``a='auto'`` of the long-tail law: what a training gets, keeps and is refused."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from genseg_mm.functional.mask_leak import MaskLeak, long_tail_width
from genseg_mm.launch import auto_timesteps, build_runner
from genseg_mm.models.timestep_samplers import LongTailTimesteps

CONFIG = Path(__file__).parents[2] / 'configs/genmask/genmask_sana_shapes_tiny.py'


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """Config of a training whose law is measured on few masks."""
    monkeypatch.setattr(auto_timesteps, 'NUM_MASKS', 90)
    monkeypatch.setattr(auto_timesteps.training_leak, '__defaults__', (None, 90))
    cfg = Config.fromfile(CONFIG)
    cfg.model.mask_head.timesteps.mask.update(a='auto')
    cfg.update(work_dir=str(tmp_path), launcher='none')
    return cfg


def law_of(cfg):
    return cfg.model.mask_head.timesteps.mask


def test_a_training_has_a_number_in_its_model_its_config_and_its_log(cfg, tmp_path):
    runner = build_runner(cfg, restarts=True)
    found = json.loads((tmp_path / 'mask_leak.json').read_text())
    leak = MaskLeak(found['distances'], found['iou'], found['floor'])
    assert 0.005 < leak.first_distance() == found['distance'] < 0.1
    a = long_tail_width(found['distance'], 0.01)
    assert found['a'] == law_of(cfg).a == runner.model.mask_head.timesteps.samplers['mask'].a == a
    assert f'a={a}' in (tmp_path / CONFIG.name).read_text()  # the config that is dumped, which checkpoints hold, too
    log = next(tmp_path.glob('*/*.log')).read_text()
    line = next(line for line in log.splitlines() if "a='auto'" in line and 'a = ' in line)
    assert f'a = {a:g}, so that at most 0.01 of the masks' in line and '90 training masks, 64x64' in line


def test_it_is_read_where_a_training_goes_on_and_measured_for_another_share(cfg, tmp_path, monkeypatch):
    measured = []
    leak = MaskLeak((0.01, 0.1), (0.2, 0.6), 0.2)
    monkeypatch.setattr(auto_timesteps, 'training_leak', lambda *_, **__: measured.append(1) or (leak, 'made up'))
    assert '(made up)' in auto_timesteps.resolve_auto_timesteps(cfg)
    assert law_of(cfg).a == 0.0012  # 0.0126 / 9.95, down
    law_of(cfg).a = 'auto'
    assert f'read from {tmp_path}' in auto_timesteps.resolve_auto_timesteps(cfg) and law_of(cfg).a == 0.0012
    assert auto_timesteps.resolve_auto_timesteps(cfg) is None and len(measured) == 1
    law_of(cfg).update(a='auto', leaked_share=0.2)
    auto_timesteps.resolve_auto_timesteps(cfg)
    assert law_of(cfg).a == 0.0062 and len(measured) == 2  # 0.0126 / 2, down


def test_masks_are_those_of_the_training(cfg):
    masks = auto_timesteps.training_masks(cfg, 40)
    assert masks.shape == (40, 64, 64) and masks.flatten(1).any(1).all()
    assert masks.equal(auto_timesteps.training_masks(cfg, 40))
    parts = cfg.train_dataloader.dataset.datasets
    cfg.train_dataloader.dataset.datasets = [dict(parts[0], image_size=96), parts[0], parts[1]]
    with pytest.raises(ValueError, match=r'of one size .*\(64, 64\), \(96, 96\)'):
        auto_timesteps.training_masks(cfg, 6)
    cfg.train_dataloader.dataset.datasets = [parts[1]]
    with pytest.raises(ValueError, match='expected training masks .* but got none'):
        auto_timesteps.training_masks(cfg, 6)


def test_what_cannot_be_told_is_said(cfg):
    cfg.model.start = 'image'
    with pytest.raises(ValueError, match="model.start='image': give a number for a"):
        auto_timesteps.resolve_auto_timesteps(cfg)
    del cfg.model['codec']
    with pytest.raises(ValueError, match='needs model.codec, but got none; give a number for a'):
        auto_timesteps.resolve_auto_timesteps(cfg)
    sampler = LongTailTimesteps('auto')  # a model can be built with it, to predict
    with pytest.raises(ValueError, match="a='auto', which tools/train.py resolves"):
        sampler(3)
    for wrong in ('automatic', 0):
        with pytest.raises(ValueError, match=f"a must be positive or 'auto', but got {wrong!r}"):
            LongTailTimesteps(wrong)
    with pytest.raises(ValueError, match=r'leaked_share must lie in \(0, 1\), but got 1'):
        LongTailTimesteps('auto', leaked_share=1)
