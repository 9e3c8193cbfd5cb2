"""What a result says about the data it was measured on."""

from dataclasses import dataclass

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, init_default_scope

from genseg_mm.launch.dataset_fingerprint import dataset_fingerprint
from genseg_mm.launch.expected_items import difference, expected_items, shortage


@dataclass
class DatasetFacts:
    """What a result says about its data."""

    type: str
    items: int
    expected: int | None
    difference: str | None
    incomplete: str | None
    fingerprint: str | None


def dataset_facts(cfg: Config) -> DatasetFacts:
    """Counts and fingerprint of the test set of a config.

    Raises:
        FileNotFoundError: If its files are missing; and whatever else the data set raises.
    """
    init_default_scope(cfg.default_scope)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if len(dataset) == 0:
        raise ValueError(f'the {type(dataset).__name__} of this benchmark has no items')
    return DatasetFacts(
        type=type(dataset).__name__,
        items=len(dataset),
        expected=expected_items(dataset),
        difference=difference(dataset),
        incomplete=shortage(dataset),
        fingerprint=dataset_fingerprint(dataset),
    )
