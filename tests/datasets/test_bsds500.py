"""BSDS500Dataset and LoadBoundaries on a tiny folder in the published layout."""

import struct
import zlib

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from PIL import Image
from scipy.io import loadmat, savemat
from tiny_datasets import maker

from genseg_mm.datasets import BSDS500Dataset, LoadBoundaries, LoadImage, PackGenSegInputs
from genseg_mm.files.arrays import read_boundaries

make_tiny_bsds500 = maker('bsds500')


@pytest.fixture
def root(tmp_path):
    return make_tiny_bsds500(tmp_path / 'BSDS500', image_size=(40, 60))


def write(path, *boundaries, key='groundTruth', field='Boundaries'):
    cells = np.empty((1, len(boundaries)), object)
    for place, boundary in enumerate(boundaries):
        cells[0, place] = {'Segmentation': np.ones((2, 2), np.uint16), field: boundary}
    savemat(path, {key: cells})


def test_items(root):
    for folder, suffix in (('images', 'jpg'), ('groundTruth', 'mat')):  # of macOS
        (root / 'data' / folder / 'test' / f'._2018.{suffix}').write_bytes(b'junk')
    dataset = BSDS500Dataset(root, split='test')
    assert [item['img_id'] for item in dataset] == ['2018', '3008', '3998', '4988']
    assert [item['sample_idx'] for item in dataset] == [0, 1, 2, 3]
    item = dataset[1]
    assert item['img_path'] == str(root / 'data/images/test/3008.jpg')
    assert item['boundaries_path'] == str(root / 'data/groundTruth/test/3008.mat')
    assert item['subset'] == 'test'
    assert [len(BSDS500Dataset(root, split=split)) for split in ('train', 'val')] == [3, 2]
    # By number, not by text: 3096 comes before 100007.
    (root / 'data/images/train/Thumbs.db').unlink()
    (root / 'data/images/train/100007.jpg').rename(root / 'data/images/train/3096.jpg')
    (root / 'data/groundTruth/train/100007.mat').rename(root / 'data/groundTruth/train/3096.mat')
    ids = [item['img_id'] for item in BSDS500Dataset(root, split='train')]
    assert ids == ['3096', '100997', '101987']
    assert dict(train=200, val=100, test=200) == BSDS500Dataset.PUBLISHED


def test_where_the_root_may_be(root):
    expected = [item['img_path'] for item in BSDS500Dataset(root)]
    for other in (root.parent, root / 'data'):
        assert [item['img_path'] for item in BSDS500Dataset(other)] == expected
    (root.parent / 'clone').mkdir()
    root.rename(root.parent / 'clone' / 'BSDS500')
    assert len(BSDS500Dataset(root.parent / 'clone')) == 4


def test_tiny_files_have_the_published_layout(root):
    cells = loadmat(root / 'data/groundTruth/test/3008.mat')['groundTruth']
    assert cells.shape == (1, 4 + (2 + 1) % 3) and cells.dtype == object
    first = cells[0, 0]
    assert first.dtype.names == ('Segmentation', 'Boundaries')
    segmentation, boundary = first['Segmentation'][0, 0], first['Boundaries'][0, 0]
    assert segmentation.dtype == np.uint16 and segmentation.min() == 1
    assert boundary.dtype == np.uint8 and np.unique(boundary).tolist() == [0, 1]
    # The boundary is where the right or lower neighbour is of another region.
    assert boundary[:, :-1][segmentation[:, 1:] != segmentation[:, :-1]].all()
    assert not boundary[:-1, :-1][
        (segmentation[:-1, :-1] == segmentation[1:, :-1]) & (segmentation[:-1, :-1] == segmentation[:-1, 1:])
    ].any()
    maps = read_boundaries(root / 'data/groundTruth/test/3008.mat')
    assert len({own.tobytes() for own in maps}) > 2  # annotators differ
    sizes = [Image.open(path).size for path in sorted((root / 'data/images/test').glob('*.jpg'))]
    assert sizes == [(60, 40), (40, 60), (60, 40), (60, 40)]


def test_loading_and_packing_in_a_batch(root):
    pipeline = [
        LoadImage(),
        dict(type='mmseg.Resize', scale=(32, 32), keep_ratio=False),
        LoadBoundaries(),
        PackGenSegInputs(),
    ]
    dataset = BSDS500Dataset(root, split='test', test_mode=True, pipeline=pipeline)
    batch = pseudo_collate([dataset[index] for index in range(3)])
    for index, own in enumerate(batch['data_samples']):
        raw = loadmat(dataset.get_data_info(index)['boundaries_path'])['groundTruth']
        expected = np.stack([raw[0, k]['Boundaries'][0, 0] for k in range(raw.shape[1])])
        assert own.gt_boundaries.data.dtype == torch.uint8
        np.testing.assert_array_equal(own.gt_boundaries.data.numpy(), expected)
        assert own.ori_shape == expected.shape[1:] and own.img_shape == (32, 32)
        assert own.subset == 'test' and own.sample_idx == index
        assert isinstance(own, BaseDataElement)
        np.testing.assert_array_equal(own.to_dict()['gt_boundaries']['data'].numpy(), expected)
    assert [len(own.gt_boundaries.data) for own in batch['data_samples']] == [6, 4, 5]
    assert batch['inputs'][1].shape == (3, 32, 32)


def test_missing_files(root, tmp_path):
    (root / 'data/groundTruth/test/3998.mat').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 4 .mat files of test.*such as 3998.mat'):
        BSDS500Dataset(root)
    (root / 'data/images/val/3096.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 2 .jpg files of val.*such as 3096.jpg'):
        BSDS500Dataset(root, split='val')
    with pytest.raises(FileNotFoundError, match='found neither these nor data/images in .*nowhere'):
        BSDS500Dataset(tmp_path / 'nowhere')
    for path in (root / 'data').rglob('1*'):
        path.unlink()
    with pytest.raises(ValueError, match='found no picture in .*train'):
        BSDS500Dataset(root, split='train')
    with pytest.raises(ValueError, match="split must be one of .*but got 'trainval'"):
        BSDS500Dataset(root, split='trainval')


