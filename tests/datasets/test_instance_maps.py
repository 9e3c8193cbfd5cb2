"""Pairs of picture and map: listing, missing files, samples without any instance; maps in PNG and HDF5."""

import logging
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from genseg_mm.datasets.instance_maps import InstanceMapDataset, check_index_png, read_instance_map
from genseg_mm.datasets.samplers import MixedDataset, Visit
from genseg_mm.datasets.transforms import PackGenSegInputs
from genseg_mm.datasets.transforms.images import LoadImage
from genseg_mm.datasets.transforms.instances import LoadInstanceMap

PIPELINE = (LoadImage(), LoadInstanceMap(), PackGenSegInputs())


class Numbered(InstanceMapDataset):
    """n.jpg with n.png for n = 0 .. 4; 3 is left out by a setting of its own."""

    def list_pairs(self) -> Iterator[dict]:
        for number in range(5):
            image = Path(self.data_root, f'{number}.jpg')
            if number == 3:
                self.skip(image, 'third one')
            else:
                yield dict(img_path=str(image), instance_map_path=str(image.with_suffix('.png')), n=number)


@pytest.fixture
def root(tmp_path):
    """The map of n is n everywhere, so that 0 has no instance."""
    for number in range(5):
        Image.new('RGB', (6, 4)).save(tmp_path / f'{number}.jpg')
        Image.fromarray(np.full((4, 6), number, np.uint8)).save(tmp_path / f'{number}.png')
    return tmp_path


@pytest.fixture
def warnings(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    logger.removeHandler(caplog.handler)


def test_items_keep_the_order_and_tell_what_is_left_out(root, warnings):
    dataset = Numbered(root, ignore_background=True)
    items = [dataset[index] for index in range(len(dataset))]
    assert [item['n'] for item in items] == [0, 1, 2, 4]
    assert [item['img_id'] for item in items] == [item['sample_idx'] for item in items] == [0, 1, 2, 3]
    assert [item['ignore_background'] for item in items] == [True] * 4
    assert dataset.skipped == {'third one': [str(root / '3.jpg')]}
    assert warnings() == [f'Numbered: 1 left out of {root}: third one, such as {root / "3.jpg"}']


def test_missing_files_are_an_error_or_counted(root, warnings):
    (root / '1.png').unlink()
    (root / '2.jpg').unlink()
    (root / '4.jpg').unlink()
    with pytest.raises(FileNotFoundError) as error:
        Numbered(root)
    message = str(error.value)
    assert f'1 left out of {root}: no instance map, such as {root / "1.png"}' in message
    assert f'2 left out of {root}: no image, such as {root / "2.jpg"}, {root / "4.jpg"}' in message
    assert "missing='skip' goes on without them" in message
    dataset = Numbered(root, missing='skip')
    assert [dataset[index]['n'] for index in range(len(dataset))] == [0]
    assert dataset.skipped['no image'] == [str(root / '2.jpg'), str(root / '4.jpg')]
    assert dataset.skipped['no instance map'] == [str(root / '1.png')]
    assert len(warnings()) == 3


def test_a_folder_in_place_of_a_file_is_missing(root):
    (root / '4.png').unlink()
    (root / '4.png').mkdir()
    with pytest.raises(FileNotFoundError, match='no instance map, such as .*4.png'):
        Numbered(root)


def test_nothing_to_read_and_wrong_settings(root, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match='expects a folder at data_root'):
        Numbered(root / 'nowhere')
    with pytest.raises(ValueError, match='found no pair of image and instance map in'):
        Numbered(tmp_path_factory.mktemp('empty'), missing='skip')
    with pytest.raises(ValueError, match="missing must be one of .* but got 'ignore'"):
        Numbered(root, missing='ignore')
    with pytest.raises(ValueError, match="empty must be one of .* but got 'drop'"):
        Numbered(root, empty='drop')
    with pytest.raises(ValueError, match="empty='redraw' is for training"):
        Numbered(root, empty='redraw', test_mode=True)


def test_samples_without_an_instance_are_kept_counted_and_announced(root, warnings):
    dataset = Numbered(root, pipeline=PIPELINE)
    del dataset.skipped
    for _ in range(12):
        assert dataset[0]['data_samples'].gt_instance_map.data.tolist() == [[[0] * 6] * 4]
        assert dataset[2]['data_samples'].gt_instance_map.data.unique().tolist() == [2]
    assert dataset.num_empty == 12
    told = [text for text in warnings() if 'no instance in' in text]
    assert [text.split('(')[1] for text in told] == ['1 so far in this process)', '10 so far in this process)']
    assert '0.png after the pipeline' in told[0] and "empty='keep' keeps it" in told[0]


def test_redrawn_samples_have_an_instance_and_follow_the_visit(root):
    dataset = Numbered(root, empty='redraw', pipeline=PIPELINE)
    mixed = MixedDataset([dataset], seed=0)

    def drawn(visit: int) -> int:
        return mixed[Visit(0, visit)]['data_samples'].gt_instance_map.data.unique().item()

    first = [drawn(visit) for visit in range(30)]
    assert set(first) == {1, 2, 4}
    assert [drawn(visit) for visit in range(30)] == first  # a resumed run draws the same
    assert dataset.num_empty >= 60
    assert mixed[Visit(1, 0)]['data_samples'].gt_instance_map.data.unique().tolist() == [1]


def test_empty_samples_can_be_an_error(root):
    dataset = Numbered(root, empty='error', pipeline=PIPELINE[:2])
    assert dataset[1]['gt_instance_map'].tolist() == [[1] * 6] * 4
    with pytest.raises(ValueError, match="0.png: no instance .* empty='error' refuses"):
        dataset[0]


def test_a_map_of_another_size_names_both_files(root):
    Image.fromarray(np.ones((6, 4), np.uint8)).save(root / '2.png')
    dataset = Numbered(root, pipeline=PIPELINE)
    with pytest.raises(ValueError, match=r'2.png: .*2.jpg \(4, 6\), but got \(6, 4\)'):
        dataset[2]


# ---- PNG and HDF5 files, good and bad


STORED_IDS = np.array([[-1, 1, 255], [256, 4166, 32767]], np.int16)


def hdf5(path, data=STORED_IDS, key='dataset'):
    with h5py.File(path, 'w') as file:
        file.create_dataset(key, data=data, compression='gzip')
    return path


def test_hdf5_keeps_large_ids_and_minus_one_is_background(tmp_path):
    path = hdf5(tmp_path / 'frame.0000.semantic_instance.hdf5')
    ids = read_instance_map(path)
    assert ids.tolist() == [[0, 1, 255], [256, 4166, 32767]]
    assert ids.dtype == np.int32
    results = LoadInstanceMap()(dict(instance_map_path=str(path), ori_shape=(2, 3)))
    assert results['gt_instance_map'].tolist() == ids.tolist()
    assert results['seg_fields'] == ['gt_instance_map']


def test_hdf5_in_a_read_only_folder(tmp_path):
    path = hdf5(tmp_path / 'a.hdf5')
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    assert read_instance_map(path)[1].tolist() == [256, 4166, 32767]
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (np.ones((2, 3), np.float32), r'integer ids of shape \(H, W\), but got float32'),
        (np.ones((2, 3, 1), np.int16), r'but got int16 of shape \(2, 3, 1\)'),
        (np.array([[-2, 0]], np.int16), 'or -1 where there is none, but got -2'),
    ],
)
def test_hdf5_of_something_else_is_refused(tmp_path, data, message):
    path = hdf5(tmp_path / 'a.hdf5', data)
    with pytest.raises(ValueError, match=message) as error:
        read_instance_map(path)
    assert str(path) in str(error.value)


