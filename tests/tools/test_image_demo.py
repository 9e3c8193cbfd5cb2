"""The demo on the command line, run in this process."""

import importlib.util
import json
import os
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from genseg_mm import launch
from genseg_mm.datasets import CocoInstanceDataset
from genseg_mm.datasets.transforms import LoadInstanceMap
from genseg_mm.files.videos import write_video
from genseg_mm.inferencers import GenSegInferencer

TOOL = Path(__file__).parents[2] / 'tools' / 'image_demo.py'
_spec = importlib.util.spec_from_file_location('image_demo', TOOL)
image_demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(image_demo)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that gives back the image, and two images of a red and a green rectangle."""
    colorer = dict(type='torch.nn.Conv2d', in_channels=3, out_channels=3, kernel_size=1, bias=False)
    model = dict(type='genseg_mm.Gen2Seg', colorer=colorer, normalize='none')
    model['prompting'] = dict(radius=20.0, sigma=0.001)
    Config(dict(model=model, default_scope='genseg_mm')).dump(tmp_path / 'config.py')
    torch.save({'colorer.weight': torch.eye(3).reshape(3, 3, 1, 1)}, tmp_path / 'weights.pth')
    (tmp_path / 'images').mkdir()
    for name, height in (('a', 12), ('b', 16)):
        image = np.zeros((height, 20, 3), np.uint8)
        image[2:8, 3:9] = 255, 0, 0
        image[4:10, 12:18] = 0, 255, 0
        Image.fromarray(image).save(tmp_path / 'images' / f'{name}.png')
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str, weights: bool = True) -> None:
    arguments = ['--weights', str(folder / 'weights.pth')] * weights
    command = [str(TOOL), *options, *arguments, '--device', 'cpu', '--out-dir', str(folder / 'out')]
    monkeypatch.setattr(sys, 'argv', command)
    launch.run_tool(image_demo.main)


def masks(folder: Path, name: str) -> list[np.ndarray]:
    saved = json.loads((folder / f'out/preds/{name}.json').read_text())
    return [coco_mask.decode(rle) for rle in saved['masks']]


def test_points_of_a_folder(monkeypatch, capsys, folder):
    inputs, config = str(folder / 'images'), str(folder / 'config.py')
    options = ['--points', '5,5', '14,6', '--batch-size', '2']
    run(monkeypatch, folder, inputs, config, *options)
    out = folder / 'out'
    assert f'images: 2, masks: 4, written to: {out}/vis, {out}/preds' in capsys.readouterr().out
    for name, height in (('a', 12), ('b', 16)):
        red, green = masks(folder, name)
        assert red.shape == (height, 20)
        assert (red.sum(), red[2:8, 3:9].sum()) == (36, 36)
        assert (green.sum(), green[4:10, 12:18].sum()) == (36, 36)
        assert np.asarray(Image.open(out / f'preds/{name}.png'))[5, 5].tolist() == [255, 0, 0]
        assert (out / f'vis/{name}.png').is_file()


def test_tiles(monkeypatch, folder):
    inputs, config = str(folder / 'images' / 'a.png'), str(folder / 'config.py')
    run(monkeypatch, folder, inputs, config, '--points', '5,5', '--tiles', '--no-save-vis')
    tiled = np.asarray(Image.open(folder / 'out/preds/a.png'))
    expected = GenSegInferencer(Config.fromfile(config), folder / 'weights.pth', device='cpu', tiles=True)
    expected = expected.set_image(inputs)
    assert np.abs(tiled - expected).max() <= 0.5
    run(monkeypatch, folder, inputs, config, '--points', '5,5', '--no-save-vis')
    assert (tiled != np.asarray(Image.open(folder / 'out/preds/a.png'))).any()


def test_points_of_both_kinds_on_one_image(monkeypatch, capsys, folder):
    inputs, config = str(folder / 'images' / 'a.png'), str(folder / 'config.py')
    options = ['--points', '5,5;14,6', '5,5;14,6,0', '14,6', '--no-save-vis']
    run(monkeypatch, folder, inputs, config, *options)
    both, red, green = masks(folder, 'a')
    assert (both.sum(), red.sum(), red[2:8, 3:9].sum()) == (72, 36, 36)
    assert (green.sum(), green[4:10, 12:18].sum()) == (36, 36)
    assert not (folder / 'out/vis').exists()
    assert capsys.readouterr().out.endswith(f'images: 1, masks: 3, written to: {folder}/out/preds\n')


def test_every_option_reaches_the_inferencer(monkeypatch, capsys, folder):
    seen = {}

    def stream(self, inputs, **options):
        seen.update(options, processing_size=self.model.processing_size, output=self.model.output)
        return iter([(dict(masks=[1, 2]), None), (None, None)])

    monkeypatch.setattr(GenSegInferencer, 'stream', stream)
    options = ['--boxes', '3,2,9,8', '--automatic', '--batch-size', '3', '--image-size', '24', '40', '--show']
    options += ['--processing-size', '16', '--output', 'picture', '--on-error', 'skip', '--no-save-pred']
    run(monkeypatch, folder, str(folder / 'images'), str(folder / 'config.py'), *options, '--no-save-vis')
    assert capsys.readouterr().out.endswith('images: 1, masks: 2, written to: nowhere\n')
    expected = dict(boxes=[[3, 2, 9, 8]], automatic=True, resume=False, batch_size=3, image_size=[24, 40], show=True)
    expected |= dict(force=False, return_vis=False, on_error='skip', no_save_vis=True, no_save_pred=True)
    expected |= dict(out_dir=str(folder / 'out'), processing_size=16, output='picture')
    assert seen == expected


def test_folders_of_any_depth_as_one_coco_file(monkeypatch, capsys, folder):
    """What is written is what pycocotools, our own reader and CVAT's format say it is."""
    (folder / 'images/deep/er').mkdir(parents=True)
    (folder / 'images/b.png').rename(folder / 'images/deep/er/a.png')
    inputs, config = str(folder / 'images'), str(folder / 'config.py')
    prompts = ['--points', '5,5', '14,6', '0,0']  # black: the background
    for ending in ('json', 'zip', 'xml'):
        run(monkeypatch, folder, inputs, config, *prompts, '--no-save-vis', '--out', str(folder / f'coco.{ending}'))
        assert capsys.readouterr().out.endswith(f'{folder}/out/preds, {folder}/coco.{ending}\n')
    coco = COCO(str(folder / 'coco.json'))
    assert [own['file_name'] for own in coco.loadImgs(coco.getImgIds())] == ['a.png', 'deep/er/a.png']
    for number, height in ((1, 12), (2, 16)):
        own = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        assert [one['area'] for one in own] == [36, 36, 20 * height - 72]
        assert own[0]['bbox'] == [3, 2, 6, 6] and 0.9 < own[0]['score'] <= 1
        assert coco.annToMask(own[1]).shape == (height, 20) and coco.annToMask(own[1])[4:10, 12:18].sum() == 36
    assert len(coco.loadRes(coco.dataset['annotations']).anns) == 6
    data = CocoInstanceDataset(ann_file=str(folder / 'coco.json'), data_prefix=dict(img=inputs))
    assert [len(item['instances']) for item in data] == [3, 3] and not data.dropped
    ids = LoadInstanceMap()(data[1])['gt_instance_map']
    assert (ids[4:10, 12:18] == ids[6, 14]).all() and len(np.unique(ids)) == 3
    with zipfile.ZipFile(folder / 'coco.zip') as archive:
        assert archive.namelist() == ['annotations/instances_default.json']
        assert json.loads(archive.read(archive.namelist()[0])) == json.loads((folder / 'coco.json').read_text())
    root = ElementTree.parse(folder / 'coco.xml').getroot()
    assert root.findtext('version') == '1.1' and root.findtext('meta/task/labels/label/name') == 'object'
    for node, number in zip(root.iter('image'), (1, 2), strict=True):
        for mask, own in zip(node.iter('mask'), coco.loadAnns(coco.getAnnIds(imgIds=[number])), strict=True):
            assert np.array_equal(mask_of_cvat(mask, int(node.get('height')), 20), coco.annToMask(own))


