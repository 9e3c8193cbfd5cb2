"""NaN and infinity in predictions are an error: every comparison with them is false, so that masks would be empty."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_finite(values: Tensor | np.ndarray, what: str, where: str) -> None:
    """Refuses a prediction with NaN or infinity.

    Args:
        values: Of any shape and type; whole numbers and truth values are always finite.
        what: They are, such as 'colours'.
        where: The picture.

    Raises:
        ValueError: If a value is not finite; with the picture and how many are.
    """
    values = torch.as_tensor(values)
    if not values.is_floating_point() or not values.numel():
        return
    # NaN and infinity come through to the extremes, which cost a tenth of asking every number.
    if torch.stack(torch.aminmax(values)).isfinite().all():
        return
    num = int((~values.isfinite()).sum())
    raise ValueError(
        f'{where}: expected a prediction of finite {what}, but got {num} of {values.numel()} values that are NaN or '
        'infinite: the training diverged, the weights are damaged, or half precision overflowed (try float32)'
    )


def picture_of(meta: Mapping[str, Any] | Any, place: int = 0) -> str:
    """Name of a sample's picture, for messages."""
    path = meta.get('picture_name') or meta.get('img_path')
    return str(path) if path else f'image {meta.get("img_id", meta.get("sample_idx", place))}'
