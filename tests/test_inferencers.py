"""Inference on maps that are known: the colorer gives back the image, so every mask is known by hand."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from genseg_mm.inference import jobs as jobs_module
from genseg_mm.inference.jobs import run_in_order
from genseg_mm.inferencers import GenSegInferencer, inference_model, init_model
from genseg_mm.models import Gen2Seg, GenMask
from genseg_mm.models.color_scale import stretch_colors

sys.path.append(str(Path(__file__).parent / 'models'))  # pytest adds it only with the tests in it
from tiny_models import genmask_config  # noqa: E402
from tiny_released import make_mae_folder, make_sd_folder  # noqa: E402

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CONV = dict(type='torch.nn.Conv2d', in_channels=3, out_channels=3, kernel_size=1, bias=False)
PROMPTING = dict(radius=20.0, sigma=0.001)


class Recorder(nn.Module):
    """Gives back the image, and remembers the batches that it saw."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.seen = stride, []

    def preferred_size(self, height: int, width: int) -> tuple[int, int]:
        return height // self.stride * self.stride, width // self.stride * self.stride

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape))
        return images


def inferencer(stride: int = 1, **settings: object) -> GenSegInferencer:
    model = Gen2Seg(
        dict(type='torch.nn.Identity'), normalize='none', prompting=PROMPTING, **settings
    )
    model.colorer = Recorder(stride)
    return GenSegInferencer(model, show_progress=False)


def scene(height: int, width: int, *squares: tuple) -> np.ndarray:
    """RGB: black, with (x0, y0, x1, y1, colour) rectangles."""
    image = np.zeros((height, width, 3), np.uint8)
    for x0, y0, x1, y1, color in squares:
        image[y0:y1, x0:x1] = color
    return image


def bgr(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., ::-1].copy()


