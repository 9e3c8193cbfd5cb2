"""tools/analysis_tools/measure_text_to_image.py on a tiny bank, run like a user would."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genseg_mm.datasets.object_bank import CutOut, write_bank
from genseg_mm.models.picture_classifier import PictureClassifier

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = ['{root}/configs/genmask/genmask_sana_objects_tiny.py']
model = dict(
    prompt_encoder=dict(encoder=dict(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)),
    backbone=dict(transformer=dict(num_layers=1, caption_channels=16)),
    generation=dict(num_steps=2))
train_dataloader = dict(dataset=dict(_delete_=True, type='genseg_mm.ObjectScenesDataset', task='{task}', bank='{bank}'))
"""


@pytest.fixture
def config(tmp_path):
    pictures = {
        name: np.full((16, 16, 4), (*color, 255), np.uint8)
        for name, color in dict(apple=(250, 20, 20), leaf=(20, 250, 20), whale=(20, 20, 250)).items()
    }
    write_bank(tmp_path / 'bank', [CutOut(name, '', '', (), own) for name, own in pictures.items()], 'drawn')

    def write(task: str = 'text_to_image') -> Path:
        path = tmp_path / 'own.py'
        path.write_text(CONFIG.format(root=ROOT, task=task, bank=tmp_path / 'bank'))
        return path

    return write


def run(monkeypatch, *args: object) -> None:
    monkeypatch.setattr(sys, 'argv', ['measure_text_to_image.py', *map(str, args)])
    runpy.run_path(str(ROOT / 'tools/analysis_tools/measure_text_to_image.py'))['main']()


def test_report_of_drawn_and_generated_pictures(config, tmp_path, monkeypatch, capsys):
    path, out = config(), tmp_path / 'out'
    fit = ['--updates', 16, '--num-test', 40, '--classifier', tmp_path / 'names', '--out-dir', out]
    run(monkeypatch, path, '--fit-only', *fit)
    assert json.loads((out / 'report.json').read_text())['drawn']['top 1'] > 90
    before = (tmp_path / 'names').read_bytes()
    assert PictureClassifier.load(tmp_path / 'names').names == ('apple', 'leaf', 'whale')

    torch.manual_seed(0)
    from genseg_mm.inference.build_model import build_model, read_config

    with pytest.warns(UserWarning, match='no weights were given'):
        model = build_model(read_config(path)[0], None, 'cpu')
    torch.save(model.state_dict(), tmp_path / 'random.pth')
    run(monkeypatch, path, tmp_path / 'random.pth', '--num', 9, '--num-shown', 4, *fit)
    report = json.loads((out / 'report.json').read_text())
    assert (tmp_path / 'names').read_bytes() == before  # frozen, and read again
    assert report['drawn, through the codec']['top 1'] > 90
    # Velocity 0 of an untrained model draws one noise for all: one name of three is right, and among five are all.
    assert report['generated'] == {'top 1': pytest.approx(100 / 3, abs=25), 'top 5': 100.0, 'pictures': 9}
    assert Image.open(out / 'generated.png').size[0] > 4 * 192
    assert 'generated: top 1' in capsys.readouterr().out


def test_what_is_refused(config, tmp_path, monkeypatch, capsys):
    path = config('referring')
    with pytest.raises(ValueError, match="expected an ObjectScenesDataset with task='text_to_image'"):
        run(monkeypatch, path, '--fit-only', '--out-dir', tmp_path / 'out')
    with pytest.raises(SystemExit):
        run(monkeypatch, path)
    assert 'CHECKPOINT is missing' in capsys.readouterr().err
