"""Every block of docs/recipes.md does what the page says; what needs a package that is missing is skipped."""

import http.client
import importlib.util
import json
import re
import runpy
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import numpy as np
import pytest
from code_blocks import RECIPES, ROOT, CodeBlock, code_blocks
from made_files import make_street
from mmengine.config import Config
from PIL import Image
from pycocotools.coco import COCO
from shell_commands import make_place
from short_runs import small_data

from genseg_mm.datasets import CocoInstanceDataset, ShapesDataset
from genseg_mm.label_studio import read_label_config

BLOCKS = code_blocks(RECIPES)
SHORT = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1', 'log_level=WARNING']


def block_with(text: str) -> CodeBlock:
    (found,) = (block for block in BLOCKS if text in block.source)
    return found


def missing(package: str) -> str:
    return '' if importlib.util.find_spec(package) else f'needs {package}: pip install {package}'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a reader."""
    monkeypatch.chdir(make_place(tmp_path, ROOT))
    monkeypatch.setenv('GENSEG_DATA', 'data')
    (tmp_path / 'photos/deep').mkdir(parents=True)
    scenes = ShapesDataset(num_scenes=2, task='instance', split='test')
    for number, name in enumerate(('a.png', 'deep/b.png')):
        Image.fromarray(scenes.scene(number).image[..., ::-1]).save(tmp_path / 'photos' / name)
    return tmp_path


def run_line(line: str, *more: str) -> None:
    """A command of the page, in this process."""
    words = shlex.split(line)
    argv, sys.argv = sys.argv, [*words[1:], *more]
    try:
        runpy.run_path(str(ROOT / words[1]), run_name='__main__')
    finally:
        sys.argv = argv


def test_every_block_is_run_by_a_test():
    source = Path(__file__).read_text()
    tested = re.findall(r"block_with\('([^']+)'\)", source)
    assert {block_with(text).line for text in tested} == {block.line for block in BLOCKS} and len(BLOCKS) == 7


@pytest.mark.skipif(bool(missing('supervision')), reason=missing('supervision'))
def test_supervision(place):
    truth = make_street(place / 'street.jpg')
    namespace = {}
    exec(block_with('import supervision').source, namespace)
    detections, picture = namespace['detections'], namespace['picture']
    assert detections.data['class_name'].tolist() == ['first', 'second'] and detections.class_id.tolist() == [0, 1]
    assert np.array_equal(detections.mask, namespace['prediction']['masks'])
    assert ((detections.mask & truth).sum((1, 2)) / (detections.mask | truth).sum((1, 2)) > 0.6).all()
    assert detections.xyxy.shape == (2, 4) and (detections.confidence > 0).all()
    shown = np.asarray(Image.open(place / 'street.jpg'))[..., ::-1]
    assert (picture != shown)[detections.mask.any(0)].mean() > 0.5


def test_without_supervision_the_error_says_what_to_type(monkeypatch):
    from genseg_mm.inference.annotation_exports import to_supervision

    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(ImportError, match=r"pip install 'genseg_mm\[supervision\]'"):
        to_supervision(dict(masks=np.zeros((0, 2, 2)), scores=[], bboxes=[]))


@pytest.mark.skipif(bool(missing('fiftyone')), reason=missing('fiftyone'))
def test_fiftyone(place, monkeypatch):
    """Without a database there is no dataset: what ``apply_model`` gives the model is given here."""
    monkeypatch.setenv('HOME', str(place))
    import fiftyone as fo
    import fiftyone.zoo as foz

    monkeypatch.setattr(fo.config, 'model_zoo_dir', str(place / 'zoo'))
    (place / 'zoo').mkdir()
    copied = []

    def register(source: str) -> None:
        import shutil

        copied.append(source)
        shutil.copytree(ROOT / 'tools/fiftyone_zoo', place / 'zoo/genseg_models')

    class Dataset:
        def apply_model(self, model, label_field):
            self.found = {label_field: model.predict(np.asarray(Image.open(place / 'photos/a.png')))}

    monkeypatch.setattr(foz, 'register_zoo_model_source', register)
    namespace = dict(source='https://localhost/fiftyone_zoo.zip', dataset=Dataset())
    exec(block_with('foz.load_zoo_model').source, namespace)
    assert copied == [namespace['source']]
    assert all(own.confidence > 0 for own in namespace['dataset'].found['instances'].detections)


def test_the_interface_of_label_studio_is_understood():
    config = read_label_config(block_with('<View>').source)
    assert config == ('brush', 'image', 'image', ('Object',))


@pytest.mark.slow
def test_label_studio(place):
    words = shlex.split(block_with('label_studio_backend.py').source)
    words[words.index('--port') + 1] = '9'  # replaced below by a free one
    code = (
        'import sys, runpy, genseg_mm.label_studio as own\n'
        'made = own.make_server\n'
        'own.make_server = lambda backend, host, port: made(backend, host, 0)\n'
        f'sys.argv = {words[1:]!r}\n'
        f'runpy.run_path({str(ROOT / words[1])!r}, run_name="__main__")\n'
    )
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, cwd=place) as process:
        try:
            line = next(line for line in process.stdout if 'answers Label Studio at' in line)
            host, port = re.search(r'http://([\d.]+):(\d+)', line).groups()
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            connection.request('GET', '/health')
            assert json.loads(connection.getresponse().read())['status'] == 'UP' and host == '127.0.0.1'
        finally:
            process.terminate()
    assert process.returncode == 143


def test_cvat_and_coco(place):
    for line in block_with('--out coco.json').source.splitlines():
        run_line(line, '--device', 'cpu')
    coco = COCO('coco.json')
    assert [own['file_name'] for own in coco.dataset['images']] == ['a.png', 'deep/b.png'] and len(coco.anns) > 2
    data = CocoInstanceDataset(ann_file='coco.json', data_prefix=dict(img='photos'))
    assert sum(len(item['instances']) for item in data) + data.dropped.total() == len(coco.anns)
    with zipfile.ZipFile('cvat.zip') as archive:
        assert json.loads(archive.read('annotations/instances_default.json')) == json.loads(
            Path('coco.json').read_text()
        )
    assert len(list(ElementTree.parse('cvat.xml').iter('mask'))) == len(coco.anns)


@pytest.mark.slow
@pytest.mark.skipif(bool(missing('tensorboard')), reason=missing('tensorboard'))
def test_tensorboard(place):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    few = small_data(Config.fromfile(ROOT / 'configs/gen2seg/gen2seg_unet_shapes_tiny.py'))
    run_line(block_with('tools/train.py').source, *SHORT, *few)
    (events,) = place.rglob('events.out.tfevents.*')
    read = EventAccumulator(str(events.parent)).Reload()
    losses = read.Scalars('loss')
    assert [own.step for own in losses] == [1, 2] and all(own.value > 0 for own in losses)


@pytest.mark.slow
def test_the_config_of_backends(place, monkeypatch):
    """Each backend whose package is here gets what a training logs."""
    monkeypatch.setenv('WANDB_SILENT', 'true')
    (place / 'own.py').write_text(block_with('# config').source)
    cfg = Config.fromfile('own.py')
    packages = dict(TensorboardVisBackend='tensorboard', MLflowVisBackend='mlflow', WandbVisBackend='wandb')
    wanted = cfg.visualizer.vis_backends
    assert [own.type for own in wanted] == ['LocalVisBackend', *packages]
    here = [own for own in wanted if own.type not in packages or not missing(packages[own.type])]
    cfg.visualizer.vis_backends = here
    cfg.dump('own.py')
    run_line('python tools/train.py own.py --cfg-options', *SHORT, *small_data(cfg))
    types = {own.type for own in here}
    (scalars,) = Path('work_dirs').rglob('vis_data/scalars.json')  # MLflow has copies
    logged = [json.loads(line)['loss'] for line in scalars.read_text().splitlines() if '"loss"' in line]
    assert len(logged) == 2
    if 'MLflowVisBackend' in types:
        import mlflow

        client = mlflow.MlflowClient('sqlite:///mlflow.db')
        (run,) = client.search_runs([client.get_experiment_by_name('gen2seg').experiment_id])
        assert [own.value for own in client.get_metric_history(run.info.run_id, 'loss')] == pytest.approx(logged)
    if 'WandbVisBackend' in types:
        assert next(place.rglob('offline-run-*/run-*.wandb')).stat().st_size > 500
    if types == {'LocalVisBackend'}:
        pytest.skip('; '.join(missing(package) for package in packages.values()))
