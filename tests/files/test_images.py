"""Decoding of pictures: every format and orientation, and pictures that no decoder may be trusted with."""

import io
import struct
import sys
import zlib
from functools import partial

import numpy as np
import pytest
from peak_memory import memory_now, peak_since
from PIL import Image, ImageOps

from genseg_mm.datasets.transforms.images import LoadImage
from genseg_mm.files import image_headers, images
from genseg_mm.files.image_headers import MAX_PIXELS, MAX_PIXELS_VARIABLE, read_header
from genseg_mm.files.images import decode_picture, turn
from genseg_mm.inference.images import list_sources, read_image

SMOOTH = np.add.outer(np.arange(120), np.arange(90))[..., None] % 256
NOISE = np.random.default_rng(0).integers(0, 40, (120, 90, 3))
PICTURE = np.clip(SMOOTH + NOISE, 0, 255).astype(np.uint8)  # RGB
EXACT = dict(PNG={}, TIFF={}, WEBP=dict(lossless=True))
ROUGH = dict(JPEG=dict(quality=95), AVIF=dict(quality=90))


def saved(picture: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[image_headers.ORIENTATION] = orientation
    return tags


@pytest.mark.parametrize('kind', [*EXACT, *ROUGH])
def test_orientation_is_honoured_once_in_every_format(tmp_path, kind):
    options = {**EXACT, **ROUGH}[kind]
    path = tmp_path / f'photo.{kind.lower()}'
    for orientation in range(1, 9):
        path.write_bytes(saved(PICTURE, kind, exif=exif(orientation), **options))
        upright = np.asarray(ImageOps.exif_transpose(saved_image(PICTURE, orientation)).convert('RGB'))[..., ::-1]
        assert np.array_equal(turn(PICTURE, orientation)[..., ::-1], upright)
        taken = [
            LoadImage()(dict(img_path=str(path)))['img'],
            read_image(list_sources(str(path))[0][0]),
            LoadImage(imdecode_backend='pillow')(dict(img_path=str(path)))['img'],
        ]
        with Image.open(path) as image:
            taken.append(read_image(list_sources(image)[0][0]))
        as_stored = LoadImage(color_type='color_ignore_orientation')(dict(img_path=str(path)))
        height, width = PICTURE.shape[:2]
        annotated = LoadImage()(dict(img_path=str(path), height=height, width=width))['img']
        grey = LoadImage(color_type='grayscale')(dict(img_path=str(path)))['img']
        most = 0 if kind in EXACT else 40
        for one in taken:
            assert one.shape == upright.shape
            assert np.abs(one.astype(int) - upright).max() <= most, (kind, orientation)
        assert np.abs(as_stored['img'].astype(int) - PICTURE[..., ::-1]).max() <= most
        # The annotation's size decides; where it says nothing (1 to 4 keep the size), the file does.
        expected = upright if orientation < 5 else PICTURE[..., ::-1]
        assert np.abs(annotated.astype(int) - expected).max() <= most
        assert grey.shape == upright.shape[:2]


def saved_image(picture: np.ndarray, orientation: int) -> Image.Image:
    return Image.open(io.BytesIO(saved(picture, 'PNG', exif=exif(orientation))))


def test_damaged_exif_data_say_nothing():
    data = saved(PICTURE, 'JPEG', exif=b'Exif\x00\x00II*\x00\xff\xff\xff\xff')
    assert decode_picture(data, 'image a.jpg').shape == PICTURE.shape
    assert read_header(data, 'image a.jpg').orientation == 1


@pytest.mark.parametrize('options', [{}, dict(progressive=True), dict(restart_marker_blocks=5)], ids=str)
def test_a_jpeg_with_a_hole_is_refused(options, capfd):
    noise = np.random.default_rng(1).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    whole = saved(noise, 'JPEG', quality=90, **options)
    assert decode_picture(whole, 'image a.jpg').shape == noise.shape
    generator, begin = np.random.default_rng(2), whole.find(b'\xff\xda') + 100
    for _ in range(12):
        size = int(generator.integers(300, 5000))
        start = int(generator.integers(begin, len(whole) - size - 100))
        with pytest.raises(ValueError, match=r'image a\.jpg (is damaged|cannot be decoded)') as error:
            decode_picture(whole[:start] + whole[start + size :], 'image a.jpg')
        assert '\n' not in str(error.value)
    assert capfd.readouterr().err == ''  # the decoder's own words are in the message


def test_padding_before_the_end_of_a_jpeg_does_no_harm(capfd):
    whole = saved(PICTURE, 'JPEG')
    padded = whole[:-2] + bytes(10) + whole[-2:]
    assert np.array_equal(decode_picture(padded, 'image a'), decode_picture(whole, 'image a'))
    assert capfd.readouterr().err.count('extraneous bytes') == 1


def png_header(height: int, width: int) -> bytes:
    """A PNG of one bit that claims a size, with a row of its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', crc)

    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', zlib.compress(bytes(99))) + chunk(b'IEND', b'')


def claimed(kind: str, height: int, width: int) -> bytes:
    """A small file whose header claims a size."""
    if kind == 'PNG':
        return png_header(height, width)
    data = bytearray(saved(PICTURE[:4, :4], kind, **(dict(lossless=True) if kind == 'WEBP' else {})))
    if kind == 'JPEG':
        place = data.index(b'\xff\xc0') + 5
        data[place : place + 4] = struct.pack('>HH', height, width)
    elif kind == 'BMP':
        data[18:26] = struct.pack('<ii', width, height)
    elif kind == 'GIF':
        data[6:10] = struct.pack('<HH', width, height)
    elif kind == 'PPM':
        data[:11] = f'P6\n{width} {height}\n255\n'.encode()
    else:
        bits = (width - 1) | (height - 1) << 14
        data[21:25] = struct.pack('<I', bits)
    return bytes(data)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'BMP', 'GIF', 'PPM', 'WEBP'])
def test_a_size_beyond_the_bound_is_refused_before_decoding(tmp_path, kind):
    side = 16000 if kind == 'WEBP' else 30000
    path = tmp_path / 'bomb.img'
    path.write_bytes(claimed(kind, side, side))
    start = memory_now()
    for read in (
        lambda: LoadImage()(dict(img_path=str(path), height=20, width=30)),
        lambda: read_image(list_sources(str(path))[0][0]),
        lambda: images.read_stored(path, f'{path}'),
        lambda: read_header(path, f'{path}'),
    ):
        with pytest.raises(ValueError, match=r'bomb\.img: expected at most 100000000 pixels') as error:
            read()
        assert f'{side}x{side}' in str(error.value) and MAX_PIXELS_VARIABLE in str(error.value)
    assert peak_since(start) < 100_000  # KiB


def test_the_bound_is_a_setting(tmp_path, monkeypatch):
    assert MAX_PIXELS >= 50_000_000
    path, pixels = tmp_path / 'a.png', PICTURE.shape[0] * PICTURE.shape[1]
    path.write_bytes(saved(PICTURE, 'PNG'))
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, str(pixels))
    assert LoadImage()(dict(img_path=str(path)))['img_shape'] == PICTURE.shape[:2]
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, str(pixels - 1))
    with pytest.raises(ValueError, match=rf'at most {pixels - 1} pixels, but .*120x90'):
        LoadImage()(dict(img_path=str(path)))
    with Image.open(path) as image, pytest.raises(ValueError, match=f'at most {pixels - 1} pixels'):
        read_image(list_sources(image)[0][0])
    for text in ('0', '-3', '1e8', 'many', '\u00b2', '9' * 5000):
        monkeypatch.setenv(MAX_PIXELS_VARIABLE, text)
        with pytest.raises(ValueError, match=f'{MAX_PIXELS_VARIABLE} must be a number of pixels'):
            LoadImage()(dict(img_path=str(path)))


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_depths_and_channels_as_documented(backend):
    decode_picture = partial(images.decode_picture, backend=backend)
    grey = PICTURE[..., 0]
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 255)
    for kind in ('PNG', 'TIFF', 'PPM'):
        pixels = decode_picture(saved(deep, kind), 'a')
        assert np.array_equal(pixels, np.repeat(grey[..., None], 3, 2)), kind
        assert np.array_equal(decode_picture(saved(deep, kind), 'a', 'grayscale'), grey), kind
    coarse = decode_picture(b'P6 2 1 15 ' + bytes([0, 1, 2, 15, 5, 6]), 'a')
    assert np.array_equal(coarse[..., ::-1], [[[0, 17, 34], [255, 85, 102]]])
    alpha = np.dstack([PICTURE, np.full(grey.shape, 7, np.uint8)])
    for kind, options in EXACT.items():
        data = saved(alpha, kind, **options, **(dict(exact=True) if kind == 'WEBP' else {}))
        assert np.array_equal(decode_picture(data, 'a')[..., ::-1], PICTURE), kind
        if kind != 'WEBP':
            grey_alpha = saved(np.dstack([grey, grey // 2]), kind)
            assert np.array_equal(decode_picture(grey_alpha, 'a')[..., 1], grey), kind
    assert np.array_equal(decode_picture(saved(grey, 'PNG'), 'a')[..., 1], grey)
    palette = Image.fromarray(grey // 64)
    palette.putpalette([9, 8, 7, 50, 60, 70, 100, 0, 0, 0, 0, 255])
    colours = np.array([[9, 8, 7], [50, 60, 70], [100, 0, 0], [0, 0, 255]])
    assert np.array_equal(decode_picture(saved(palette, 'PNG'), 'a')[..., ::-1], colours[grey // 64])
    one_bit = decode_picture(saved(Image.fromarray(grey > 128), 'PNG'), 'a')
    assert np.array_equal(one_bit[..., 0], np.where(grey > 128, 255, 0))
    cmyk = decode_picture(saved(Image.new('CMYK', (8, 8), (0, 255, 255, 0)), 'JPEG'), 'a')
    assert cmyk[4, 4, 2] > 200 and cmyk[4, 4, :2].max() < 60  # red
    for kind, found in ((np.float32, 'floats'), (np.int32, '32 bits')):
        with pytest.raises(ValueError, match=f'a: expected 8 or 16 bits .*, but got {found}'):
            decode_picture(saved(Image.fromarray(grey.astype(kind)), 'TIFF'), 'a')


VIDEOS = dict(
    mp4=b'\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2',
    mov=b'\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00',
    avi=b'RIFF\x24\x00\x00\x00AVI LIST',
    mkv=b'\x1a\x45\xdf\xa3\x01\x00\x00\x00',
    mpg=b'\x00\x00\x01\xba\x44\x00',
    flv=b'FLV\x01\x05',
    heic=b'\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic',
)


def animations() -> dict[str, bytes]:
    frames = [Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1].copy())]
    return {
        kind: saved(frames[0], kind, save_all=True, append_images=frames[1:])
        for kind in ('GIF', 'WEBP', 'PNG', 'TIFF', 'AVIF')
    }


def test_videos_and_animations_are_no_pictures(tmp_path):
    contents = {**{kind: head + bytes(500) for kind, head in VIDEOS.items()}, **animations()}
    for kind, content in contents.items():
        path = tmp_path / f'clip.{kind.lower()}'
        path.write_bytes(content)
        for read in (
            lambda path=path: LoadImage()(dict(img_path=str(path))),
            lambda path=path: read_image(list_sources(str(path))[0][0]),
        ):
            with pytest.raises(ValueError, match=rf'{path}: expected a picture \(JPEG') as error:
                read()
            assert '\n' not in str(error.value)
            assert 'ffmpeg' in str(error.value) or 'heif-convert' in str(error.value)
        if kind in ('GIF', 'WEBP'):
            with Image.open(path) as image, pytest.raises(ValueError, match='several frames'):
                read_image(list_sources(image)[0][0])
    still = saved(Image.fromarray(PICTURE).quantize(64), 'GIF')
    assert decode_picture(still, 'a').shape == PICTURE.shape
    phone = saved(Image.fromarray(PICTURE), 'MPO', save_all=True, append_images=[Image.new('RGB', (9, 9))])
    assert decode_picture(phone, 'a').shape == PICTURE.shape


def test_what_is_no_file(tmp_path):
    with pytest.raises(ValueError, match=r'expected the file of a picture, but got a folder'):
        LoadImage()(dict(img_path=str(tmp_path)))
    if sys.platform == 'linux':
        with pytest.raises(ValueError, match='/dev/zero: .*but got a device or pipe'):
            LoadImage()(dict(img_path='/dev/zero'))


def test_large_files_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / 'large.png'
    path.write_bytes(saved(PICTURE, 'PNG'))
    with path.open('r+b') as file:
        file.truncate(16 * MAX_PIXELS + 1)  # sparse
    with pytest.raises(ValueError, match=r'large\.png: expected a picture of at most 1600000000 bytes'):
        LoadImage()(dict(img_path=str(path)))
