"""Inference on maps that are known: the colorer gives back the image, so every mask is known by hand."""

import json
import sys
import time

import numpy as np
import pytest
import torch
from known_scenes import (
    CONV,
    GREEN_MASK,
    POINTS,
    PROMPTING,
    RED,
    RED_MASK,
    SCENE,
    WHITE,
    bgr,
    inferencer,
    region,
    scene,
)
from mmengine.config import Config
from mmseg.structures import SegDataSample
from PIL import Image
from pycocotools import mask as coco_mask
from torch import nn
from torch.nn import functional as F

from genseg_mm import inferencers, pictures
from genseg_mm.functional.color_maps import stretch_colors
from genseg_mm.inference import images as jobs_module
from genseg_mm.inference.images import run_in_order
from genseg_mm.inference.prompts import Prompts
from genseg_mm.inference.results import draw_prediction
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models import Gen2Seg


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
    (without,) = infer(bgr(SCENE), points=[[[5, 6], [20, 10]]], point_labels=[[1, 0]])['predictions']
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
    (one,) = inferencer()(bgr(SCENE), points=[[[5, 6], [99, 99]]], point_labels=labels)['predictions']
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
    assert np.array_equal(infer(bgr(SCENE), points=POINTS, boxes=boxes)['predictions'][0]['masks'], expected)
    infer.set_image(bgr(SCENE))
    assert np.array_equal(infer.prompt(boxes=boxes)['masks'], expected)


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
    stream = inferencer().stream(tmp_path, points=POINTS, return_vis=True)
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
    assert infer.model.colorer.seen == [(1, 3, 24, 32)]
    small = Image.fromarray(image).resize((32, 24), Image.Resampling.BILINEAR)
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


# Results


def test_files_hold_what_was_returned(tmp_path):
    (tmp_path / 'other').mkdir()
    paths = [tmp_path / 'a.png', tmp_path / 'other/a.png', tmp_path / 'a_2.png']
    for path in paths:
        Image.fromarray(SCENE).save(path)
    images = [*paths, bgr(SCENE)]
    out = tmp_path / 'out'
    points = [POINTS, [[20, 10]], None, POINTS]
    result = inferencer()(images, points=points, out_dir=out, return_vis=True)
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


