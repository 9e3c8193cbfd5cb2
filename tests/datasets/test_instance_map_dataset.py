"""Listing of pairs, missing files and samples without any instance."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from genseg_mm.datasets.instance_maps import InstanceMapDataset
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
