"""Bad arguments of the instance-coloring loss, by name."""

import pytest
import torch

from genseg_mm.functional.instance_coloring import instance_coloring_loss

GOOD = {'colors': torch.zeros(2, 3, 4, 5), 'ids': torch.zeros(2, 4, 5, dtype=torch.int64)}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'colors': torch.zeros(2, 4, 4, 5)}, r'colors: .*\(2, 4, 4, 5\)'),
        ({'colors': torch.zeros(3, 4, 5)}, r'colors: .*\(3, 4, 5\)'),
        ({'colors': torch.zeros(0, 3, 4, 5)}, 'colors: .*empty'),
        ({'colors': torch.zeros(2, 3, 4, 5, dtype=torch.uint8)}, 'colors: .*torch.uint8'),
        ({'ids': torch.zeros(2, 5, 4, dtype=torch.int64)}, r'ids: .*\(2, 4, 5\).*\(2, 5, 4\)'),
        ({'ids': torch.zeros(2, 4, 5)}, 'ids: .*torch.float32'),
        ({'ids': torch.zeros(2, 4, 5, dtype=torch.bool)}, 'ids: .*torch.bool'),
        ({'ids': torch.full((2, 4, 5), -1)}, 'ids: .*-1'),
        ({'ignore_background': [True]}, r'ignore_background: expected 2 .*\(1,\)'),
        ({'ignore_background': torch.tensor([0, 1])}, 'ignore_background: .*torch.int64'),
        ({'formula': 'papers'}, "formula: .*'papers'"),
        ({'max_instances': 0}, 'max_instances: .*0'),
        ({'tile_size': -5}, 'tile_size: .*-5'),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        instance_coloring_loss(**{**GOOD, **change})
