"""What a runner asks of its data and metrics before anything runs."""

from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.registry import DATA_SAMPLERS, DATASETS, Registry
from torch.utils.data import IterableDataset

from genseg_mm.datasets import RatioInfiniteSampler, SeededAccess, SeededDataset, VisitSampler


def seed_samples(dataloader: dict[str, Any]) -> dict[str, Any]:
    """A dataloader config whose samples draw from (seed, index, visit), so that a resumed run repeats them.

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


def check_evaluator(evaluator: Evaluator, dataset: Any, where: str) -> None:
    """Refuses metrics that would fail, or silently mean nothing, at the end of the first validation.

    A metric answers for itself by a method ``check_dataset(dataset, where)``; of mmdet's and mmseg's it is known here.

    Args:
        evaluator: Of a validation or test loop, built.
        dataset: That it evaluates, built.
        where: Key of the evaluator in the config, for messages.

    Raises:
        ValueError: If a metric needs a subset, classes or categories that are not there.
    """
    classes = tuple((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
    for metric in evaluator.metrics:
        name = type(metric).__name__
        if hasattr(metric, 'check_dataset'):
            metric.check_dataset(dataset, where)
        elif name == 'CocoMetric' and getattr(metric, '_coco_api', None) is not None:
            _check_categories(metric._coco_api, classes, where)
        elif name == 'IoUMetric' and len(classes) < 2:
            raise ValueError(
                f'{where}: IoUMetric needs the names of at least two classes, such as '
                f"metainfo=dict(classes=('background', 'object')) in the dataset, but got {classes}"
            )


def _check_categories(coco: Any, classes: tuple[str, ...], where: str) -> None:
    names = [category['name'] for category in coco.dataset.get('categories', [])]
    if not set(names) & set(classes):
        shown = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
        raise ValueError(
            f'{where}: CocoMetric(ann_file=...) looks for the classes {classes} of the dataset, but the file has '
            f'{shown}; leave ann_file out: the dataset gives its instances to the metric, as one class'
        )