def region(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


SCENE = scene(20, 30, (2, 3, 9, 12, RED), (15, 5, 28, 16, GREEN), (20, 17, 24, 20, RED))
POINTS = [[5, 6], [20, 10]]
RED_MASK = region(20, 30, 2, 3, 9, 12) | region(20, 30, 20, 17, 24, 20)
GREEN_MASK = region(20, 30, 15, 5, 28, 16)


def test_colors_masks_scores_and_boxes_by_hand():
    result = inferencer()(bgr(SCENE), points=POINTS)
    (prediction,) = result['predictions']
    assert prediction['color_map'].dtype == np.float32
    assert np.abs(prediction['color_map'] - SCENE).max() < 1e-3
    assert prediction['masks'].dtype == bool
    assert np.array_equal(prediction['masks'], [RED_MASK, GREEN_MASK])
    assert prediction['scores'] == pytest.approx([1, 1], abs=1e-3)  # flat colours
    assert prediction['bboxes'].tolist() == [[2, 3, 24, 20], [15, 5, 28, 16]]


def test_without_prompts_there_are_no_masks():
    (prediction,) = inferencer()(bgr(SCENE))['predictions']
    assert prediction['masks'].shape == (0, 20, 30)
    assert prediction['scores'].tolist() == prediction['bboxes'].tolist() == []
    assert np.abs(prediction['color_map'] - SCENE).max() < 1e-3
    (nothing,) = inferencer()(bgr(SCENE), points=[])['predictions']
    assert nothing['masks'].shape == (0, 20, 30)


def test_several_points_labels_and_settings_of_prompting():
    infer = inferencer()
    (union,) = infer(bgr(SCENE), points=[[[5, 6], [20, 10]]])['predictions']
    assert np.array_equal(union['masks'], [RED_MASK | GREEN_MASK])
    (without,) = infer(bgr(SCENE), points=[[[5, 6], [20, 10]]], point_labels=[[1, 0]])[
        'predictions'
    ]
    assert np.array_equal(without['masks'], [RED_MASK])
    # Red, green and black are 255 apart, red and green 361.
    (wide,) = infer(bgr(SCENE), points=[[5, 6]], prompting=dict(radius=256.0))['predictions']
    assert np.array_equal(wide['masks'], [~GREEN_MASK])


def test_prompts_of_different_numbers_of_points():
    points = [[[5, 6]], [[20, 10], [6, 4]], [[20, 10], [5, 6]]]
    result = inferencer()(bgr(SCENE), points=points, point_labels=[[1], [1, 1], [1, 0]])
    (prediction,) = result['predictions']
    assert np.array_equal(prediction['masks'], [RED_MASK, RED_MASK | GREEN_MASK, GREEN_MASK])
    labels = [[1, -1]]  # where the second is no point, it may lie anywhere
    (one,) = inferencer()(bgr(SCENE), points=[[[5, 6], [99, 99]]], point_labels=labels)[
        'predictions'
    ]
    assert np.array_equal(one['masks'], [RED_MASK])
    (positive,) = inferencer()(bgr(SCENE), points=points[:2])['predictions']
    assert np.array_equal(positive['masks'], [RED_MASK, RED_MASK | GREEN_MASK])


def test_boxes():
    infer = inferencer()
    boxes = [[1, 2, 10, 13], [14, 4, 29, 10]]
    (alone,) = infer(bgr(SCENE), boxes=boxes)['predictions']
    expected = [region(20, 30, 2, 3, 9, 12), region(20, 30, 15, 5, 28, 10)]
    assert np.array_equal(alone['masks'], expected)
    (both,) = infer(bgr(SCENE), points=POINTS, boxes=boxes[::-1])['predictions']
    assert both['masks'].sum() == 0  # red in the box of green, and the other way round
    assert np.array_equal(
        infer(bgr(SCENE), points=POINTS, boxes=boxes)['predictions'][0]['masks'], expected
    )
    infer.set_image(bgr(SCENE))
    assert np.array_equal(infer.prompt(boxes=boxes)['masks'], expected)


# Images


def test_file_array_and_pil_give_the_same(tmp_path):
    Image.fromarray(SCENE).save(tmp_path / 'a.png')
    opened = Image.open(tmp_path / 'a.png')
    images = [
        str(tmp_path / 'a.png'),
        tmp_path / 'a.png',
        opened,
        Image.fromarray(SCENE),
        bgr(SCENE),
    ]
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
    'image, message',
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
    with pytest.raises(
        ValueError, match='image 1 of the list must be an image, but got the folder'
    ):
        inferencer()([SCENE, tmp_path])


def test_skipped_images_are_announced_and_counted(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(
        jobs_module, 'print_log', lambda text, _, level: logged.append((level, text))
    )
    for name in 'ac':
        Image.fromarray(SCENE).save(tmp_path / f'{name}.png')
    (tmp_path / 'b.jpg').write_bytes(b'no picture')
    points = [POINTS] * 3
    result = inferencer()(tmp_path, points=points, on_error='skip', out_dir=tmp_path / 'out')
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
    predictions = inferencer()(str(tmp_path))['predictions']
    assert [one['color_map'].shape[1] for one in predictions] == [5, 7, 9]


# Batches and sizes


def mixed() -> tuple[list, list, list]:
    """Images of three sizes in turn; a different square in each, its prompt and its mask."""
    images, points, masks = [], [], []
    for number in range(8):
        height, width = ((12, 16), (10, 14), (16, 12))[number % 3]
        box = number, 1, number + 3, 5 + number // 2
        images.append(bgr(scene(height, width, (*box, RED), (0, height - 1, 1, height, WHITE))))
        points.append([[number + 1, 2]])
        masks.append(region(height, width, *box))
    return images, points, masks


def test_order_and_batches():
    images, points, masks = mixed()
    results = {}
    for batch_size in (1, 2, 3, 100):
        infer = inferencer()
        results[batch_size] = infer(images, points=points, batch_size=batch_size)['predictions']
        for prediction, mask in zip(results[batch_size], masks, strict=True):
            assert np.array_equal(prediction['masks'], [mask])
        sizes = [shape[0] for shape in infer.model.colorer.seen]
        assert sum(sizes) == 8
        assert max(sizes) == min(batch_size, 3)
    for one, three in zip(results[1], results[3], strict=True):
        assert list(one) == ['color_map', 'masks', 'scores', 'bboxes']
        for key in one:
            assert np.array_equal(one[key], three[key])
    assert infer.model.colorer.seen == [(3, 3, 12, 16), (3, 3, 10, 14), (2, 3, 16, 12)]


def test_few_images_wait_where_all_sizes_differ():
    read = []

    def jobs():
        for number in range(30):
            read.append(number)
            yield jobs_module.Job(None, None, np.zeros((1, 1, 3), np.uint8))

    def pack(job):
        yield dict(inputs=torch.zeros(3, 1, len(read)))  # a size of its own

    def run(batch):
        for job, _ in batch:
            job.outputs.append(None)

    ahead = []
    for done, _ in enumerate(run_in_order(jobs(), pack, run, 2), start=1):
        ahead.append(len(read) - done)
    assert len(ahead) == 30
    assert max(ahead) == 8  # four batches


def test_stream_gives_results_before_all_images_are_read(tmp_path):
    Image.fromarray(SCENE).save(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_bytes(b'broken')
    stream = inferencer().stream(tmp_path, points=[POINTS, None])
    prediction, picture = next(stream)
    assert np.array_equal(prediction['masks'], [RED_MASK, GREEN_MASK])
    assert picture.dtype == np.uint8
    with pytest.raises(ValueError, match=r'b\.png'):
        next(stream)


def test_size_of_the_network():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (21, 34, 3)).astype(np.uint8)
    infer = inferencer(stride=8)
    (prediction,) = infer(bgr(image))['predictions']
    assert infer.model.colorer.seen == [(1, 3, 16, 32)]
    small = Image.fromarray(image).resize((32, 16), Image.Resampling.BILINEAR)
    small = torch.tensor(np.asarray(small)).permute(2, 0, 1).float()
    expected = F.interpolate(stretch_colors(small)[None], size=(21, 34), mode='bilinear')[0]
    assert np.abs(prediction['color_map'] - expected.permute(1, 2, 0).numpy()).max() < 1e-3
    infer(image, image_size=(24, 40))
    infer([image, image[:9]], image_size=24, batch_size=2)
    assert infer.model.colorer.seen[1:] == [(1, 3, 24, 40), (2, 3, 24, 24)]
    for wrong in (0, (8, 8, 8), (8.0, 8), 'big'):
        with pytest.raises(ValueError, match=r'image_size must be \(height, width\) or one number'):
            infer(image, image_size=wrong)
    with pytest.raises(ValueError, match='batch_size must be a whole number .* but got 0'):
        infer(image, batch_size=0)


def test_resize_of_the_config_goes_before_the_wish_of_the_colorer():
    resize = dict(type='mmcv.Resize', scale=(20, 10), keep_ratio=False)
    pipeline = [dict(type='LoadImage'), resize, dict(type='LoadInstanceMap')]
    dataset = dict(type='ConcatDataset', datasets=[dict(type='A', pipeline=pipeline)])
    model = inferencer().model
    model.cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    infer = GenSegInferencer(model, show_progress=False)
    (prediction,) = infer(bgr(SCENE), points=POINTS)['predictions']
    assert infer.model.colorer.seen == [(1, 3, 10, 20)]
    assert prediction['masks'].shape == (2, 20, 30)
    assert prediction['masks'][:, 6, 5].tolist() == [True, False]
    infer(bgr(SCENE), image_size=16)
    assert infer.model.colorer.seen[1:] == [(1, 3, 16, 16)]


# Prompts


@pytest.mark.parametrize(
    'prompts, message',
    [
        (dict(points=[[30, 5]]), r'width 30 and height 20, but got \(30.0, 5.0\) in prompt 0'),
        (dict(points=[[5, 5], [5, -0.6]]), r'but got \(5.0, -0.6\) in prompt 1'),
        (dict(points=[5, 6]), r'but got \(2,\); a single point is \[\[x, y\]\]'),
        (
            dict(points=[[1, 2, 3]]),
            r'points: expected \(K, 2\) or \(K, P, 2\) as \(x, y\), but got',
        ),
        (dict(points=[[[1, 2]], [[1, 2], [30, 4]]]), r'but got \(30.0, 4.0\) in prompt 1'),
        (dict(points=[[1, 2], [1, 2, 3]]), r'expected \(P, 2\) in each prompt, .* but got \(2,\)'),
        (
            dict(points=[[[1, 2]], [[1, 2], [3, 4]]], point_labels=[1, [1]]),
            r'expected \[1, 2\] in the prompts, one per point, but got \[1, 1\]',
        ),
        (dict(points=[[float('nan'), 2]]), 'expected finite numbers'),
        (dict(points='ab'), 'the image: points: expected numbers'),
        (dict(points=3), r'but got \(\)'),
        (dict(point_labels=[1]), 'point_labels need points'),
        (dict(points=POINTS, point_labels=[1]), r'one per point, \(2, 1\), but got \(1, 1\)'),
        (dict(points=POINTS, point_labels=[1, 2]), r'expected 1, 0 or -1, but got \[1.0, 2.0\]'),
        (dict(points=POINTS, point_labels=[1, 0]), 'the image: .*prompt 1'),
        (dict(boxes=[1, 2, 3, 4]), r'but got \(4,\); a single box is'),
        (dict(boxes=[[5, 5, 5, 9]]), r'x0 < x1 and y0 < y1, but got \(5.0, 5.0, 5.0, 9.0\)'),
        (dict(boxes=[[30, 5, 40, 9]]), r'overlap the image of width 30 .* but got \(30.0, 5.0, '),
        (dict(points=POINTS, boxes=[[0, 0, 9, 9]]), 'as many of each, but got 2 and 1'),
        (dict(texts='the red square'), 'Gen2Seg takes points, boxes or no prompt, but got texts'),
        (dict(prompting=dict(radius=-1.0)), None),
    ],
)
def test_wrong_prompts(prompts: dict, message: str | None):
    if message is None:
        prompts, message = dict(prompts, points=POINTS), 'the image: radius: expected a positive'
    with pytest.raises(ValueError, match=message):
        inferencer()(bgr(SCENE), **prompts)


def test_prompts_of_lists(tmp_path):
    path = tmp_path / 'small.png'
    Image.fromarray(scene(6, 6, (0, 0, 3, 3, BLUE))).save(path)
    first, second = inferencer()([bgr(SCENE), path], points=[None, [[1, 1]]])['predictions']
    assert first['masks'].shape == (0, 20, 30)
    assert np.array_equal(second['masks'], [region(6, 6, 0, 0, 3, 3)])
    with pytest.raises(
        ValueError, match='points: expected one list .* 2 images of the list, but got 1'
    ):
        inferencer()([bgr(SCENE), path], points=[POINTS])
    with pytest.raises(
        ValueError, match=r'image .*small\.png: expected points .* but got \(5.0, 6.0\)'
    ):
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
    first, second = infer(images, points=[POINTS, None], automatic=dict(size=4))['predictions']
    assert calls == [((3, 20, 30), dict(size=4))]
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
    for prompts in ({}, dict(points=POINTS, automatic=True)):
        with pytest.raises(ValueError, match='either points or boxes, or automatic'):
            infer.prompt(**prompts)
    with pytest.raises(ValueError, match='the image: expected points'):
        infer.prompt(points=[[50, 1]])
    with pytest.raises(ValueError, match='takes one image .* but got a list'):
        infer.set_image([SCENE])
    with pytest.raises(ValueError, match='call set_image before'):  # the wrong one is not kept
        infer.prompt(points=POINTS)


# Results


def test_files_hold_what_was_returned(tmp_path):
    (tmp_path / 'other').mkdir()
    paths = [tmp_path / 'a.png', tmp_path / 'other/a.png', tmp_path / 'a_2.png']
    for path in paths:
        Image.fromarray(SCENE).save(path)
    images = [*paths, bgr(SCENE)]
    out = tmp_path / 'out'
    result = inferencer()(images, points=[POINTS, [[20, 10]], None, POINTS], out_dir=out)
    stems = ['a', 'a_2', 'a_2_2', '00000003']  # none is written over another
    for stem, prediction, picture in zip(stems, *result.values(), strict=True):
        saved = json.loads((out / f'preds/{stem}.json').read_text())
        masks = [coco_mask.decode(rle) == 1 for rle in saved['masks']]
        assert np.array_equal(np.reshape(masks, prediction['masks'].shape), prediction['masks'])
        assert saved['scores'] == prediction['scores'].tolist()
        assert saved['bboxes'] == prediction['bboxes'].tolist()
        assert (saved['height'], saved['width']) == (20, 30)
        assert np.array_equal(np.asarray(Image.open(out / f'preds/{stem}.png')), SCENE)
        assert np.array_equal(np.asarray(Image.open(out / f'vis/{stem}.png')), picture)
    assert saved['prompts'] == dict(points=[[[5, 6]], [[20, 10]]])
    assert saved['image'] == ''
    assert json.loads((out / 'preds/a_2.json').read_text())['image'] == str(paths[1])


def test_what_is_not_wanted_is_not_made(tmp_path):
    infer = inferencer()
    result = infer(bgr(SCENE), out_dir=tmp_path / 'a', no_save_vis=True, return_vis=False)
    assert result['visualization'] is None
    assert sorted(path.name for path in tmp_path.rglob('*')) == [
        '00000000.json', '00000000.png', 'a', 'preds',
    ]  # fmt: skip
    ((_, picture),) = infer.stream(
        bgr(SCENE), out_dir=tmp_path / 'b', no_save_pred=True, return_vis=False
    )
    assert picture is None
    assert [path.name for path in (tmp_path / 'b').rglob('*.*')] == ['00000000.png']
    assert [path.name for path in (tmp_path / 'b').iterdir()] == ['vis']


def test_picture():
    infer = inferencer()
    (picture,) = infer(bgr(SCENE), points=POINTS)['visualization']
    zoom = 9  # the first whole number that makes 30 pixels 256 or more
    top, left, gap = 19, 4, 4  # line of titles and border of the table
    at = lambda x, y, panel=0: picture[  # noqa: E731
        top + y * zoom + zoom // 2, left + panel * (30 * zoom + gap) + x * zoom + zoom // 2
    ].tolist()
    assert at(20, 10, panel=1) == [0, 255, 0]
    assert at(0, 0, panel=1) == [0, 0, 0]
    assert at(20, 10) == [77, 129, 255]  # the second prompt's dot
    assert at(16, 8) == [42, 185, 140]  # 0.45 green + 0.55 of the second colour
    assert at(0, 19) == [0, 0, 0]
    assert picture.shape[1] == 2 * 30 * zoom + 3 * gap


def test_show_needs_a_display(monkeypatch):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, 'platform', 'linux')
    with pytest.raises(ValueError, match='show needs a display, and there is none; use out_dir'):
        inferencer()(bgr(SCENE), show=True)


def test_data_samples():
    (sample,) = inferencer()(bgr(SCENE), points=POINTS, return_datasamples=True)['predictions']
    assert isinstance(sample, SegDataSample)
    assert torch.equal(sample.pred_instances.masks, torch.tensor(np.stack([RED_MASK, GREEN_MASK])))
    assert sample.pred_instances.labels.tolist() == [0, 0]
    assert sample.pred_color_map.data[:, 6, 5].round().tolist() == [255, 0, 0]
    assert sample.metainfo == dict(img_path='', ori_shape=(20, 30))


def test_broken_weights():
    model = Gen2Seg({**CONV, 'bias': True}, prompting=PROMPTING)
    nn.init.constant_(model.colorer.bias, float('nan'))
    with pytest.raises(ValueError, match='the image: the colour map has NaN or infinity'):
        GenSegInferencer(model)(bgr(SCENE))


# Models


def config(**colorer: object) -> dict:
    model = dict(type='genseg_mm.Gen2Seg', colorer={**CONV, **colorer}, normalize='none')
    return dict(model=dict(model, prompting=PROMPTING), default_scope='genseg_mm')


def swapped_state() -> dict:
    """Weights that swap red and blue."""
    return {'colorer.weight': torch.eye(3).flip(0).reshape(3, 3, 1, 1)}


@pytest.mark.parametrize('form', ['checkpoint', 'state', 'ddp', 'safetensors'])
def test_config_and_weights(tmp_path, form: str):
    path = tmp_path / 'weights.pth'
    state = swapped_state()
    if form == 'checkpoint':
        torch.save(dict(state_dict=state, meta=dict(iter=3)), path)
    elif form == 'safetensors':
        path = tmp_path / 'weights.safetensors'
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        prefix = 'module.' if form == 'ddp' else ''
        torch.save({prefix + key: value for key, value in state.items()}, path)
    file = tmp_path / 'config.py'
    Config(config()).dump(file)
    for source in (file, str(file), config(), Config(config())):
        infer = GenSegInferencer(source, str(path), device='cpu')
        (prediction,) = infer(bgr(SCENE), points=POINTS)['predictions']
        assert np.abs(prediction['color_map'] - SCENE[..., ::-1]).max() < 1e-3
        assert np.array_equal(prediction['masks'], [RED_MASK, GREEN_MASK])
    model = init_model(file, path, device='cpu', cfg_options={'model.gamma': 2.0})
    assert (model.gamma, model.training) == (2.0, False)
    sample = inference_model(model, bgr(SCENE), points=POINTS)
    assert np.array_equal(sample.pred_instances.masks.numpy(), [RED_MASK, GREEN_MASK])
    several = inference_model(model, [bgr(SCENE)] * 2, points=[POINTS, None], batch_size=2)
    assert [len(one.pred_instances) for one in several] == [2, 0]


def test_weights_that_do_not_fit(tmp_path):
    path = str(tmp_path / 'weights.pth')
    torch.save(swapped_state(), path)
    with pytest.raises(
        ValueError,
        match=r'weights\.pth do not fit the model: 1 missing in the file: colorer\.bias;',
    ):
        GenSegInferencer(config(bias=True), path, device='cpu')
    message = r'1 of other shapes: colorer\.weight is \(3, 3, 1, 1\) in the file and \(3, 3, 3, 3\) in the model'
    with pytest.raises(ValueError, match=message):
        GenSegInferencer(config(kernel_size=3), path, device='cpu')
    torch.save({'a.b': torch.ones(1), **swapped_state()}, path)
    with pytest.raises(
        ValueError, match=r'1 only in the file: a\.b; were they trained with this config'
    ):
        GenSegInferencer(config(), path, device='cpu')
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r'weights\.pth holds no weights'):
        GenSegInferencer(config(), path, device='cpu')
    torch.save(swapped_state(), path)
    data = Path(path).read_bytes()
    number = torch.ones(1).numpy().tobytes()
    assert data.count(number) == 3
    Path(path).write_bytes(data.replace(number, torch.full((1,), 2.0).numpy().tobytes()))
    with pytest.raises(ValueError, match=r'weights\.pth is corrupt: wrong checksum of '):
        GenSegInferencer(config(), path, device='cpu')
    Path(path).write_bytes(data[:-50])
    with pytest.raises(ValueError, match=r'weights\.pth is truncated'):
        GenSegInferencer(config(), path, device='cpu')
    with pytest.raises(FileNotFoundError, match=r'none\.pth does not exist'):
        GenSegInferencer(config(), str(tmp_path / 'none.pth'), device='cpu')
    (tmp_path / 'a.safetensors').write_bytes(b'12345678901234567890')
    with pytest.raises(ValueError, match=r'a\.safetensors are truncated or no safetensors file'):
        GenSegInferencer(config(), str(tmp_path / 'a.safetensors'), device='cpu')