def mask_of_cvat(node: ElementTree.Element, height: int, width: int) -> np.ndarray:
    """Runs of background and mask in turn, within the box."""
    runs = [int(run) for run in node.get('rle').split(',')]
    left, top, across, down = (int(node.get(name)) for name in ('left', 'top', 'width', 'height'))
    inside = np.repeat(np.arange(len(runs)) % 2, runs)
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + down, left : left + across] = inside.reshape(down, across)
    return mask


def test_an_ended_run_over_a_folder_goes_on(monkeypatch, capsys, folder):
    inputs, config = str(folder / 'images'), str(folder / 'config.py')
    options = ['--points', '5,5', '14,6', '--out', str(folder / 'coco.json')]
    run(monkeypatch, folder, inputs, config, *options)
    whole = (folder / 'coco.json').read_bytes()
    seen, predict = [], GenSegInferencer._predict
    monkeypatch.setattr(
        GenSegInferencer, '_predict', lambda self, batch: seen.append(len(batch)) or predict(self, batch)
    )
    run(monkeypatch, folder, inputs, config, *options, '--resume')
    assert not seen and (folder / 'coco.json').read_bytes() == whole
    (folder / 'out/preds/b.json').write_text('{"half": ')
    run(monkeypatch, folder, inputs, config, *options, '--resume')
    assert seen == [1] and (folder / 'coco.json').read_bytes() == whole
    (folder / 'coco.json').write_text('{"images": [], "annotations": []}')  # not written by it
    for more in ([], ['--resume']):
        with pytest.raises(SystemExit):
            run(monkeypatch, folder, inputs, config, *options, *more)
        assert 'coco.json is there already: choose another name, or --force replaces it' in capsys.readouterr().err
    assert seen == [1]
    run(monkeypatch, folder, inputs, config, *options, '--resume', '--force')
    assert seen == [1] and (folder / 'coco.json').read_bytes() == whole
    run(monkeypatch, folder, inputs, config, '--points', '5,5', '14,7', '--resume')  # other prompts: anew
    assert seen == [1] * 3
    torch.save({'colorer.weight': torch.eye(3).flip(0).reshape(3, 3, 1, 1)}, folder / 'weights.pth')  # another model
    run(monkeypatch, folder, inputs, config, '--points', '5,5', '14,7', '--resume')
    assert seen == [1] * 5
    os.utime(folder / 'images/a.png')  # a newer picture
    run(monkeypatch, folder, inputs, config, '--points', '5,5', '14,7', '--resume')
    assert seen == [1] * 6
    time = (folder / 'images/a.png').stat().st_mtime
    os.utime(folder / 'images/a.png', (time, time - 1000))  # an older one, copied over it with its time
    run(monkeypatch, folder, inputs, config, '--points', '5,5', '14,7', '--resume')
    assert seen == [1] * 7


