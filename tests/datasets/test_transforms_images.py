"""LoadImage on pictures of many kinds, resizing, packing."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from genseg_mm.datasets.transforms.images import AntialiasedResize, LoadImage, NetworkResize, PackGenSegInputs

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def write_jpeg(path, **kwargs) -> bytes:
    Image.fromarray(np.ascontiguousarray(PICTURE[..., ::-1])).save(path, quality=95, **kwargs)
    return path.read_bytes()


def test_png_is_read_exactly_as_bgr(tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), PICTURE)
    results = LoadImage()(dict(img_path=str(path), height=20, width=30))
    assert np.array_equal(results['img'], PICTURE)
    assert results['img_shape'] == results['ori_shape'] == (20, 30)
    as_float = LoadImage(to_float32=True)(dict(img_path=str(path)))['img']
    assert as_float.dtype == np.float32
    assert np.array_equal(as_float, PICTURE.astype(np.float32))
    load = LoadImage(backend_args=dict(backend='local'))
    assert np.array_equal(load(dict(img_path=str(path)))['img'], PICTURE)


def test_jpeg_equals_opencv(tmp_path):
    path = tmp_path / 'a.jpg'
    write_jpeg(path)
    assert np.array_equal(LoadImage()(dict(img_path=str(path)))['img'], cv2.imread(str(path)))


def test_cut_jpeg(tmp_path):
    path = tmp_path / 'cut.jpg'
    data = write_jpeg(path)
    for length in (2, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=rf'cut\.jpg is cut short \({length} bytes'):
            LoadImage()(dict(img_path=str(path)))
    path.write_bytes(data + bytes(100))  # padding after the end does no harm
    assert LoadImage()(dict(img_path=str(path)))['img_shape'] == (20, 30)


def test_cut_jpeg_with_whole_thumbnail(tmp_path):
    path = tmp_path / 'cut.jpg'
    data = write_jpeg(path)
    thumbnail = b'\xff\xe1' + (2 + len(data)).to_bytes(2, 'big') + data
    path.write_bytes(data[:2] + thumbnail + data[2:])
    assert LoadImage()(dict(img_path=str(path)))['img_shape'] == (20, 30)
    path.write_bytes(data[:2] + thumbnail + data[2:-200])
    with pytest.raises(ValueError, match='cut short'):
        LoadImage()(dict(img_path=str(path)))


def test_cut_png(tmp_path):
    path = tmp_path / 'cut.png'
    cv2.imwrite(str(path), PICTURE)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r'cut\.png is cut short'):
        LoadImage()(dict(img_path=str(path)))


@pytest.mark.parametrize('content', [b'', b'no picture at all', b'\xff\xd8\xff\xdagarbage\xff\xd9'])
def test_undecodable(tmp_path, content):
    path = tmp_path / 'bad.jpg'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf'bad\.jpg cannot be decoded \({len(content)} bytes') as caught:
        LoadImage()(dict(img_path=str(path)))
    assert '\n' not in str(caught.value)


def test_other_size_than_annotated(tmp_path):
    path = tmp_path / 'a.jpg'
    write_jpeg(path)
    with pytest.raises(ValueError, match=r'a\.jpg: expected height x width 20x31 .* but got 20x30'):
        LoadImage()(dict(img_path=str(path), height=20, width=31))


def test_exif_orientation(tmp_path):
    path = tmp_path / 'turned.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    write_jpeg(path, exif=exif)
    turned = LoadImage()(dict(img_path=str(path), height=30, width=20))['img']
    lying = LoadImage(color_type='color_ignore_orientation')(dict(img_path=str(path)))['img']
    assert lying.shape == (20, 30, 3)
    assert np.array_equal(turned, cv2.rotate(lying, cv2.ROTATE_90_CLOCKWISE))
    # Annotated as it is stored: its masks lie there.
    annotated = LoadImage()(dict(img_path=str(path), height=20, width=30))['img']
    assert np.array_equal(annotated, lying)
    with pytest.raises(ValueError, match=r'a\.jpg: expected .* 30x20 .* got 20x30 .*exchanged'):
        write_jpeg(tmp_path / 'a.jpg')
        LoadImage()(dict(img_path=str(tmp_path / 'a.jpg'), height=30, width=20))


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.jpg'):
        LoadImage()(dict(img_path=str(tmp_path / 'absent.jpg')))


def test_a_picture_keeps_its_proportions_within_the_scale():
    results = AntialiasedResize(scale=(10, 10**6), keep_ratio=True)(dict(img=PICTURE))  # the shorter side
    assert results['img_shape'] == (10, 15)
    assert np.array_equal(results['img'], np.asarray(Image.fromarray(PICTURE).resize((15, 10), Image.BILINEAR)))
    assert AntialiasedResize(scale=(15, 15), keep_ratio=True)(dict(img=PICTURE))['img_shape'] == (10, 15)


def test_network_sizes_with_fractions_of_grey_values_and_padding():
    stripes = np.zeros((2, 4, 3), np.uint8)
    stripes[:, 1::2] = 255
    whole = NetworkResize(size=(1, 2))(dict(img=stripes))['img']
    exact = NetworkResize(size=(1, 2), whole=False)(dict(img=stripes))['img']
    assert (whole.dtype, exact.dtype) == (np.uint8, np.float32)
    # A triangle as wide as three columns: weights 3, 3, 1 of 7 at the left end, mirrored at the right one.
    np.testing.assert_allclose(exact[0, :, 0], [255 * 3 / 7, 255 * 4 / 7], rtol=1e-6)
    assert whole[0, :, 0].tolist() == [109, 146]
    padded = NetworkResize(multiples=(3, 5), pad=True, longer_side=0)(dict(img=stripes))
    assert padded['img_shape'] == (2, 4) and padded['img'][2, :, 0].tolist() == [0, 255, 0, 255, 255]


def test_packing_keeps_values_and_ids():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    mask = np.array([[0, 1, 255, 0]] * 2, np.uint8)
    ids = np.array([[0, 70_000, 1, 2]] * 2, np.int32)
    packed = PackGenSegInputs()(dict(img=image, gt_seg_map=mask, gt_instance_map=ids, text='a', task='mask', junk=1))
    assert packed['inputs'][:, 1, 2].tolist() == image[1, 2].tolist()
    sample = packed['data_samples']
    assert sample.gt_sem_seg.data.tolist() == mask[None].tolist()
    assert sample.gt_instance_map.data.tolist() == ids[None].tolist()
    assert sample.gt_instance_map.data.dtype == torch.int64
    assert sample.metainfo == dict(text='a', task='mask')
