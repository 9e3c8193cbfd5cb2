"""The one walk through datasets that hold others: of configs and of built ones.

MMEngine and mmdet nest them in two ways: ``datasets`` is a list that is joined (``ConcatDataset``), ``dataset`` is one
that is repeated, balanced or wrapped (``RepeatDataset``).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import ConfigDict
from torch import nn

from genseg_mm.network_sizes import is_network_resize, network_resize_of

# Places in a benchmark's pipeline that are filled by the model, and its transforms that may fill them.
MODEL_PLACES = dict(model_resize='Resize', model_descriptions='UseDescriptions')


def parts_of(dataset: Any) -> list[Any]:
    """The datasets that a dataset is directly made of; none for a single one.

    Args:
        dataset: A config, or a built dataset.
    """
    if isinstance(dataset, Mapping):
        parts, inner = dataset.get('datasets'), dataset.get('dataset')
        is_dataset = isinstance(inner, Mapping)
    else:
        parts, inner = getattr(dataset, 'datasets', None), getattr(dataset, 'dataset', None)
        is_dataset = hasattr(inner, 'get_data_info')
    if isinstance(parts, (list, tuple)):
        return list(parts)
    return [inner] if is_dataset else []


def walk(dataset: Any) -> Iterator[Any]:
    """A dataset and all datasets in it, each before its parts."""
    yield dataset
    for part in parts_of(dataset):
        yield from walk(part)


def single_datasets(dataset: Any) -> Iterator[Any]:
    """The datasets that are not made of others, in their order."""
    return (own for own in walk(dataset) if not parts_of(own))


def pipeline_of(cfg: Mapping) -> list[dict]:
    """Transforms of the test dataset of a config; none where it has no such dataset."""
    datasets = walk((cfg.get('test_dataloader') or {}).get('dataset') or {})
    return next((own['pipeline'] for own in datasets if own.get('pipeline')), None) or cfg.get('test_pipeline') or []


def replace_transforms(config: Any, replace: Callable[[dict], list[dict] | None]) -> Any:
    """A copy of a config in which transforms are others.

    Args:
        config: Of a dataset, of several in one, or of a data loader.
        replace: Called with each dict that is an entry of a list; what stands there in its place, or None for itself.
    """
    if isinstance(config, dict):
        return type(config)({key: replace_transforms(inner, replace) for key, inner in config.items()})
    if not isinstance(config, (list, tuple)):
        return config
    entries: list[Any] = []
    for own in config:
        others = replace(own) if isinstance(own, dict) else None
        entries += [replace_transforms(own, replace)] if others is None else others
    return type(config)(entries)


def fill_network_resize(dataset: Any, model: nn.Module | None) -> Any:
    """A copy of a dataset's config in which ``NetworkResize`` without settings has those that the model asks for.

    Args:
        dataset: Config of a dataset, of datasets that are joined, or of a data loader.
        model: The built model. None, or one that takes pictures as they are: the transform is left out.
    """
    wanted = None if model is None else network_resize_of(model)

    def fill(transform: dict) -> list[dict] | None:
        if not is_network_resize(transform):
            return None
        return [] if wanted is None else [ConfigDict(transform, **wanted)]

    return replace_transforms(dataset, fill)