def test_the_home_is_where_it_was_checked(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.chdir(tmp_path)
    inferencer()(bgr(SCENE), out_dir='~/results', return_vis=False)
    assert (tmp_path / 'home/results/preds/00000000.json').is_file()
    assert [path.name for path in tmp_path.iterdir()] == ['home']


def test_what_is_not_wanted_is_not_made(tmp_path):
    infer = inferencer()
    result = infer(bgr(SCENE), out_dir=tmp_path / 'a', no_save_vis=True, return_vis=False)
    assert result['visualization'] is None
    assert sorted(path.name for path in tmp_path.rglob('*')) == [
        '00000000.json', '00000000.png', 'a', 'preds',
    ]  # fmt: skip
    ((_, picture),) = infer.stream(bgr(SCENE), out_dir=tmp_path / 'b', no_save_pred=True, return_vis=False)
    assert picture is None
    assert [path.name for path in (tmp_path / 'b').rglob('*.*')] == ['00000000.png']
    assert [path.name for path in (tmp_path / 'b').iterdir()] == ['vis']


def test_picture():
    infer = inferencer()
    (picture,) = infer(bgr(SCENE), points=POINTS, return_vis=True)['visualization']
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


def test_nothing_is_drawn_unless_asked(monkeypatch):
    def draw(*_, **__):
        raise AssertionError('drawn')

    monkeypatch.setattr(inferencers, 'draw_prediction', draw)
    result = inferencer()(bgr(SCENE), points=POINTS)
    assert result['visualization'] is None
    assert np.array_equal(result['predictions'][0]['masks'], [RED_MASK, GREEN_MASK])
    with pytest.raises(AssertionError, match='drawn'):
        inferencer()(bgr(SCENE), points=POINTS, return_vis=True)


def test_folders_are_read_with_those_below_and_names_keep_them(tmp_path):
    folder, out = tmp_path / 'photos', tmp_path / 'photos/results'
    for name in ('b/a.png', 'a.png', 'b/c/a.png', 'a.jpg', '.thumbs/a.png', 'b/.a.png'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(SCENE).save(folder / name)
    for _ in range(2):  # the results of the first run are no images of the second
        predictions = inferencer()(folder, points=POINTS, out_dir=out)['predictions']
        assert len(predictions) == 4
        for one in predictions[1:]:
            assert np.array_equal(one['masks'], [RED_MASK, GREEN_MASK])  # prompts of every image
        for kind in ('vis/{}.png', 'preds/{}.json', 'preds/{}.png'):
            paths = [out / kind.format(name) for name in ('a.jpg', 'a.png', 'b/a', 'b/c/a')]
            assert [path for path in paths if not path.is_file()] == []
    saved = json.loads((out / 'preds/b/c/a.json').read_text())
    assert saved['image'] == str(folder / 'b/c/a.png')
    assert len(list(out.rglob('*.*'))) == 12


def test_show_needs_a_display(monkeypatch):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, 'platform', 'linux')
    with pytest.raises(ValueError, match='show needs a display, and there is none; use out_dir'):
        inferencer()(bgr(SCENE), show=True)


def test_windows_and_progress_bars_are_as_asked(monkeypatch):
    shown, bars = [], []
    monkeypatch.setattr(inferencers, 'check_display', lambda: None)
    monkeypatch.setattr(inferencers, 'show_picture', lambda picture, *how: shown.append((picture.shape[2], *how)))
    monkeypatch.setattr(inferencers, 'track', lambda jobs, disable, **_: bars.append(not disable) or jobs)
    infer = inferencer()
    assert infer(bgr(SCENE), show=True, wait_time=0.5)['visualization'] is None
    assert shown == [(3, '00000000', 0.5)]
    two = [bgr(SCENE)] * 2
    infer(two, progress_bar=True)
    infer.show_progress = True
    for images, options in ((two, {}), (bgr(SCENE), {}), (two, dict(progress_bar=False))):
        infer(images, **options)
    assert bars == [False, True, True, False, False]


def test_several_texts_have_a_key_of_their_colors():
    masks = np.stack([RED_MASK, GREEN_MASK])
    prompts, texts = Prompts(texts=('one', 'two')), ('one', 'the other ' * 500)
    plain = draw_prediction(bgr(SCENE), dict(masks=masks), prompts, 'a')
    picture = draw_prediction(bgr(SCENE), dict(masks=masks), prompts, 'a', texts)
    height = plain.shape[0]
    assert np.array_equal(picture[:height], plain)
    for place, line in enumerate(np.split(picture[height : height + 38], 2)):
        color = pictures.color_of(place)
        assert (line[2:14, 4:16] == color).all()
        assert (line[:, 20:] == color).all(-1).mean() < 0.01
        assert (line[:, 20:] < 128).all(-1).sum() > 20  # the text
    infer = inferencer()
    colors = infer.set_image(bgr(SCENE))
    assert repr(colors) == 'colour map of 20 x 30 pixels, float32, RGB in [0, 255]'
    assert repr(colors[..., :1]).startswith('array([[[')


def test_captions_of_any_length_are_cut_in_little_time():
    rows = [dict(picture=np.zeros((32, 300, 3), np.uint8))]
    for text, start in (('word ' * 100_000, 'word word'), ('x' * 500_000, 'xxx'), ('a b', 'a b')):
        began = time.perf_counter()
        table = pictures.compose(['picture'], rows, [text])
        assert time.perf_counter() - began < 2
        assert table.shape == (32 + 2 * 19 + 4, 308, 3)
        line = table[-21:]
        dark = np.flatnonzero((line < 128).all(-1).any(0))
        assert dark.min() < 12 and dark.max() < 304
        assert (dark.max() > 270) == (start != 'a b')  # as much of it as there is room for


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
    with pytest.raises(ValueError, match='the image: expected a prediction of finite colours, but got 1800 of'):
        GenSegInferencer(model)(bgr(SCENE))
