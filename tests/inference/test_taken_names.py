"""Results of one picture or video are never lost to another of the same name without a word."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_video_prediction import made_inferencer, make_video

from genseg_mm.inference.images import list_sources
from genseg_mm.inference.taken_names import first_free_number

POINTS = dict(points=[[4, 4]])


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    """x/a.png and y/a.png of different sizes; the working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate('xy'):
        Path(folder).mkdir()
        Image.fromarray(np.full((16 + number, 16, 3), 90, np.uint8)).save(f'{folder}/a.png')
    return tmp_path


def image_of(out: str = 'out', name: str = 'a') -> str:
    content = json.loads(Path(out, f'preds/{name}.json').read_text())
    return content.get('image', content.get('video'))


@pytest.mark.parametrize('options', [{}, dict(no_save_pred=True)], ids=['all', 'pictures alone'])
def test_another_picture_of_that_name_is_refused_before_anything_is_predicted(pictures, options):
    infer = made_inferencer()
    infer('x/a.png', **POINTS, out_dir='out', **options)
    before = {own: own.read_bytes() for own in Path('out').rglob('*.*')}
    for _ in range(2):
        with pytest.raises(FileExistsError, match=r"^out: 'a' is there already, of x/a.png and not of y/a.png: choose"):
            infer(['x/a.png', 'y/a.png'][1:], out_dir='out', **options)
        os.chdir('y')  # the path is the same then, the picture is not
        with pytest.raises(FileExistsError, match='is there already, of x/a.png and not of a.png'):
            infer('a.png', out_dir='../out', **options)
        os.chdir('..')
        assert {own: own.read_bytes() for own in Path('out').rglob('*.*')} == before
    infer('x/a.png', out_dir='out', **options)  # itself, whatever is asked of it
    shutil.copytree('x', 'moved')
    infer('moved/a.png', out_dir='out', **options)
    infer('y/a.png', out_dir='out', force=True, **options)
    with pytest.raises(FileExistsError):
        infer('x/a.png', out_dir='out', **options)
    if not options:
        assert image_of() == 'y/a.png'


def test_all_names_that_are_taken_are_counted(pictures):
    infer = made_inferencer()
    for folder in 'xy':
        Image.fromarray(np.full((16, 16, 3), ord(folder), np.uint8)).save(f'{folder}/b.png')
    infer('x', out_dir='out', progress_bar=False)
    with pytest.raises(FileExistsError, match=r"'a' is .* y/a.png \(and 1 more names are taken so\): choose"):
        infer('y', out_dir='out')


def test_videos_and_pictures_share_names(pictures):
    infer = made_inferencer()
    make_video(pictures / 'x/a.mkv')
    make_video(pictures / 'y/a.mkv', change=4)
    infer.video('x/a.mkv', **POINTS, out_dir='out', save_video=False)
    for refused in (lambda: infer.video('y/a.mkv', **POINTS, out_dir='out'), lambda: infer('x/a.png', out_dir='out')):
        with pytest.raises(FileExistsError, match="'a' is there already, of x/a.mkv and not of"):
            refused()
    assert image_of() == 'x/a.mkv'
    infer('x/a.png', out_dir='out', force=True)
    with pytest.raises(FileExistsError, match='of x/a.png and not of x/a.mkv'):
        infer.video('x/a.mkv', **POINTS, out_dir='out')


def test_what_an_ended_run_of_another_video_has_left_is_not_thrown_away(pictures, monkeypatch):
    infer = made_inferencer()
    make_video(pictures / 'x/a.mkv')
    make_video(pictures / 'y/a.mkv', change=4)
    monkeypatch.setattr('genseg_mm.inference.videos.CHUNK', 8)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr('genseg_mm.inference.videos.VideoPrediction._write', killed)
        with pytest.raises(KeyboardInterrupt):
            infer.video('x/a.mkv', **POINTS, out_dir='out')
    left = sorted(own.name for own in Path('out/preds/a.tmp').iterdir())
    assert '000001.json' in left
    with pytest.raises(FileExistsError, match='a.tmp holds a part of the prediction of x/a.mkv, and not of y/a.mkv'):
        infer.video('y/a.mkv', **POINTS, out_dir='out')
    assert sorted(own.name for own in Path('out/preds/a.tmp').iterdir()) == left
    infer.video('x/a.mkv', **POINTS, out_dir='out', save_video=False)
    assert image_of() == 'x/a.mkv'


def test_what_has_no_name_takes_the_next_number(pictures):
    infer, scene = made_inferencer(), np.full((16, 16, 3), 90, np.uint8)
    for number in range(3):
        assert first_free_number('out') == number
        infer(scene, out_dir='out', no_save_vis=number == 1, no_save_pred=number == 2)
    assert [own.stem for own in list_sources(['x/a.png', scene], 'out')[0]] == ['a', '00000004']
    assert [own.stem for own in list_sources(['x/a.png', scene])[0]] == ['a', '00000001']


def test_files_of_one_name_keep_their_endings_whatever_else_is_there(pictures):
    for name in ('x/a.bmp', 'x/a.png', 'x/b.png', 'y/b.png'):
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(name)
    assert [own.stem for own in list_sources('x')[0]] == ['a.bmp', 'a.png', 'b']
    Path('x/a.webp').write_bytes(Path('x/a.png').read_bytes())
    assert [own.stem for own in list_sources('x')[0]] == ['a.bmp', 'a.png', 'a.webp', 'b']
    assert [own.stem for own in list_sources(['x/b.png', 'y/b.png', 'y/a.png'])[0]] == ['b', 'b_2', 'a']


def test_what_cannot_be_read_in_a_folder_is_skipped_whatever_it_is(pictures):
    """Links that lead nowhere or in a ring, pipes, names that are no text: one of the images, not the end of all."""
    Path('x/c.png').symlink_to('nowhere.png')
    Path('x/d.png').symlink_to('d.png')
    os.mkfifo('x/e.png')
    shutil.copy('x/a.png', b'x/f\xff.png')
    infer = made_inferencer()
    found = infer('x', out_dir='out', progress_bar=False, on_error='skip')['predictions']
    assert [own is not None for own in found] == [True, False, False, False, False]
    for name, message in (
        ('c.png', 'does not exist'),
        (os.fsdecode(b'f\xff.png'), r"x/f\\udcff.png': .* in UTF-8: rename"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            infer(f'x/{name}')


def test_opencv_gets_no_name_that_is_no_text(pictures):
    """It would end the process."""
    make_video(pictures / 'x/a.mkv')
    name = os.fsdecode(b'x/f\xff.mkv')
    Path('x/a.mkv').rename(name)
    for refused in (lambda: made_inferencer().video(name), lambda: make_video(Path(name))):
        with pytest.raises(ValueError, match=r"video 'x/f\\udcff.mkv': expected a name in UTF-8: rename it"):
            refused()


def test_videos_in_a_folder_are_said(pictures, monkeypatch):
    said = []
    monkeypatch.setattr('genseg_mm.inference.images.print_log', lambda text, *_: said.append(text))
    Path('x/clip.MP4').write_bytes(b'')
    made_inferencer()('x', out_dir='out', progress_bar=False)
    assert said == ['x: left out 1 videos, which are predicted one by one, such as x/clip.MP4']
