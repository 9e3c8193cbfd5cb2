"""GenSegDataPreprocessor: pictures of the loader to batches of the models, by hand."""

import pytest
import torch
from mmseg.structures import SegDataSample

from genseg_mm.models.data_preprocessor import GenSegDataPreprocessor


def picture(blue: int, green: int, red: int, height: int = 2, width: int = 3) -> torch.Tensor:
    """One colour, uint8 BGR, (3, H, W)."""
    return torch.tensor([blue, green, red], dtype=torch.uint8)[:, None, None].expand(3, height, width)


def test_bgr_bytes_become_rgb_in_minus_one_to_one():
    data = GenSegDataPreprocessor()(dict(inputs=[picture(0, 51, 255)], data_samples=[SegDataSample()]))
    assert data['inputs'].shape == (1, 3, 2, 3)
    torch.testing.assert_close(data['inputs'][0, :, 0, 0], torch.tensor([1.0, -0.6, -1.0]))
    assert data['data_samples'][0].batch_input_shape == (2, 3)


def test_another_scale_and_order():
    own = GenSegDataPreprocessor(mean=(0.0, 50.0, 0.0), std=(1.0, 2.0, 4.0), bgr_to_rgb=False)
    inputs = own(dict(inputs=[picture(8, 51, 255)]))['inputs']
    assert inputs[0, :, 1, 2].tolist() == [8.0, 0.5, 63.75]


def test_pictures_of_several_sizes_are_padded_at_the_right_and_bottom_with_grey():
    pictures = [picture(255, 255, 255, 2, 5), picture(0, 0, 0, 4, 3)]
    samples = [SegDataSample(), SegDataSample()]
    data = GenSegDataPreprocessor(pad_size_divisor=4)(dict(inputs=pictures, data_samples=samples))
    expected = torch.zeros(2, 3, 4, 8)
    expected[0, :, :2, :5], expected[1, :, :4, :3] = 1, -1
    torch.testing.assert_close(data['inputs'], expected)
    assert [own.batch_input_shape for own in data['data_samples']] == [(4, 8)] * 2
    with pytest.raises(ValueError, match=r'one size, but got \[\(2, 5\), \(4, 3\)\].*set pad_size_divisor'):
        GenSegDataPreprocessor()(dict(inputs=pictures))