def test_a_video(monkeypatch, capsys, folder):
    frame = np.zeros((24, 32, 3), np.uint8)
    frame[4:12, 4:12] = 0, 0, 255
    write_video(folder / 'a.webm', [np.roll(frame, number, 1) for number in range(5)], 10)
    run(monkeypatch, folder, str(folder / 'a.webm'), str(folder / 'config.py'), '--points', '7,7', '--follow', '0.5')
    out = folder / 'out'
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith('frames: 5, masks: 5; from frame to frame: IoU of masks 0.')
    assert said.endswith(f'written to: {out}/vis, {out}/preds')
    saved = json.loads((out / 'preds/a.json').read_text())
    assert saved['follow'] == 0.5
    for number, one in enumerate(saved['frames']):
        assert 40 <= coco_mask.decode(one['masks'])[4:12, 4 + number : 12 + number].sum() <= 64  # VP8 is lossy
    for options, message in (
        (['--on-error', 'skip'], '--show, --no-save-pred, --on-error and --out are for images, but got a video'),
        (['--out', 'a.json'], '--on-error and --out are for images, but got a video'),
        (['--max-frames', '4'], 'expected at most 4 frames, but got 5; --max-frames allows more'),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, folder, str(folder / 'a.webm'), str(folder / 'config.py'), '--points', '7,7', *options)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, folder, str(folder / 'images'), str(folder / 'config.py'), '--query-frame', '2')
    assert '--query-frame is for videos, but got' in capsys.readouterr().err


def test_points_of_the_command_line():
    points, labels = image_demo.read_points(['1,2;3.5,4,0', '5,6,1'])
    assert points == [[[1, 2], [3.5, 4]], [[5, 6]]]
    assert labels == [[1, 0], [1]]


@pytest.mark.parametrize(
    ('inputs', 'model', 'options', 'message'),
    [
        ('images', 'config.py', ['--points', '5'], "--points: expected X,Y or X,Y,LABEL, in pixels, but got '5'"),
        ('images', 'config.py', ['--points', 'a,b'], "but got 'a,b'"),
        ('images', 'config.py', ['--points', '-5,4'], 'points: expected (x, y) inside the map of width 20'),
        ('images', 'config.py', ['--points', '5,14'], 'a.png: points: expected (x, y) inside the map of width 20'),
        ('images', 'config.py', ['--boxes', '1,2,3'], "--boxes: expected X0,Y0,X1,Y1, in pixels, but got '1,2,3'"),
        ('images', 'config.py', ['--texts', 'a dog'], 'but got texts, which GenMask takes'),
        ('images', 'none.py', [], 'none.py is neither the file of a config nor a model of genseg_mm'),
        ('none.png', 'config.py', [], 'none.png does not exist'),
        ('images', 'config.py', ['--out', 'a.csv'], '--out: expected a file that ends with .json (a COCO file)'),
        ('images', 'config.py', ['--resume', '--no-save-pred'], 'expected out_dir, saved predictions and no show'),
        ('config.py', 'config.py', [], 'cannot be decoded'),
    ],
)  # fmt: skip
def test_mistakes_take_one_line(monkeypatch, capsys, folder, inputs, model, options, message):
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, folder, str(folder / inputs), str(folder / model), *options)
    assert left.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith('error: ')
    assert message in error


def test_models_without_weights(monkeypatch, capsys, folder):
    for model, message in (
        (folder / 'config.py', 'config.py is a config: expected its trained --weights, but got none'),
        ('gen2seg_unet_shapes_tiny', 'gen2seg_unet_shapes_tiny is a config'),
        (folder, 'is not a released colorer'),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, folder, str(folder / 'images'), str(model), weights=False)
        assert message in capsys.readouterr().err
