"""The size of a model's input, as a config's test pipeline gives it."""

from collections.abc import Iterator
from typing import Any

from mmengine.registry import DATASETS


def input_size(cfg: Any) -> tuple[int, int]:
    """Height and width that the test pipeline resizes to.

    Where the model decides them (``NetworkResize``) those that the training pipeline resizes to; without a Resize those
    of the first test item.

    Raises:
        ValueError: If the config has no test data.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if dataset is None:
        raise ValueError('the config has no test_dataloader that tells the size: expected --shape')
    resize = next(resizes(dataset), None)
    if resize is None and 'NetworkResize' in str(dataset):
        resize = next(resizes((cfg.get('train_dataloader') or {}).get('dataset') or {}), None)
        if resize is None:
            raise ValueError('the model decides the size of its pictures: expected --shape, but got none')
    if resize is not None:
        width, height = resize['scale']
        return height, width
    return tuple(DATASETS.build(dataset)[0]['inputs'].shape[-2:])


def resizes(dataset: Any) -> Iterator[dict]:
    """The configs of Resize with a scale in the pipelines of a dataset's config, through whatever joins datasets."""
    for transform in dataset.get('pipeline') or []:
        if str(transform.get('type')).endswith('Resize') and transform.get('scale'):
            yield transform
    for own in [dataset.get('dataset'), *(dataset.get('datasets') or [])]:
        if own is not None:
            yield from resizes(own)
