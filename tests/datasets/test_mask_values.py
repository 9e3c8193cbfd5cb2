"""Masks of 0 and 255: black and white, or ignored? Every way into the models asks."""

import numpy as np
import pytest
import torch
from PIL import Image

from genseg_mm.datasets import LoadReferringMask, PackGenSegInputs
from genseg_mm.models.mask_head import GenerativeMaskHead

BLACK_AND_WHITE = np.array([[0, 255, 255], [0, 0, 255]], np.uint8)
IMAGE = np.zeros((2, 3, 3), np.uint8)


def item(mask: np.ndarray, path=None, **more) -> dict:
    sample = dict(img=IMAGE, img_path='a.jpg', text='it', task='mask', **more)
    if path is None:
        return dict(sample, gt_seg_map=mask)
    Image.fromarray(mask).save(path)
    return dict(sample, seg_map_path=str(path))


def test_a_black_and_white_mask_names_its_file_and_both_ways_out(tmp_path):
    path = tmp_path / 'mask.png'
    given = dict(item(BLACK_AND_WHITE), seg_map_path=str(path))  # as mmseg's LoadAnnotations leaves it
    for load, sample, name in (
        (LoadReferringMask(), item(BLACK_AND_WHITE, path), str(path)),
        (LoadReferringMask(), item(BLACK_AND_WHITE), 'mask of a.jpg'),
        (LoadReferringMask(), given, str(path)),
        (PackGenSegInputs(), given, str(path)),
        (PackGenSegInputs(), item(np.full((2, 3), 255, np.uint8)), 'mask of a.jpg'),
    ):
        with pytest.raises(ValueError, match='got 255 and no 1') as error:
            load(dict(sample))
        text = str(error.value)
        assert text.startswith(f'{name}: ') and '\n' not in text
        assert 'white=255' in text and 'written as 0 and 1' in text and 'leave it out' in text


def test_white_reads_it(tmp_path):
    for sample in (item(BLACK_AND_WHITE, tmp_path / 'mask.png'), item(BLACK_AND_WHITE)):
        results = LoadReferringMask(white=255)(sample)
        assert results['gt_seg_map'].tolist() == [[0, 1, 1], [0, 0, 1]]
        assert results['gt_seg_map'].dtype == np.uint8 and results['seg_fields'] == ['gt_seg_map']
        packed = PackGenSegInputs()(results)['data_samples']
        assert packed.gt_sem_seg.data.tolist() == [[[0, 1, 1], [0, 0, 1]]]
    with pytest.raises(ValueError, match='expected 0 and white=255, but got 7 as well'):
        LoadReferringMask(white=255)(item(np.array([[0, 255, 7]], np.uint8)))
    for white in (0, 256, True, '255'):
        with pytest.raises(ValueError, match='white must be a value from 1 to 255'):
            LoadReferringMask(white=white)


def test_sound_masks_stay_as_they_are(tmp_path):
    for mask in ([[0, 1, 255]], [[0, 0, 0]], [[1, 1, 1]], [[1, 255, 255]]):
        results = LoadReferringMask()(item(np.array(mask, np.uint8)))
        assert results['gt_seg_map'].tolist() == mask
    with pytest.raises(ValueError, match=r'mask of a\.jpg: expected a mask of 0, 1 and 255 .*got 2'):
        LoadReferringMask()(item(np.array([[0, 1, 2]], np.uint8)))


def test_what_crops_and_padding_leave_of_a_sound_mask_is_no_error():
    results = LoadReferringMask()(item(np.array([[1, 0, 255]], np.uint8)))
    results['gt_seg_map'] = results['gt_seg_map'][:, 1:]  # cropped
    sample = PackGenSegInputs()(LoadReferringMask()(results))['data_samples']
    assert sample.mask_values_checked is True
    drawn = GenerativeMaskHead.masks_to_images(sample.gt_sem_seg.data, [sample.mask_values_checked])
    assert drawn.eq(-1).all()


def test_the_model_is_the_last_guard():
    masks = torch.tensor([[[0, 1], [255, 0]], [[0, 255], [0, 0]]], dtype=torch.uint8)
    assert GenerativeMaskHead.masks_to_images(masks[:1])[0, 0].tolist() == [[-1, 1], [-1, -1]]
    for checked in (None, [True, False]):
        with pytest.raises(ValueError, match='mask 1 of the batch: .*got 255 and no 1.*white=255'):
            GenerativeMaskHead.masks_to_images(masks, checked)
    assert GenerativeMaskHead.masks_to_images(masks, [False, True])[1].eq(-1).all()
