"""EgoHOS: first-person pictures of hands and what they touch, for zero-shot point prompts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genseg_mm.datasets.instances.instance_map_dataset import InstanceMapDataset, named_files
from genseg_mm.datasets.instances.zero_shot.label_rules import label_rule
from genseg_mm.datasets.published_counts import Count
from genseg_mm.registry import DATASETS

SPLITS = ('train', 'val', 'test_indomain', 'test_outdomain')
HANDS, OBJECTS = (1, 2), (3, 4, 5, 6, 7, 8)
ROLES = dict(all=(*HANDS, *OBJECTS), hands=HANDS, objects=OBJECTS)


@DATASETS.register_module()
class EgoHOSDataset(InstanceMapDataset):
    """EgoHOS (Zhang et al., Fine-Grained Egocentric Hand-Object Segmentation, ECCV 2022).

    Layout: ``<data_root>/<split>/image/<name>.jpg`` with ``<data_root>/<split>/label/<name>.png``, which is one channel
    of ids; ``contact/`` is not read. ``img_id`` is ``<split>/<name>``.

    **Stated by the source** (its README): 0 is the background, 1 and 2 the left and the right hand, 3, 4, 5 what the
    left, the right or both hands touch, 6, 7, 8 what is touched with that. An id is a *role*, not an object.

    **Ours**: what is an instance (``instances``), and both test splits as one benchmark.

    **Unknown**: rule and splits of gen2seg's evaluation (arXiv 2505.15263).

    Labels must be the original files: the authors' script resizes them with a filter that invents ids.

    Args:
        data_root: Folder of the splits.
        split: ``'train'``, ``'val'``, ``'test_indomain'`` or ``'test_outdomain'``.
        ids: Roles that are instances: ``'all'``, ``'hands'`` (1, 2), ``'objects'`` (3 to 8), or a list of roles.
        instances: ``'roles'``: all pixels of a role are one instance, with the role as id; ``'components'``: every
            connected region of a role is one. Ids: see ``genseg_mm/datasets/instances/zero_shot/label_rules.py``.
        min_area: Smaller regions in pixels are no instance.
        **kwargs: As for ``InstanceMapDataset``.

    Raises:
        FileNotFoundError: If a folder, or a file of a pair, is missing.
        ValueError: If an argument is wrong; if a label file holds colours or other ids (when ``LoadInstanceMap`` reads
            it).
    """

    # Pictures: 11,243 in the paper, which is train + val + test_indomain; the splits, and the 500 of test_outdomain,
    # are not confirmed.
    PUBLISHED = dict(train=8_993, val=1_124, test_indomain=1_126, test_outdomain=500)

    def __init__(
        self,
        data_root: str,
        split: str = 'test_indomain',
        ids: str | Sequence[int] = 'all',
        instances: str = 'roles',
        min_area: int = 1,
        **kwargs: Any,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, but got {split!r}')
        if instances not in ('roles', 'components'):
            raise ValueError(f"instances must be 'roles' or 'components', but got {instances!r}")
        if isinstance(ids, str) and ids not in ROLES:
            raise ValueError(f'ids must be one of {tuple(ROLES)} or a list of roles, but got {ids!r}')
        self.split = split
        self.label_rule = label_rule(
            ROLES[ids] if isinstance(ids, str) else ids,
            (0, *ROLES['all']),
            'classes' if instances == 'roles' else instances,
            min_area,
        )
        super().__init__(data_root=data_root, **kwargs)

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        yield Count(len(self), 'pictures', self.PUBLISHED[self.split], confirmed=False)

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        folder = Path(self.data_root) / self.split
        images, labels = folder / 'image', folder / 'label'
        absent = [own for own in (images, labels) if not own.is_dir()]
        for own in absent:
            self.skip(own, 'no folder')
        if absent:
            return
        names = named_files(images, ('.jpg',)) | named_files(labels, ('.png',))
        for name in sorted(names):
            yield dict(
                img_path=str(images / f'{name}.jpg'),
                instance_map_path=str(labels / f'{name}.png'),
                ids_are_indices=True,
                label_rule=self.label_rule,
                img_id=f'{self.split}/{name}',
            )
