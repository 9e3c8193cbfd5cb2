"""A video of coloured squares by a model that gives back its input: every mask, link and number is known."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from genseg_mm.files.videos import read_frames, write_video
from genseg_mm.inference import videos
from genseg_mm.inference.results import decoded
from genseg_mm.inferencers import GenSegInferencer

NUM = 22


def make_video(path: Path, change: int = 8) -> np.ndarray:
    """A square that turns from red to yellow while it moves, beside a blue one; masks (NUM, 2, 48, 96) of both."""
    frames, truth = [], np.zeros((NUM, 2, 48, 96), bool)
    for number in range(NUM):
        frame = np.zeros((48, 96, 3), np.uint8)
        truth[number, 0, 4:20, 4 + 3 * number : 20 + 3 * number] = True
        truth[number, 1, 28:44, 60:76] = True
        frame[truth[number, 0]] = 20, 20 + change * number, 255
        frame[truth[number, 1]] = 255, 40, 30
        frames.append(frame)
    write_video(path, frames, 10, lossless=True)
    return truth


def made_inferencer() -> GenSegInferencer:
    colorer = dict(type='torch.nn.Conv2d', in_channels=3, out_channels=3, kernel_size=1, bias=False)
    model = dict(type='genseg_mm.Gen2Seg', colorer=colorer, normalize='none', prompting=dict(radius=20.0, sigma=1e-3))
    made = GenSegInferencer(Config(dict(model=model, default_scope='genseg_mm')), 'random', 'cpu', show_progress=False)
    with torch.no_grad():
        made.model.colorer.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
    return made


@pytest.fixture
def inferencer() -> GenSegInferencer:
    return made_inferencer()


def read(folder: Path, name: str = 'a') -> tuple[dict, np.ndarray]:
    content = json.loads((folder / f'preds/{name}.json').read_text())
    return content, np.stack([decoded(frame['masks'], 48, 96) for frame in content['frames']])


def test_colours_are_carried_along(tmp_path, inferencer):
    truth = make_video(tmp_path / 'a.mkv')
    summary = inferencer.video(tmp_path / 'a.mkv', points=[[12, 12], [68, 36]], out_dir=tmp_path, batch_size=4)
    content, masks = read(tmp_path)
    assert np.array_equal(masks, truth)
    overlap = (16 - 3) / (16 + 3)
    assert summary['flicker']['mask_iou'] == pytest.approx((overlap + 1) / 2)
    assert summary['flicker']['color_change'] == content['flicker']['color_change'] > 2
    assert summary['flicker']['image_change'] == pytest.approx(summary['flicker']['color_change'])  # one picture
    assert (summary['num_frames'], summary['num_masks']) == (NUM, 2 * NUM)
    assert [frame['time'] for frame in content['frames'][:3]] == [0, 0.1, 0.2]
    assert content['frames'][5]['bboxes'] == [[19, 4, 35, 20], [60, 28, 76, 44]]
    shown = list(read_frames(tmp_path / 'vis/a.webm'))
    assert len(shown) == NUM and shown[0].std() > 20
    assert sorted(path.name for path in (tmp_path / 'preds').iterdir()) == ['a.json']


def test_colours_that_stay_lose_what_changes(tmp_path, inferencer):
    truth = make_video(tmp_path / 'a.mkv')
    inferencer.video(tmp_path / 'a.mkv', points=[[12, 12], [68, 36]], out_dir=tmp_path, follow=0, save_video=False)
    _, masks = read(tmp_path)
    assert np.array_equal(masks[:3], truth[:3]) and np.array_equal(masks[:, 1], truth[:, 1])
    assert not masks[3:, 0].any() and not (tmp_path / 'vis').exists()


def test_points_of_a_later_frame(tmp_path, inferencer):
    truth = make_video(tmp_path / 'a.mkv')
    inferencer.video(
        tmp_path / 'a.mkv', points=[[12 + 3 * 9, 12]], boxes=[[29, 2, 49, 22]], out_dir=tmp_path, query_frame=9
    )
    _, masks = read(tmp_path)
    assert not masks[:9].any() and np.array_equal(masks[9:, 0], truth[9:, 0])


def test_parts_that_touch_the_mask_before(tmp_path, inferencer):
    """Two squares of one colour: with ``component``, only that which was clicked on is followed."""
    truth = make_video(tmp_path / 'a.mkv', change=0)
    frames = list(read_frames(tmp_path / 'a.mkv'))
    for frame, (moving, resting) in zip(frames, truth, strict=True):
        frame[resting] = frame[moving][0]
    write_video(tmp_path / 'a.mkv', frames, 10, lossless=True)
    for component, expected in ((False, truth.any(1)), (True, truth[:, 0])):
        options = dict(out_dir=tmp_path, save_video=False, prompting=dict(component=component))
        inferencer.video(tmp_path / 'a.mkv', points=[[12, 12]], **options)
        assert np.array_equal(read(tmp_path)[1][:, 0], expected)


def test_a_gif_of_odd_size(tmp_path, inferencer, monkeypatch):
    truth = make_video(tmp_path / 'a.mkv')
    monkeypatch.setattr(videos, 'CHUNK', 8)
    pictures = [Image.fromarray(frame[:47, :95, ::-1]) for frame in read_frames(tmp_path / 'a.mkv')]
    pictures[0].save(tmp_path / 'b.gif', save_all=True, append_images=pictures[1:], duration=100)
    inferencer.video(tmp_path / 'b.gif', points=[[12, 12], [68, 36]], out_dir=tmp_path)
    frames = json.loads((tmp_path / 'preds/b.json').read_text())['frames']
    assert np.array_equal([decoded(frame['masks'], 47, 95) for frame in frames], truth[:, :, :47, :95])
    assert len(list(read_frames(tmp_path / 'vis/b.webm'))) == NUM


def test_instances_are_linked(tmp_path, inferencer):
    truth = make_video(tmp_path / 'a.mkv')
    inferencer.video(tmp_path / 'a.mkv', out_dir=tmp_path, automatic=dict(min_area=30), batch_size=3)
    content, _ = read(tmp_path)
    ids = [frame['ids'] for frame in content['frames']]
    assert {tuple(sorted(own)) for own in ids} == {(0, 1)}
    for number, frame in enumerate(content['frames']):
        masks = decoded(frame['masks'], 48, 96)
        of_moving = ids[0][np.argmax(decoded(content['frames'][0]['masks'], 48, 96)[:, 10, 10])]
        moving = masks[frame['ids'].index(of_moving)]
        assert (moving & truth[number, 0]).sum() > 0.8 * moving.sum()


class Ended(Exception):
    """In place of a kill."""


def test_what_was_ended_goes_on_and_gives_the_same(tmp_path, inferencer, monkeypatch):
    make_video(tmp_path / 'a.mkv')
    monkeypatch.setattr(videos, 'CHUNK', 6)
    options = dict(points=[[12, 12], [68, 36]], batch_size=2)
    inferencer.video(tmp_path / 'a.mkv', out_dir=tmp_path / 'whole', **options)
    predict, seen = inferencer._predict, []

    def ended(batch):
        seen.append(len(batch))
        if sum(seen) > 15:
            raise Ended
        return predict(batch)

    inferencer._predict = ended
    with pytest.raises(Ended):
        inferencer.video(tmp_path / 'a.mkv', out_dir=tmp_path / 'parts', **options)
    left = {path.name for path in (tmp_path / 'parts/preds/a.tmp').iterdir()}
    assert {'000000.json', '000001.json', '000000.mkv', '000001.mkv', 'run.json'} <= left
    seen.clear()
    inferencer._predict = lambda batch: seen.append(len(batch)) or predict(batch)
    inferencer.video(tmp_path / 'a.mkv', out_dir=tmp_path / 'parts', **options)
    assert sum(seen) == NUM - 12
    assert (tmp_path / 'parts/preds/a.json').read_bytes() == (tmp_path / 'whole/preds/a.json').read_bytes()
    shown = [list(read_frames(tmp_path / name / 'vis/a.webm')) for name in ('parts', 'whole')]
    assert len(shown[0]) == NUM and all(np.array_equal(*pair) for pair in zip(*shown, strict=True))
    assert not (tmp_path / 'parts/preds/a.tmp').exists()


def test_what_another_prediction_left_is_not_taken(tmp_path, inferencer, monkeypatch):
    truth = make_video(tmp_path / 'a.mkv')
    monkeypatch.setattr(videos, 'CHUNK', 4)
    monkeypatch.setattr(videos.VideoPrediction, '_write', lambda *_: (_ for _ in ()).throw(Ended))
    with pytest.raises(Ended):
        inferencer.video(tmp_path / 'a.mkv', points=[[68, 36]], out_dir=tmp_path)
    assert len(list((tmp_path / 'preds/a.tmp').glob('*.mkv'))) == 6
    monkeypatch.undo()
    monkeypatch.setattr(videos, 'CHUNK', 4)
    with torch.no_grad():
        inferencer.model.colorer.weight.mul_(1)
    inferencer.video(tmp_path / 'a.mkv', points=[[12, 12]], out_dir=tmp_path)
    assert np.array_equal(read(tmp_path)[1][:, 0], truth[:, 0])


def test_mistakes_take_one_line_and_leave_nothing(tmp_path, inferencer):
    make_video(tmp_path / 'a.mkv')
    for options, message in (
        (dict(points=[[120, 5]]), r'a\.mkv, frame 0: points: expected \(x, y\) inside the map of width 96'),
        (dict(points=[[5, 5]], query_frame=40), 'has no frame 40, on which the prompts are given'),
        (dict(points=[[5, 5]], follow=2), r'follow: expected a part in \[0, 1\], but got 2'),
        (dict(texts='a dog'), 'but got texts, which GenMask takes'),
        (dict(points=[[5, 5]], max_frames=9), 'expected at most 9 frames, but got 22'),
    ):
        with pytest.raises(ValueError, match=message):
            inferencer.video(tmp_path / 'a.mkv', out_dir=tmp_path / 'out', **options)
        assert not list(tmp_path.glob('out/preds/*'))


def test_sentences_are_asked_of_every_frame(tmp_path):
    inferencer = GenSegInferencer('genmask_sana_shapes_long_tiny', device='cpu', show_progress=False)
    frames = []
    for number in range(3):
        frame = np.full((64, 64, 3), 128, np.uint8)
        frame[20:40, 8 + 8 * number : 28 + 8 * number] = 40, 40, 220
        frames.append(frame)
    write_video(tmp_path / 'a.mkv', frames, 5, lossless=True)
    inferencer.video(tmp_path / 'a.mkv', texts=['the red square', 'the square'], out_dir=tmp_path, batch_size=2)
    content = json.loads((tmp_path / 'preds/a.json').read_text())
    assert content['texts'] == ['the red square', 'the square'] and content['flicker']['color_change'] is None
    for frame, record in zip(frames, content['frames'], strict=True):
        (alone,) = inferencer(frame, texts='the red square', progress_bar=False)['predictions'][0]['masks']
        truth = frame[..., 2] > 200
        masks = decoded(record['masks'], 64, 64)
        assert (masks[0] != alone).mean() < 1e-3  # two to a batch
        assert (masks[0] & truth).sum() / (masks[0] | truth).sum() > 0.5


@pytest.mark.slow
def test_a_killed_process_loses_one_chunk_at_most(tmp_path, inferencer):
    make_video(tmp_path / 'a.mkv')
    code = (
        'import sys, time, pathlib\n'
        f'sys.path.insert(0, {str(Path(__file__).parent)!r})\n'
        'import test_video_prediction as t\n'
        't.videos.CHUNK = 4\n'
        'made = t.made_inferencer()\n'
        'predict = made._predict\n'
        'made._predict = lambda batch: time.sleep(0.2) or predict(batch)\n'
        f'made.video({str(tmp_path / "a.mkv")!r}, points=[[12, 12]], out_dir={str(tmp_path / "out")!r})\n'
    )
    whole = tmp_path / 'whole'
    process = subprocess.Popen([sys.executable, '-c', code])
    limit = time.monotonic() + 120
    while not (tmp_path / 'out/preds/a.tmp/000001.json').exists():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / 'out/preds/a.json').exists()
    subprocess.run([sys.executable, '-c', code], check=True)
    subprocess.run([sys.executable, '-c', code.replace(str(tmp_path / 'out'), str(whole))], check=True)
    assert (tmp_path / 'out/preds/a.json').read_bytes() == (whole / 'preds/a.json').read_bytes()
