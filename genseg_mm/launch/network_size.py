"""The size that a model asks for, filled into the pipelines of its data."""

from typing import Any

from mmengine.config import ConfigDict
from torch import nn

from genseg_mm.network_sizes import is_network_resize


def fill_network_resize(dataset: Any, model: nn.Module | None) -> Any:
    """A copy of a dataset's config in which ``NetworkResize`` without settings has those that the model asks for.

    Args:
        dataset: Config of a dataset, of datasets that are joined, or of a data loader.
        model: The built model. None, or one that takes pictures as they are: the transform is left out.
    """
    wanted = None
    if model is not None:
        from genseg_mm.models.network_size import (
            network_resize_of,  # there is a model: imported already
        )

        wanted = network_resize_of(model)

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return type(value)({key: fill(inner) for key, inner in value.items()})
        if not isinstance(value, list | tuple):
            return value
        filled = []
        for inner in value:
            if not is_network_resize(inner):
                filled.append(fill(inner))
            elif wanted is not None:
                filled.append(ConfigDict(inner, **wanted))
        return type(value)(filled)

    return fill(dataset)
