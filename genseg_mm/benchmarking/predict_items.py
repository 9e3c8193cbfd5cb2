"""Predictions of single items of a dataset, for pictures."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from torch import nn


def predict_items(runner_or_model: Any, dataset: Any, indices: Sequence[int]) -> list[BaseDataElement]:
    """Predicts items one by one, as :class:`genseg_mm.BenchmarkLoop` does.

    Args:
        runner_or_model: A model in eval mode, or a runner that has one.
        dataset: With a pipeline that packs; in test mode.
        indices: Which items, in this order.

    Returns:
        Data samples with ground truth and predictions.
    """
    return [sample for _, sample in predicted_items(runner_or_model, dataset, indices)]


def predicted_items(
    runner_or_model: Any, dataset: Any, indices: Sequence[int]
) -> Iterator[tuple[np.ndarray, BaseDataElement]]:
    """The same with the network's input, BGR (3, h, w), before each."""
    model = runner_or_model
    if not isinstance(model, nn.Module):
        model = runner_or_model.model
    model.eval()
    for index in indices:
        item = dataset[int(index)]
        image = np.asarray(item['inputs'])
        with torch.no_grad():
            (sample,) = model.test_step(pseudo_collate([item]))
        yield image, sample