def test_wrong_models(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r'none\.py is neither the file of a config nor a model .*gen2seg_unet',
    ):
        GenSegInferencer('none.py')
    (tmp_path / 'bad.py').write_text('model = dict(')
    with pytest.raises(ValueError, match=r'bad\.py is not a valid config'):
        GenSegInferencer(tmp_path / 'bad.py')
    (tmp_path / 'empty.py').write_text('lr = 1')
    with pytest.raises(ValueError, match=r"empty\.py has no key 'model'"):
        GenSegInferencer(tmp_path / 'empty.py')
    with pytest.raises(
        ValueError, match='but got NoneType; the config that a checkpoint carries is not used'
    ):
        GenSegInferencer(None, 'a.pth')
    with pytest.raises(ValueError, match='runs Gen2Seg and GenMask, but got Linear'):
        GenSegInferencer(nn.Linear(1, 1))
    with pytest.raises(ValueError, match='weights go with a config, but got a built model'):
        GenSegInferencer(inferencer().model, 'a.pth')
    with pytest.raises(ValueError, match="device must be such as cpu or cuda:0, but got 'gpu'"):
        GenSegInferencer(config(), device='gpu')
    with pytest.raises(ValueError, match='device cuda:99 is not here'):
        GenSegInferencer(config(), device='cuda:99')


