"""Videos: every kind is read, lossless ones give back each pixel, and what is none is one line."""

import numpy as np
import pytest
from peak_memory import memory_now, peak_since
from PIL import Image

from genseg_mm.files.videos import is_video, read_frames, read_video_header, write_video


def moving(num: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A red square of 16 pixels on grey that goes two pixels to the right in each frame; BGR."""
    frames = []
    for number in range(num):
        frame = np.full((height, width, 3), 90, np.uint8)
        frame[16:32, 4 + 2 * number : 20 + 2 * number] = 30, 40, 220
        frames.append(frame)
    return frames


def test_lossless_videos_keep_every_pixel_of_odd_sizes(tmp_path):
    frames = [np.random.default_rng(n).integers(0, 256, (35, 51, 3)).astype(np.uint8) for n in range(5)]
    assert write_video(tmp_path / 'a.mkv', frames, 12.5, lossless=True) == 5
    assert read_video_header(tmp_path / 'a.mkv') == (36, 52, 12.5, 5)  # even sides
    for start in (0, 3):
        found = [frame[:35, :51] for frame in read_frames(tmp_path / 'a.mkv', start)]
        assert [np.array_equal(*pair) for pair in zip(found, frames[start:], strict=True)] == [True] * (5 - start)
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.mkv']


@pytest.mark.parametrize('ending', ['mp4', 'avi', 'webm', 'gif'])
def test_every_kind_is_read(tmp_path, ending):
    import cv2

    path, frames = tmp_path / f'a.{ending}', moving(6)
    if ending == 'gif':
        pictures = [Image.fromarray(frame[..., ::-1]) for frame in frames]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    elif ending == 'webm':
        write_video(path, frames, 10)
    else:
        code = cv2.VideoWriter_fourcc(*dict(mp4='mp4v', avi='MJPG')[ending])
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 10, (64, 48))
        for frame in frames:
            writer.write(frame)
        writer.release()
    assert is_video(path) and read_video_header(path).rate == pytest.approx(10)
    found = list(read_frames(path))
    assert len(found) == 6
    for number, frame in enumerate(found):
        assert frame[24, 12 + 2 * number, 2] > 170 and frame[24, 12 + 2 * number, 0] < 80
        assert np.abs(frame[4, 4].astype(int) - 90).max() < 20


def test_a_still_gif_is_no_video(tmp_path):
    Image.fromarray(moving(1)[0]).save(tmp_path / 'a.gif')
    assert not is_video(tmp_path / 'a.gif') and not is_video('a.png') and is_video('a.MP4')


def test_what_is_no_video_takes_one_line(tmp_path, capfd):
    write_video(tmp_path / 'whole.mkv', moving(8), 10, lossless=True)
    whole = (tmp_path / 'whole.mkv').read_bytes()
    cases = {
        'empty.mp4': (b'', 'but got an empty file'),
        'text.avi': (b'hello world, this is no video', "a file that begins with b'hello wo'"),
        'list.mp4': (b'#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd\n', "begins with b'#EXTM3U"),
        'cut.mkv': (whole[:200], 'cut.mkv (cannot be decoded: it is damaged|has no frame)'),
        'brand.mp4': (b'\0\0\0\x18ftypisom' + bytes(200), 'brand.mp4 cannot be decoded: it is damaged, cut short'),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            list(read_frames(tmp_path / name))
        assert '\n' not in str(caught.value) and name in str(caught.value)
    with pytest.raises(ValueError, match=r'expected at most 5 frames, but got 8; --max-frames'):
        read_video_header(tmp_path / 'whole.mkv', 5)
    with pytest.raises(ValueError, match='expected the file of a video, but got a folder'):
        read_video_header(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_video_header(tmp_path / 'none.mp4')
    assert capfd.readouterr().err == ''


def test_frames_are_bounded_in_size(tmp_path, monkeypatch):
    write_video(tmp_path / 'a.mkv', moving(2), 10, lossless=True)
    monkeypatch.setenv('GENSEG_MAX_IMAGE_PIXELS', '3000')
    with pytest.raises(ValueError, match=r'a\.mkv: expected at most 3000 pixels, but its header says 48x64'):
        list(read_frames(tmp_path / 'a.mkv'))


def test_a_video_cut_short_gives_the_frames_that_it_has(tmp_path):
    frames = [np.random.default_rng(n).integers(0, 256, (48, 64, 3)).astype(np.uint8) for n in range(10)]
    write_video(tmp_path / 'a.mkv', frames, 10, lossless=True)
    whole = (tmp_path / 'a.mkv').read_bytes()
    (tmp_path / 'a.mkv').write_bytes(whole[: len(whole) // 2])
    found = list(read_frames(tmp_path / 'a.mkv'))
    assert 2 <= len(found) < 8 and all(np.array_equal(*pair) for pair in zip(found, frames, strict=False))


def test_memory_does_not_grow_with_a_video(tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8) // 64
    write_video(tmp_path / 'a.mkv', (np.roll(frame, n, 1) for n in range(40)), 10, lossless=True)
    assert sum(1 for _ in zip(range(5), read_frames(tmp_path / 'a.mkv'), strict=False)) == 5  # decoders are loaded
    start = memory_now()
    assert sum(1 for _ in read_frames(tmp_path / 'a.mkv')) == 40  # 37 MB, if they were kept
    assert peak_since(start) < 15 << 10