def test_hdf5_without_the_array_is_refused(tmp_path):
    path = hdf5(tmp_path / 'a.hdf5', key='other')
    with pytest.raises(ValueError, match=r"expected an array 'dataset', but got the names \['other'\]"):
        read_instance_map(path)


@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.95])
def test_truncated_hdf5_is_named(tmp_path, share):
    ids = np.random.default_rng(0).integers(1, 4166, (100, 100)).astype(np.int16)
    path = hdf5(tmp_path / 'a.hdf5', ids)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r'a.hdf5: expected an HDF5 file .*: fetch it again'):
        read_instance_map(path)


def test_palette_png_gives_indices_and_not_colours(tmp_path):
    ids = np.array([[0, 5, 21], [200, 255, 1]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(bytes([7]) * 768)  # every index has one colour
    image.save(tmp_path / 'a.png')
    assert read_instance_map(tmp_path / 'a.png').tolist() == ids.tolist()
    check_index_png(tmp_path / 'a.png')


@pytest.mark.parametrize('depth', [np.uint8, np.uint16])
def test_grey_png_gives_its_values(tmp_path, depth):
    ids = np.array([[0, 1], [254, np.iinfo(depth).max]], depth)
    Image.fromarray(ids).save(tmp_path / 'a.png')
    assert read_instance_map(tmp_path / 'a.png').tolist() == ids.tolist()
    check_index_png(tmp_path / 'a.png')


def test_rgb_png_is_a_code_of_the_id(tmp_path):
    colours = np.array([[[0, 0, 0], [0, 1, 4]], [[1, 0, 0], [255, 255, 254]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / 'a.png')
    assert read_instance_map(tmp_path / 'a.png').tolist() == [[0, 260], [65536, 16777214]]
    with pytest.raises(ValueError, match='a.png: expected a palette PNG .* but got mode RGB, colours'):
        check_index_png(tmp_path / 'a.png')


def test_other_files_are_refused(tmp_path):
    (tmp_path / 'text.png').write_text('no picture')
    Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(tmp_path / 'rgba.png')
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / 'float.tiff')
    for name, message in (
        ('text.png', 'expected a PNG of instance ids, but got a file of no known format'),
        ('rgba.png', 'but got mode RGBA'),
        ('float.tiff', 'but got mode F'),
    ):
        with pytest.raises(ValueError, match=f'{name}: .*{message}'):
            read_instance_map(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='no instance map at .*nothing.png'):
        read_instance_map(tmp_path / 'nothing.png')
    with pytest.raises(ValueError, match='text.png'):
        check_index_png(tmp_path / 'text.png')


def test_truncated_png_is_named(tmp_path):
    ids = np.random.default_rng(0).integers(0, 255, (60, 60)).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / 'a.png')
    content = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match='a.png: expected a PNG of instance ids, but got'):
        read_instance_map(tmp_path / 'a.png')


def test_ids_beyond_int32_and_fractions_are_refused(tmp_path):
    for ids, wrong in (
        (np.array([[0, 2**31]], np.int64), '2147483648'),
        (np.array([[0, 2**40 + 7]], np.uint64), '1099511627783'),
        (np.array([[0, 4294967295]], np.uint32), '4294967295'),
    ):
        path = hdf5(tmp_path / 'a.hdf5', ids)
        with pytest.raises(ValueError, match=rf'a\.hdf5: expected ids from .*int32.*got {wrong}'):
            read_instance_map(path)
        with pytest.raises(ValueError, match=f'b.jpg: expected ids from .* but got {wrong}'):
            LoadInstanceMap()(dict(gt_instance_map=ids, img_path='b.jpg', ori_shape=(1, 2)))
    largest = np.array([[0, 2**31 - 1]], np.int64)
    assert read_instance_map(hdf5(tmp_path / 'a.hdf5', largest)).tolist() == largest.tolist()
    for ids in (np.array([[0.0, 3.0]]), np.array([[False, True]]), np.array([[0, 3]], '>u2')):
        read = LoadInstanceMap()(dict(gt_instance_map=ids, ori_shape=(1, 2)))['gt_instance_map']
        assert read.dtype == np.int32 and read.tolist() == ids.astype(int).tolist()
    for ids, wrong in ((np.array([[0, 1.5]]), '1.5'), (np.array([[np.nan, 1]]), 'nan')):
        with pytest.raises(ValueError, match=f'expected whole ids, but got {wrong}'):
            LoadInstanceMap()(dict(gt_instance_map=ids, ori_shape=(1, 2)))


def test_hdf5_may_not_lead_elsewhere_nor_claim_too_much(tmp_path):
    (tmp_path / 'raw.bin').write_bytes(bytes(2400))
    elsewhere = hdf5(tmp_path / 'other.hdf5')
    layout = h5py.VirtualLayout((2, 3), 'i2')
    layout[:] = h5py.VirtualSource(elsewhere, 'dataset', (2, 3))
    path = tmp_path / 'a.hdf5'

    def external(file):
        file.create_dataset('dataset', (20, 30), 'i4', external=[(tmp_path / 'raw.bin', 0, 2400)])

    def huge(file):
        file.create_dataset('dataset', (10**6, 10**6), 'i4', chunks=(100, 100))

    def huge_chunk(file):
        file.create_dataset('dataset', (2, 3), 'i4', chunks=(20000, 20000), maxshape=(None, None))

    def filtered(file):
        file.create_dataset('dataset', data=np.ones((20, 30), 'i4'), scaleoffset=0)

    def bomb(file):
        node = file.create_dataset('dataset', (20, 30), 'i4', chunks=(20, 30), compression='gzip')
        node.id.write_direct_chunk((0, 0), zlib.compress(bytes(80 * 2**20)))

    for write, message in (
        (external, 'external storage, whose data lie in other files'),
        (lambda file: file.create_virtual_dataset('dataset', layout), 'a virtual one, whose data'),
        (lambda file: file.update(dataset=h5py.SoftLink('/x')), 'itself, but got a SoftLink'),
        (lambda file: file.update(dataset=h5py.ExternalLink(elsewhere, 'dataset')), 'a ExternalLink'),
        (huge, 'expected at most 100000000 pixels, but its header says 1000000x1000000'),
        (huge_chunk, 'a chunk of it: expected at most 100000000 pixels'),
        (filtered, 'plain or compressed by gzip or lzf, but got the filters'),
        (bomb, 'expected chunks of 2400 bytes, but one unpacks to more'),
        (lambda file: file.create_group('dataset'), r"expected an array 'dataset', but got the names"),
        (lambda file: file.create_dataset('dataset', data='text'), 'expected integer ids'),
        (lambda file: file.create_dataset('dataset', data=h5py.Empty('i4')), 'expected integer ids'),
    ):
        with h5py.File(path, 'w') as file:
            write(file)
        with pytest.raises(ValueError, match=message) as error:
            read_instance_map(path)
        assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('chunks', [None, (100, 7), (1500, 11)])
def test_tall_hdf5_maps_are_read_whole(tmp_path, chunks):
    ids = np.arange(2500 * 11, dtype=np.int64).reshape(2500, 11) - 1
    with h5py.File(tmp_path / 'a.hdf5', 'w') as file:
        file.create_dataset('dataset', data=ids, chunks=chunks)
    assert np.array_equal(read_instance_map(tmp_path / 'a.hdf5'), np.maximum(ids, 0))