def test_bad_ground_truth(tmp_path):
    path = tmp_path / '8068.mat'

    def message():
        with pytest.raises(ValueError) as error:
            read_boundaries(path)
        return str(error.value)

    write(path, np.array([[0, 2]]))
    assert message() == f'{path}, annotator 1: Boundaries must be 0 or 1, but got 2'
    write(path, np.zeros((2, 3)), np.zeros((3, 2)))
    assert 'expected maps of one size, but got [(2, 3), (3, 2)]' in message()
    write(path, np.zeros((2, 3)), field='Borders')
    assert "annotator 1: expected a struct with 'Boundaries'" in message()
    write(path, np.zeros((2, 3)), key='truth')
    assert "cell array 'groundTruth' of structs with 'Boundaries', but got nothing" in message()
    savemat(path, dict(groundTruth=np.zeros((2, 3))))
    assert 'but got float64 of (2, 3)' in message()
    write(path, np.zeros((1, 4), np.uint8))
    path.write_bytes(path.read_bytes()[:200])
    assert f'{path} is no whole .mat file' in message()
    path.write_bytes(b'')
    assert f'{path} is no whole .mat file' in message()
    with pytest.raises(FileNotFoundError, match='no file .*none.mat'):
        read_boundaries(tmp_path / 'none.mat')


def test_boundaries_of_another_picture(root):
    item = dict(BSDS500Dataset(root)[0], ori_shape=(60, 40))
    with pytest.raises(ValueError, match=r'2018.mat: expected the size.*2018.jpg \(60, 40\), but'):
        LoadBoundaries()(item)
    with pytest.raises(ValueError, match=r"needs 'boundaries_path'.*got the keys \['img'\]"):
        LoadBoundaries()(dict(img=0))
    del item['ori_shape']
    assert LoadBoundaries()(item)['gt_boundaries'].shape == (6, 40, 60)


def test_the_reader_agrees_with_scipy(root, tmp_path):
    """Values of every kind that MATLAB stores, packed and plain, of both byte orders where there are."""
    for path in sorted((root / 'data/groundTruth').rglob('*.mat')):
        expected = [own['Boundaries'][0, 0] for own in loadmat(path)['groundTruth'][0]]
        assert np.array_equal(read_boundaries(path), expected)
    maps = [np.random.default_rng(0).integers(0, 2, (5, 7)) for _ in range(3)]
    for kind in ('u1', 'i1', 'u2', 'i4', 'f4', 'f8', 'u8', bool):
        for packed in (False, True):
            cells = np.empty((1, 3), object)
            cells[0] = [{'Text': 'of an annotator', 'Boundaries': own.astype(kind)} for own in maps]
            content = dict(other=np.ones((300, 300)), groundTruth=cells, last='text')
            savemat(tmp_path / 'a.mat', content, do_compression=packed)
            assert np.array_equal(read_boundaries(tmp_path / 'a.mat'), maps), (kind, packed)


def test_hostile_ground_truth(tmp_path):
    path, generator = tmp_path / 'a.mat', np.random.default_rng(0)
    boundary = generator.integers(0, 2, (8, 9)).astype(np.uint8)
    contents = []
    for packed in (False, True):
        cells = np.empty((1, 2), object)
        cells[0] = [dict(Segmentation=boundary, Boundaries=boundary)] * 2
        savemat(path, dict(groundTruth=cells), do_compression=packed)
        contents.append(path.read_bytes())
    refused = 0
    for number in range(600):
        content = bytearray(contents[number % 2])
        place = int(generator.integers(0, len(content) - 8))
        if number % 6 < 2:
            content = content[:place]
        else:
            size = int(generator.choice([1, 4, 8]))
            content[place : place + size] = (b'\xff' * size, generator.bytes(size))[number % 4 // 2]
        path.write_bytes(content)
        try:
            read_boundaries(path)
        except ValueError as error:
            assert str(path) in str(error) and '\n' not in str(error)
            refused += 1
    assert refused > 300
    deep = b''
    for _ in range(3000):  # cells in cells
        head = struct.pack('<IIII', 6, 8, 1, 0) + struct.pack('<IIii', 5, 8, 1, 1)
        inner = head + struct.pack('<II', 1, 0) + deep
        deep = struct.pack('<II', 14, len(inner)) + inner
    named = struct.pack('<IIII', 6, 8, 1, 0) + struct.pack('<IIii', 5, 8, 1, 1)
    named += struct.pack('<II', 1, 11) + b'groundTruth'.ljust(16, b'\0') + deep
    for body, message in (
        (struct.pack('<II', 14, len(named)) + named, 'at most 8 deep'),
        (packed_variable(named, bytes(300 * 2**20)), 'at most 268435456 bytes once unpacked'),
    ):
        path.write_bytes(contents[0][:128] + body)
        with pytest.raises(ValueError, match=rf'a\.mat is no whole \.mat file \(.*{message}'):
            read_boundaries(path)
    path.write_bytes(b'\x89HDF\r\n' + bytes(600))
    with pytest.raises(ValueError, match=r'version 5 to 7, but got version 7\.3 \(HDF5\)'):
        read_boundaries(path)


def packed_variable(head: bytes, more: bytes) -> bytes:
    unpacked = struct.pack('<II', 14, len(head) + len(more)) + head + more
    packed = zlib.compress(unpacked, 1)
    return struct.pack('<II', 15, len(packed)) + packed
