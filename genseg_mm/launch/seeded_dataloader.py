"""Training data that a resumed run repeats, whatever dataset, sampler and transforms they come from."""

from typing import Any

from mmengine.registry import DATA_SAMPLERS, DATASETS, Registry
from torch.utils.data import IterableDataset

from genseg_mm.datasets import RatioInfiniteSampler, SeededAccess, SeededDataset, VisitSampler


def seed_samples(dataloader: dict[str, Any]) -> dict[str, Any]:
    """A dataloader config whose samples draw from (seed, index, visit).

    Datasets and samplers of this package do so on their own; others are wrapped.

    Args:
        dataloader: Config, as MMEngine's ``Runner.build_dataloader`` takes it.
    """
    dataset, sampler = dataloader.get('dataset'), dataloader.get('sampler')
    if not isinstance(dataset, dict) or not isinstance(sampler, dict):
        return dataloader  # built by the caller, or wrong, of which MMEngine tells
    if not issubclass(_class_of(dataset, DATASETS), (SeededAccess, IterableDataset)):
        dataset = dict(type=SeededDataset, dataset=dataset)
    if not issubclass(_class_of(sampler, DATA_SAMPLERS), RatioInfiniteSampler):
        sampler = dict(type=VisitSampler, sampler=sampler)
    return dict(dataloader, dataset=dataset, sampler=sampler)


def _class_of(config: dict[str, Any], registry: Registry) -> type:
    kind = config.get('type')
    found = registry.get(kind) if isinstance(kind, str) else kind
    return found if isinstance(found, type) else object  # a function, or unknown: MMEngine tells
