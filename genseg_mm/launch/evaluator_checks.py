"""Whether the metrics of a run can take what its data set gives: before it trains, not after."""

from typing import Any

from mmengine.evaluator import Evaluator

from genseg_mm.dataset_configs import single_datasets


def check_evaluator(evaluator: Evaluator, dataset: Any, where: str) -> None:
    """Refuses metrics that would fail, or silently mean nothing, at the end of the first validation.

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
        if name == 'PointPromptMetric' and metric.calibrate:
            _check_calibration(metric, dataset, where)
        elif name == 'CocoMetric' and getattr(metric, '_coco_api', None) is not None:
            _check_categories(metric._coco_api, classes, where)
        elif name == 'IoUMetric' and len(classes) < 2:
            raise ValueError(
                f'{where}: IoUMetric needs the names of at least two classes, such as '
                f"metainfo=dict(classes=('background', 'object')) in the data set, but got {classes}"
            )


def _check_calibration(metric: Any, dataset: Any, where: str) -> None:
    subsets = [(own.subset or '') if hasattr(own, 'subset') else None for own in single_datasets(dataset)]
    if None in subsets or metric.calibration_subset in subsets:  # None: only the samples can tell
        return
    raise ValueError(
        f"{where}: PointPromptMetric(threshold='calibrate') needs a part of the evaluation set with "
        f'subset={metric.calibration_subset!r}, but got the subsets {sorted(set(subsets))}; leave threshold out '
        "('reference'), or set it to a radius"
    )


def _check_categories(coco: Any, classes: tuple[str, ...], where: str) -> None:
    names = [category['name'] for category in coco.dataset.get('categories', [])]
    if not set(names) & set(classes):
        shown = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
        raise ValueError(
            f'{where}: CocoMetric(ann_file=...) looks for the classes {classes} of the data set, but the file has '
            f'{shown}; leave ann_file out: the data set gives its instances to the metric, as one class'
        )
