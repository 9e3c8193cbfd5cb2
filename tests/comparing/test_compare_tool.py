"""tools/analysis_tools/compare.py and its gallery, with the shipped GenMask beside one of noisy weights."""

import json
import os
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from safetensors.torch import load_file, save_file

from genseg_mm.benchmarking.examples import predicted_items
from genseg_mm.checkpoint import weights_sha256
from genseg_mm.comparing.compared_models import ComparedModel
from genseg_mm.comparing.report import _check_picture, only_instance, pictures_of
from genseg_mm.config_file import read_config_file
from genseg_mm.evaluation import SampleResults
from genseg_mm.inference.build_model import build_model
from genseg_mm.leaderboard.markdown import escaped
from genseg_mm.leaderboard.record import Record

ROOT = Path(__file__).parents[2]
MODEL = ROOT / 'configs' / 'genmask' / 'genmask_sana_shapes_long_tiny.py'
WEIGHTS = ROOT / 'genseg_mm' / 'weights' / 'genmask_sana_shapes.safetensors'
TOOL = ROOT / 'tools' / 'analysis_tools' / 'compare.py'


def record_of(title: str, checkpoint: Path, items: int, protocol: str) -> Record:
    text = dict.fromkeys(('sha256', 'fingerprint', 'key', 'device', 'hardware', 'command'), 'x')
    return Record(
        model=dict(
            name=title, title=title, kind='model', config='c.py', config_sha256='0' * 64,
            checkpoint=str(checkpoint), checkpoint_sha256=weights_sha256(str(checkpoint)), num_parameters=1,
        ),
        benchmark=dict(
            suite='tiny', name='shapes', title='Scenes', task='referring', protocol=protocol, sha256='0' * 64,
            tolerance=0.05,
        ),
        metrics=dict(oIoU=50.0),
        dataset=dict(
            type='ShapesDataset', items=items, expected=None, difference=None, incomplete=None, fingerprint='f'
        ),
        run=dict(
            text, seed=0, started='2026-01-01T00:00:00+00:00', seconds=1.0, processes=1, batch_size=1, one_by_one=True,
            seconds_per_item=dict(model=0.1, data=0.1, metric=0.1), threads=1, packages={}, commit=None,
        ),
        examples=[],
    )  # fmt: skip


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Two folders as tools/benchmark.py writes them: of the shipped weights, and of the same with noise."""
    root = tmp_path_factory.mktemp('runs')
    state, noise = load_file(WEIGHTS), torch.Generator().manual_seed(0)
    for value in state.values():
        if value.is_floating_point() and value.numel() > 1:
            value += 0.1 * value.std() * torch.randn(value.shape, generator=noise)
    save_file(state, root / 'noisy.safetensors')
    own = read_config_file(MODEL)
    data = dict(own.test_dataloader.dataset, num_scenes=3)
    for name, weights in (('shipped', WEIGHTS), ('noisy', root / 'noisy.safetensors')):
        folder = root / name
        folder.mkdir()
        cfg = Config(dict(default_scope='genseg_mm', model=own.model, test_dataloader=dict(dataset=data)))
        cfg.dump(folder / 'config.py')
        model = build_model(cfg, weights, 'cpu')
        with DefaultScope.overwrite_default_scope('genseg_mm'):
            dataset = DATASETS.build(data)
            file = str(folder / 'samples.npz')
            metric = METRICS.build(dict(type='genseg_mm.ReferringMetric', per_kind=True, sample_file=file))
        metric.process({}, [sample for _, sample in predicted_items(model, dataset, range(len(dataset)))])
        metric.evaluate(len(dataset))
        record_of(name, weights, len(dataset), 'LAVT').write(folder / 'result.json')
    return root


@pytest.fixture
def run_tool(monkeypatch, capsys):
    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_report_and_gallery(runs, run_tool, tmp_path):
    code, out, _ = run_tool(runs / 'noisy', runs / 'shipped', '--out', tmp_path, '--number', 2, '--resamples', 200)
    assert code == 0
    rows = [SampleResults.load(runs / name / 'samples.npz') for name in ('noisy', 'shipped')]
    gain = rows[1].values['iou'] - rows[0].values['iou']
    assert 'A = noisy on Scenes\nB = shipped on Scenes\n' in out
    counts = (int((gain > 0).sum()), int((gain < 0).sum()), int((gain == 0).sum()))
    assert 'B is better on {}, worse on {}, equal on {}'.format(*counts) in out
    assert 'By kind' in out
    numbers = json.loads((tmp_path / 'comparison.json').read_text())
    overall = numbers['overall']['differences'][0]
    assert overall['b'] - overall['a'] == pytest.approx(overall['difference'])
    assert overall['a'] == rows[0].metric('oIoU') and overall['b'] == rows[1].metric('oIoU')
    report = (tmp_path / 'report.md').read_text()
    assert '![Largest gains of B](gains.jpg)' in report and '](both.jpg)' in report
    best = escaped(rows[0].items[int(gain.argmax())])
    assert report.index(best) > report.index('Largest gains of B')
    picture = np.asarray(Image.open(tmp_path / 'gains.jpg'))
    assert picture.shape[1] == 4 * 224 + 5 * 4  # image, ground truth, A, B
    panels = [picture[19:243, 4 + 228 * place : 228 * (place + 1)] for place in range(4)]
    red = [((own[..., 0].astype(int) - own[..., 2]) > 60).mean() for own in panels[1:]]
    assert red[0] > 0  # the mask is drawn


def test_predictions_are_those_that_were_measured(runs):
    side = ComparedModel.read(runs / 'shipped')
    again = METRICS.build(dict(type='genseg_mm.ReferringMetric'))
    for _, sample in side.predictions([4, 1]):
        again.process({}, [sample])
    rows = side.samples.take([4, 1])
    assert [own.item for own in again.results] == rows.items
    assert [own.intersection for own in again.results] == rows.values['intersection'].tolist()
    assert [own.predicted for own in again.results] == rows.values['predicted'].tolist()


def test_files_of_samples_with_models_named(runs, run_tool, tmp_path):
    files = []
    for name in ('shipped', 'noisy'):
        files.append(tmp_path / f'{name}.npz')
        SampleResults.load(runs / name / 'samples.npz').save(files[-1])
    code, _out, err = run_tool(*files, '--resamples', 20, '--out', tmp_path / 'a')
    assert code == 0 and 'name a model and its data: give CONFIG:CHECKPOINT' in err
    assert 'has no example pictures' in (tmp_path / 'a' / 'report.md').read_text()
    config = runs / 'shipped' / 'config.py'
    models = [f'{config}:{WEIGHTS}', f'{config}:{runs / "noisy.safetensors"}']
    code, _, err = run_tool(
        *files, '--resamples', 20, '--out', tmp_path / 'b', '--model-a', models[0], '--model-b', models[1],
        '--number', 1,
    )  # fmt: skip
    assert code == 0 and 'cannot be drawn' not in err
    assert sorted(os.listdir(tmp_path / 'b')) == [
        'both.jpg', 'comparison.json', 'gains.jpg', 'losses.jpg', 'report.md',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('item', 'is_its'),
    [
        ('portrait.jpg#id 3', True), ('val/portrait.jpg', True), ('portrait.jpg (2)#id 3', True),
        ('manet/portrait', True), ('manet/portrait (2)#id 3', True),
        ('other.jpg#id 3', False), ('monet/portrait#id 3', False), ('', False),
    ],
)  # fmt: skip
def test_an_item_of_another_picture_is_seen(item, is_its):
    """Pictures of one name in several folders are called by their ``img_id``."""
    sample = SegDataSample(metainfo=dict(img_path='/data/manet/portrait.jpg', img_id='manet/portrait'))
    with nullcontext() if is_its else pytest.raises(ValueError, match='is of the picture portrait.jpg now'):
        _check_picture(sample, item, SimpleNamespace(name='A'))


def test_json_on_the_screen_and_by_items(runs, run_tool):
    code, out, _ = run_tool(runs / 'noisy', runs / 'noisy', '--json', '-', '--by', 'item', '--resamples', 50)
    numbers = json.loads(out)
    assert (code, numbers['settings']['by']) == (0, 'item')
    assert [own['difference'] for own in numbers['overall']['differences'][:2]] == [0.0, 0.0]
    assert [own['high'] for own in numbers['overall']['differences'][:2]] == [0.0, 0.0]


def test_changed_weights_fall_back_to_the_examples_and_say_so(runs, run_tool, tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    for name in ('samples.npz', 'config.py'):
        (folder / name).write_bytes((runs / 'shipped' / name).read_bytes())
    record = Record.read(runs / 'shipped' / 'result.json')
    record.model['checkpoint_sha256'] = '1' * 64
    record.examples.append(dict(kind='best', file='examples/best_1.jpg', caption='a *b*', score=0.9))
    record.write(folder / 'result.json')
    (folder / 'examples').mkdir()
    Image.new('RGB', (4, 4)).save(folder / 'examples' / 'best_1.jpg')
    code, _, err = run_tool(folder, runs / 'noisy', '--out', tmp_path / 'o', '--resamples', 20)
    assert code == 0 and 'is not what shipped on Scenes was measured with' in err
    report = (tmp_path / 'o' / 'report.md').read_text()
    assert 'best: a \\*b\\*\n\n![best](A_best_1.jpg)' in report and 'B has no example' in report
    assert (tmp_path / 'o' / 'A_best_1.jpg').is_file()


def test_only_pictures_of_the_record_itself_are_copied(tmp_path):
    """A result.json may come from somebody else."""
    folder = tmp_path / 'run'
    (folder / 'examples').mkdir(parents=True)
    for name in ('examples/best_1.jpg', 'examples/notes.txt', '../secret.jpg'):
        (folder / name).write_bytes(b'x')
    names = ('../secret.jpg', '/etc/passwd', 'examples/notes.txt', 'a\0b.jpg', 'examples/best_1.jpg')
    record = Record(
        model={}, benchmark={}, metrics={}, dataset={}, run={}, folder=folder,
        examples=[dict(kind='best', file=name, caption='', score=None) for name in names],
    )  # fmt: skip
    assert [(own['file'], path) for own, path in pictures_of(record)] == [
        ('examples/best_1.jpg', folder / 'examples/best_1.jpg')
    ]
    assert record.file('../secret.jpg') is None and record.file('a\0b.jpg') is None
    assert pictures_of(None) == []


def test_mistakes_are_named(runs, run_tool, tmp_path):
    for arguments, message in (
        ((runs, runs / 'noisy'), 'expected samples.npz of one model on one benchmark in it, but there is none; it has'),
        ((tmp_path / 'none', runs / 'noisy'), 'expected the sample results'),
        ((runs / 'noisy', runs / 'noisy', '--number', 0), 'expected an integer from 1 to 4294967295, but got 0'),
        ((runs / 'noisy', runs / 'noisy', '--confidence', 2), 'confidence must lie in (0, 1)'),
    ):  # fmt: skip
        code, _, err = run_tool(*arguments)
        assert code == 2 and err.startswith('error: ') and message in err, err
    record = Record.read(runs / 'noisy' / 'result.json')
    record.dataset['fingerprint'] = 'g'
    record.write(tmp_path / 'result.json')
    (tmp_path / 'samples.npz').write_bytes((runs / 'noisy' / 'samples.npz').read_bytes())
    code, out, err = run_tool(runs / 'noisy', tmp_path, '--resamples', 5)
    assert code == 0 and 'the files of the two datasets are not the same' in err
    record.benchmark['protocol'] = 'LISA'
    (tmp_path / 'other').mkdir()
    record.write(tmp_path / 'other' / 'result.json')
    part = SampleResults.load(runs / 'noisy' / 'samples.npz')
    part.take(range(len(part) - 2)).save(tmp_path / 'other' / 'samples.npz')
    code, _, err = run_tool(runs / 'shipped', tmp_path / 'other')
    assert code == 2 and "different protocols, which cannot be compared: 'LAVT' and 'LISA'" in err
    os.remove(tmp_path / 'other' / 'result.json')
    code, _, err = run_tool(runs / 'shipped', tmp_path / 'other')
    assert code == 2 and f'the items differ: 2 of {len(part)} items of' in err
    code, out, _ = run_tool(runs / 'shipped', tmp_path / 'other', '--common', '--resamples', 10)
    assert code == 0 and f'note: 2 of {len(part)} items of' in out


def test_only_the_instance_of_an_item_is_drawn():
    sample = SegDataSample()
    ids = torch.tensor([[[0, 1, 1], [2, 2, 3]]])
    sample.gt_instance_map = PixelData(data=ids)
    sample.pred_instances = InstanceData(masks=torch.stack([ids[0] == own for own in (1, 2, 3)]))
    sample.set_metainfo(dict(point_ids=[1, 2, 3], point_keys=[501, 502, 503], points=np.arange(6.0).reshape(3, 1, 2)))
    shown = only_instance(sample, 'val/a.jpg#id 502 deepest')
    assert shown.gt_instance_map.data.tolist() == [[[0, 0, 0], [2, 2, 0]]]
    assert shown.pred_instances.masks.tolist() == [(ids[0] == 2).tolist()]
    assert shown.get('points').tolist() == [[[2.0, 3.0]]] and shown.get('point_ids').tolist() == [2]
    assert sample.gt_instance_map.data.max() == 3  # the original is as it was
    assert only_instance(sample, 'val/a.jpg#sent 502') is sample