def test_name_in_a_metafile_and_no_weights():
    with pytest.warns(UserWarning, match='those of an untrained model'):
        infer = GenSegInferencer('genseg_mm/gen2seg_mae_shapes_tiny', device='cpu')
    assert type(infer.model.colorer).__name__ == 'MAEColorer'
    assert infer.cfg.model.normalize == infer.model.normalize == 'sigmoid'


def released_map(
    infer: GenSegInferencer, image: np.ndarray, size: tuple, gamma: float
) -> np.ndarray:
    """The colour map by the formulas, from the colorer alone."""
    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    pixels = torch.tensor(np.asarray(resized)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        raw = infer.model.colorer(pixels)[0]
    unit = ((raw - raw.min()) / (raw.max() - raw.min())) ** gamma
    resized = F.interpolate(unit[None] * 255, size=image.shape[:2], mode='bilinear')[0]
    return resized.permute(1, 2, 0).numpy()


def test_released_folders(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (43, 50, 3)).astype(np.uint8)
    mae = GenSegInferencer.from_pretrained(make_mae_folder(tmp_path / 'mae'), device='cpu')
    (prediction,) = mae(Image.fromarray(image), points=[[10, 20]])['predictions']
    assert np.abs(prediction['color_map'] - released_map(mae, image, (64, 64), 0.7)).max() < 0.01
    assert prediction['masks'].shape == (1, 43, 50)
    colors = torch.tensor(prediction['color_map']).permute(2, 0, 1)
    assert np.array_equal(prediction['masks'], mae.model.prompt(colors, [[10, 20]]).masks.numpy())
    folder = make_sd_folder(tmp_path / 'sd')
    stable = GenSegInferencer.from_pretrained(str(folder), device='cpu', gamma=1.5)
    (prediction,) = stable(bgr(image))['predictions']
    assert np.abs(prediction['color_map'] - released_map(stable, image, (40, 48), 1.5)).max() < 0.01


# GenMask


def genmask(pipeline: tuple = ()) -> GenSegInferencer:
    torch.manual_seed(0)
    model = GenMask(
        **{key: value for key, value in genmask_config('sana').items() if key != 'type'}
    )
    model.cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=list(pipeline)))))
    return GenSegInferencer(model, show_progress=False)


