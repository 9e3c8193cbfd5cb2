"""What the inferencer takes: images in all their forms, and prompts."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scenes import BLUE, GREEN_MASK, POINTS, RED, RED_MASK, SCENE, WHITE, bgr, inferencer, region, scene
from mmengine.structures import InstanceData
from PIL import Image

from genseg_mm.inference import images as jobs_module
from genseg_mm.models import Gen2Seg

# Images


def test_file_array_and_pil_give_the_same(tmp_path):
    Image.fromarray(SCENE).save(tmp_path / 'a.png')
    opened = Image.open(tmp_path / 'a.png')
    images = [str(tmp_path / 'a.png'), tmp_path / 'a.png', opened, Image.fromarray(SCENE), bgr(SCENE)]
    expected = inferencer()(bgr(SCENE), points=POINTS)['predictions'][0]
    for image in images:
        (prediction,) = inferencer()(image, points=POINTS)['predictions']
        assert np.array_equal(prediction['color_map'], expected['color_map'])
        assert np.array_equal(prediction['masks'], expected['masks'])


def test_grey_and_alpha(tmp_path):
    infer = inferencer()
    grey = scene(8, 10, (2, 2, 5, 6, WHITE))[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    for image in (grey, grey[..., None], Image.fromarray(grey), Image.fromarray(grey).convert('1')):
        color_map = infer(image)['predictions'][0]['color_map']
        assert np.abs(color_map - expected).max() < 1e-3
    rgba = np.dstack([SCENE, np.full((20, 30), 128, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / 'a.png')
    bgra = np.dstack([bgr(SCENE), rgba[..., 3]])
    for image in (tmp_path / 'a.png', Image.fromarray(rgba), bgra):
        assert np.abs(infer(image)['predictions'][0]['color_map'] - SCENE).max() < 1e-3


def test_exif_turns_files_and_pil_images(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = tmp_path / 'turned.png'
    Image.fromarray(SCENE).save(path, exif=exif)
    turned = np.rot90(SCENE, -1)
    for image in (path, Image.open(path)):
        color_map = inferencer()(image)['predictions'][0]['color_map']
        assert color_map.shape == (30, 20, 3)
        assert np.abs(color_map - turned).max() < 1e-3


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (SCENE / 255.0, r'must be uint8 in \[0, 255\], but got float64 with values from 0 to 1:'),
        (SCENE.astype(np.float32), 'but got float32 with values from 0 to 255:'),
        (SCENE > 0, 'must be uint8 .* but got bool: scale'),
        (np.zeros((2, 3, 4, 5), np.uint8), r'must be an array .* but got \(2, 3, 4, 5\)'),
        (np.zeros((4, 5, 2), np.uint8), r'but got \(4, 5, 2\)'),
        (np.zeros((0, 5, 3), np.uint8), r'but got \(0, 5, 3\)'),
        (Image.new('I;16', (4, 4)), "8 bits per channel, but got PIL mode 'I;16'"),
        (torch.zeros(3, 4, 4), 'the image must be a path, a NumPy array .* but got Tensor'),
        (7, 'but got int'),
        ([], 'at least one image, but got an empty list'),
        ([SCENE, None], 'image 1 of the list must be a path, .* but got NoneType'),
        ('https://a.b/c.jpg', 'local file or folder, but got the address https://a.b/c.jpg'),
    ],
)
def test_what_is_no_image(image: object, message: str):
    with pytest.raises(ValueError, match=message):
        inferencer()(image)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'image .*none\.jpg does not exist'):
        inferencer()(tmp_path / 'none.jpg')
    Image.fromarray(SCENE).save(tmp_path / 'cut.png')
    data = (tmp_path / 'cut.png').read_bytes()
    (tmp_path / 'cut.png').write_bytes(data[:60])
    with pytest.raises(ValueError, match=r'image .*cut\.png is cut short \(60 bytes'):
        inferencer()(tmp_path / 'cut.png')
    with pytest.raises(ValueError, match=r'image .*cut\.png cannot be decoded'):
        inferencer()(Image.open(tmp_path / 'cut.png'))
    with pytest.raises(ValueError, match='image 1 of the list must be an image, but got the folder'):
        inferencer()([SCENE, tmp_path])


def test_skipped_images_are_announced_and_counted(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(jobs_module, 'print_log', lambda text, _, level: logged.append((level, text)))
    for name in 'ac':
        Image.fromarray(SCENE).save(tmp_path / f'{name}.png')
    (tmp_path / 'b.jpg').write_bytes(b'no picture')
    points, options = POINTS, dict(on_error='skip', out_dir=tmp_path / 'out', return_vis=True)
    result = inferencer()(tmp_path, points=points, **options)
    assert [one is None for one in result['predictions']] == [False, True, False]
    assert [one is None for one in result['visualization']] == [False, True, False]
    assert np.array_equal(result['predictions'][2]['masks'], [RED_MASK, GREEN_MASK])
    assert [level for level, _ in logged] == [logging.WARNING] * 2
    assert 'Skipped: image ' in logged[0][1] and 'b.jpg cannot be decoded' in logged[0][1]
    assert logged[1][1] == '1 of 3 images were skipped, since they could not be read.'
    assert sorted(path.name for path in (tmp_path / 'out/vis').iterdir()) == ['a.png', 'c.png']
    with pytest.raises(ValueError, match=r'b\.jpg cannot be decoded'):
        inferencer()(tmp_path, points=points)
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', but got 'ignore'"):
        inferencer()(tmp_path, on_error='ignore')


def test_folders(tmp_path):
    with pytest.raises(ValueError, match='holds no image file'):
        inferencer()(tmp_path)
    for name, width in (('b.png', 7), ('a.bmp', 5), ('c.PNG', 9)):
        Image.fromarray(scene(4, width, (0, 0, 2, 2, RED))).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / 'inner').mkdir()
    for _ in range(2):  # the second time its own results are there
        predictions = inferencer()(str(tmp_path), out_dir=str(tmp_path))['predictions']
        assert [one['color_map'].shape[1] for one in predictions] == [5, 7, 9]
        assert len(list((tmp_path / 'vis').glob('*.png'))) == 3


def test_files_of_a_folder_that_are_left_out_are_counted(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(jobs_module, 'print_log', lambda text, *_: said.append(text))
    for name in ('a.png', 'b.avif', 'c.jp2'):
        Image.fromarray(SCENE).save(tmp_path / name)
    for name in ('d.heic', 'e.HEIC', 'f.mp4', 'readme', '.hidden'):
        (tmp_path / name).touch()
    sources, _ = jobs_module.list_sources(tmp_path)
    assert [Path(source.path).name for source in sources] == ['a.png', 'b.avif', 'c.jp2']
    assert [jobs_module.read_image(source).shape for source in sources] == [SCENE.shape] * 3
    assert len(said) == 2 and 'left out 1 videos' in said[0]
    assert 'left out 3 files' in said[1] and said[1].endswith(': .heic 2, no ending 1')


def test_a_folder_below_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    Image.fromarray(SCENE).save(tmp_path / 'a.png')
    (tmp_path / 'locked').mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == 'locked':
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(PermissionError, match='locked'):
        inferencer()(str(tmp_path))


# Prompts


@pytest.mark.parametrize(
    ('prompts', 'message'),
    [
        (dict(points=[[30, 5]]), r'width 30 and height 20, but got \(30.0, 5.0\) in prompt 0'),
        (dict(points=[[5, 5], [5, -0.6]]), r'but got \(5.0, -0.6\) in prompt 1'),
        (dict(points=[5, 6]), r'but got \(2,\); a single point is \[\[x, y\]\]'),
        (dict(points=[5, 6], point_labels=[1, 1]), r'but got \(2,\); a single point is \[\[x, y\]\]'),
        (dict(points=[[1, 2, 3]]), r'points: expected \(K, 2\) or \(K, P, 2\) .* as \(x, y\), but got'),
        (dict(points=[[[1, 2]], [[1, 2], [30, 4]]]), r'but got \(30.0, 4.0\) in prompt 1'),
        (dict(points=[[1, 2], [1, 2, 3]]), r'expected \(P, 2\) in each prompt, .* but got \(2,\)'),
        (
            dict(points=[[[1, 2]], [[1, 2], [3, 4]]], point_labels=[1, [1]]),
            r'expected \[1, 2\] in the prompts, one per point, but got \[1, 1\]',
        ),
        (dict(points=[[float('nan'), 2]]), 'expected finite numbers'),
        (dict(points='ab'), 'the image: points: expected numbers'),
        (dict(points=3), r'but got \(\)'),
        (dict(point_labels=[1]), 'the image: point_labels: expected none without points'),
        (dict(points=POINTS, point_labels=[1]), r'expected \(2, 1\), one per point, but got \(1, 1\)'),
        (
            dict(points=POINTS, point_labels=[1, 2]),
            r'expected 1 \(positive\), 0 \(negative\) or -1 .* but got \[1.0, 2.0\]',
        ),
        (dict(points=POINTS, point_labels=[1, 0]), 'the image: .*prompt 1'),
        (dict(boxes=[1, 2, 3, 4]), r'but got \(4,\); a single box is'),
        (dict(boxes=[[5, 5, 5, 9]]), r'x0 < x1 and y0 < y1, but prompt 0 has \[5.0, 5.0, 5.0, 9.0\]'),
        (dict(boxes=[[30, 5, 40, 9]]), r'pixel of the map of width 30 .* but prompt 0 has \[30.0, 5.0, '),
        (dict(points=POINTS, boxes=[[0, 0, 9, 9]]), r'boxes: expected \(2, 4\) xyxy, .* but got \(1, 4\)'),
        (dict(texts='the red square'), 'Gen2Seg takes points, boxes or no prompt, but got texts'),
        (dict(prompting=dict(radius=-1.0)), None),
        (dict(points=torch.tensor([[1.0, 25.0]], dtype=torch.bfloat16)), r'but got \(1.0, 25.0\)'),
    ],
)
def test_wrong_prompts(prompts: dict, message: str | None):
    if message is None:
        prompts, message = dict(prompts, points=POINTS), 'the image: radius: expected a positive'
    with pytest.raises(ValueError, match=message):
        inferencer()(bgr(SCENE), **prompts)


def test_points_of_every_kind_of_number_mean_the_same():
    infer = inferencer()
    given = np.array(POINTS)
    expected = infer(bgr(SCENE), points=POINTS)['predictions'][0]['masks']
    assert expected.sum() > 0
    tensors = [torch.tensor(given, dtype=own) for own in (torch.int64, torch.float16, torch.bfloat16)]
    infer.set_image(bgr(SCENE))
    for points in (given, given.astype(np.uint8), tuple(map(tuple, POINTS)), *tensors):
        assert np.array_equal(infer(bgr(SCENE), points=points)['predictions'][0]['masks'], expected)
        assert np.array_equal(infer.prompt(points=points)['masks'], expected)
    for wrong in (3, 'yes', dict(least=1)):
        with pytest.raises(ValueError, match='automatic: expected settings'):
            infer.prompt(automatic=wrong)


def test_prompts_of_lists(tmp_path):
    path = tmp_path / 'small.png'
    Image.fromarray(scene(6, 6, (0, 0, 3, 3, BLUE))).save(path)
    first, second = inferencer()([bgr(SCENE), path], points=[None, [[1, 1]]])['predictions']
    assert first['masks'].shape == (0, 20, 30)
    assert np.array_equal(second['masks'], [region(6, 6, 0, 0, 3, 3)])
    with pytest.raises(ValueError, match='points: expected one list .* 2 images of the list, but got 1'):
        inferencer()([bgr(SCENE), path], points=[POINTS])
    with pytest.raises(ValueError, match=r'image .*small\.png: points: expected .* inside .* but got \(5.0, 6.0\)'):
        inferencer()([bgr(SCENE), path], points=[POINTS, POINTS])
    with pytest.raises(ValueError, match='image 0 of the list: points: .* one such list per image'):
        inferencer()([bgr(SCENE)], points=[[5, 6]])
    with pytest.raises(ValueError, match=r"unknown argument \{'colour'\}"):
        inferencer()(bgr(SCENE), colour=3)


def test_automatic_instances_are_for_images_without_prompts(monkeypatch):
    calls = []

    def automatic_instances(self, colors, **settings):
        calls.append((tuple(colors.shape), settings))
        masks = torch.zeros(1, *colors.shape[1:], dtype=torch.bool)
        masks[0, 3:5, 2:4] = True
        boxes = torch.tensor([[2.0, 3, 4, 5]])
        labels = torch.zeros(1, dtype=torch.long)
        return InstanceData(masks=masks, scores=torch.tensor([0.25]), labels=labels, bboxes=boxes)

    monkeypatch.setattr(Gen2Seg, 'automatic_instances', automatic_instances)
    infer = inferencer()
    images = [bgr(SCENE), bgr(SCENE)]
    first, second = infer(images, points=[POINTS, None], automatic=dict(min_area=4))['predictions']
    assert calls == [((3, 20, 30), dict(min_area=4))]
    assert np.array_equal(first['masks'], [RED_MASK, GREEN_MASK])
    assert np.array_equal(second['masks'], [region(20, 30, 2, 3, 4, 5)])
    assert second['scores'].tolist() == [0.25]
    infer(bgr(SCENE), automatic=False)
    assert len(calls) == 1
    infer(bgr(SCENE), automatic=True)
    infer(bgr(SCENE), automatic={})
    assert calls[1:] == [((3, 20, 30), {})] * 2
    infer.set_image(bgr(SCENE))
    assert infer.prompt(automatic=True)['bboxes'].tolist() == [[2, 3, 4, 5]]
    infer, calls[:] = inferencer(automatic=True), []  # the model's own setting
    assert len(infer(bgr(SCENE))['predictions'][0]['masks']) == len(calls) == 1
    assert len(infer(bgr(SCENE), automatic=False)['predictions'][0]['masks']) == 0
    assert len(infer(bgr(SCENE), points=POINTS)['predictions'][0]['masks']) == 2
    assert len(calls) == 1


def test_automatic_instances_of_the_model():
    (prediction,) = inferencer()(bgr(SCENE), automatic=True)['predictions']
    small = region(20, 30, 20, 17, 24, 20)
    found = {mask.tobytes() for mask in prediction['masks']}
    assert {mask.tobytes() for mask in (RED_MASK & ~small, GREEN_MASK)} <= found
    assert found <= {mask.tobytes() for mask in (RED_MASK & ~small, GREEN_MASK, small)}
    assert (np.diff(prediction['scores']) <= 0).all()


def test_set_image_then_prompts():
    infer = inferencer()
    with pytest.raises(ValueError, match='call set_image before'):
        infer.prompt(points=POINTS)
    assert np.abs(infer.set_image(bgr(SCENE)) - SCENE).max() < 1e-3
    for point, mask in zip(POINTS, (RED_MASK, GREEN_MASK), strict=True):
        assert np.array_equal(infer.prompt(points=[point])['masks'], [mask])
    both = infer.prompt(points=[POINTS], point_labels=[[1, 0]], radius=300.0)
    assert np.array_equal(both['masks'], [~GREEN_MASK])
    assert len(infer.model.colorer.seen) == 1  # the network ran once
    assert infer.set_image(bgr(SCENE), image_size=(10, 15)).shape == (20, 30, 3)
    assert infer.model.colorer.seen[1:] == [(1, 3, 10, 15)]
    infer.set_image(bgr(SCENE))
    for prompts in ({}, dict(points=POINTS, automatic=True)):
        with pytest.raises(ValueError, match='either points or boxes, or automatic'):
            infer.prompt(**prompts)
    with pytest.raises(ValueError, match='the image: points: expected .* inside'):
        infer.prompt(points=[[50, 1]])
    with pytest.raises(ValueError, match='takes one image .* but got a list'):
        infer.set_image([SCENE])
    with pytest.raises(ValueError, match='call set_image before'):  # the wrong one is not kept
        infer.prompt(points=POINTS)