def test_genmask_masks_and_scores_by_hand(monkeypatch):
    infer, asked = genmask([dict(type='TextPrompt', template='Segment {}.')]), []
    infer.model.mask_head.threshold = 0.4

    def predict(inputs, data_samples):
        for sample in data_samples:
            asked.append((sample.text, tuple(inputs.shape)))
            logits = torch.full((1, *sample.ori_shape), -0.5)
            logits[0, 2:4, 3:6] = 0.8 if 'red' in sample.text else 0.2
            logits[0, 2, 3] = 1.0
            sample.seg_logits = PixelData(data=logits)
        return data_samples

    monkeypatch.setattr(infer.model, 'predict', predict)
    images = [np.zeros((33, 44, 3), np.uint8), np.zeros((30, 50, 3), np.uint8)]
    texts = [['Red ring', 'blue ring'], 'green ring']
    first, second = infer(images, texts=texts, batch_size=3)['predictions']
    assert asked == [
        (f'Segment {color} ring.', (3, 3, 32, 48)) for color in ('red', 'blue', 'green')
    ]
    assert list(first) == ['masks', 'scores', 'bboxes']
    assert np.array_equal(first['masks'], [region(33, 44, 3, 2, 6, 4)] * 2)
    # Brightness = logit / 2 + threshold: 0.8 -> 0.8, 0.2 -> 0.5, 1.0 -> 0.9; six pixels.
    assert first['scores'] == pytest.approx([(5 * 0.8 + 0.9) / 6, (5 * 0.5 + 0.9) / 6])
    assert second['scores'] == pytest.approx([(5 * 0.5 + 0.9) / 6])
    assert first['bboxes'].tolist() == [[3, 2, 6, 4]] * 2


def test_genmask_of_a_text_is_the_same_alone_and_among_others():
    infer = genmask()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    (alone,) = infer(image, texts='the red ring')['predictions']
    assert 0 < alone['masks'].sum() < 64 * 64
    others = infer([image[::-1], image], texts=['a', ['b', 'the red ring']], batch_size=3)[
        'predictions'
    ]
    assert (others[1]['masks'][1] == alone['masks'][0]).mean() > 0.999  # rounding of batches
    assert others[1]['scores'][1] == pytest.approx(alone['scores'][0], abs=1e-4)
    everywhere = infer([image, image], texts='the red ring', out_dir='')['predictions']
    assert np.array_equal(everywhere[0]['masks'], everywhere[1]['masks'])
    (none,) = infer(image, texts=[])['predictions']
    assert none['masks'].shape == (0, 64, 64)


@pytest.mark.parametrize(
    'prompts, message',
    [
        ({}, 'GenMask needs texts'),
        (dict(points=[[1, 1]]), 'GenMask takes texts, but got points'),
        (dict(texts='a', automatic=True), 'GenMask takes texts, but got points'),
        (
            dict(texts=[3]),
            r'the image: texts: expected a string or a list of strings, but got \[3\]',
        ),
    ],
)
def test_genmask_prompts(prompts: dict, message: str):
    with pytest.raises(ValueError, match=message):
        genmask()(np.zeros((32, 32, 3), np.uint8), **prompts)


def test_genmask_lists():
    image, infer = np.zeros((32, 32, 3), np.uint8), genmask()
    with pytest.raises(
        ValueError, match='texts: expected one list .* 2 images of the list, but got 3'
    ):
        infer([image, image], texts=['a', 'b', 'c'])
    with pytest.raises(ValueError, match='GenMask needs texts'):
        infer([image, image], texts=['a', None])
    with pytest.raises(ValueError, match='but got GenMask, which has no colour map'):
        infer.set_image(image)
