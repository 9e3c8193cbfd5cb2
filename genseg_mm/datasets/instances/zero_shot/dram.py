"""DRAM: paintings with semantic labels, for zero-shot point prompts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genseg_mm.datasets.annotation_files import where_configs_look
from genseg_mm.datasets.instances.instance_map_dataset import InstanceMapDataset
from genseg_mm.datasets.instances.zero_shot.label_rules import label_rule
from genseg_mm.datasets.published_counts import Count
from genseg_mm.files import read_lines
from genseg_mm.registry import DATASETS

MOVEMENTS = ('realism', 'impressionism', 'post_impressionism', 'expressionism')
LISTS = ('dram', *MOVEMENTS, 'unseen', 'dram_with_unseen')
# The ids of PASCAL VOC that DRAM evaluates; its twelfth class is the background.
CLASSES = dict(
    bird=3, boat=4, bottle=5, cat=8, chair=9, cow=10, dog=12, horse=13, person=15, pottedplant=16, sheep=17
)  # fmt: skip
KNOWN = (*range(21), 255)


@DATASETS.register_module()
class DRAMDataset(InstanceMapDataset):
    """The labelled paintings of DRAM (Cohen et al., Semantic Segmentation in Art Paintings, 2022).

    Layout: ``<data_root>/test/<movement>/<artist>/<name>.jpg`` with ``labels/<movement>/<artist>/<name>.png``; what was
    not seen in training lies one level deeper, in ``unseen/<movement>/...``. ``<data_root>/test/<list>.txt`` names
    pictures, one a line, without ending. The archive holds a .rar. Names repeat across artists; ``img_id`` is the path
    from ``test/`` on, without ending.

    **Stated by the source** (the authors' loader): labels are PASCAL VOC's ids, 12 are evaluated (``CLASSES`` and 0),
    every other id and 255 is ignored. DRAM is semantic: it says nothing of instances.

    **Ours**: what is an instance (``instances``). Ignored pixels are background here, as nobody's; a mask that runs
    over them counts as wrong.

    **Unknown**: which list, which rule and which smallest region gen2seg's evaluation (arXiv 2505.15263) has.

    Items have, besides those of every ``InstanceMapDataset``, ``movement`` and ``artist``.

    Args:
        data_root: Folder ``DRAM_processed``.
        movement: List of pictures: ``'dram'`` (the four movements), one of them, ``'unseen'``, ``'dram_with_unseen'``.
        instances: ``'components'``: every connected region of a class is an instance; ``'classes'``: all pixels of a
            class are one. Ids: see ``genseg_mm/datasets/instances/zero_shot/label_rules.py``.
        min_area: Smaller regions in pixels are no instance.
        **kwargs: As for ``InstanceMapDataset``.

    Raises:
        FileNotFoundError: If the list, or a file of a pair, is missing.
        ValueError: If an argument or a line of the list is wrong; if a label file holds colours or other ids (when
            ``LoadInstanceMap`` reads it).
    """

    # Pictures by list, none of them confirmed: the paper's supplement has 135 unseen pictures, other readers 718 in
    # all; the movements' own numbers are not published.
    PUBLISHED = dict(dram=583, unseen=135, dram_with_unseen=718)

    def __init__(
        self,
        data_root: str,
        movement: str = 'dram_with_unseen',
        instances: str = 'components',
        min_area: int = 1,
        **kwargs: Any,
    ) -> None:
        if movement not in LISTS:
            raise ValueError(f'movement must be one of {LISTS}, but got {movement!r}')
        self.movement = movement
        self.label_rule = label_rule(tuple(CLASSES.values()), KNOWN, instances, min_area)
        super().__init__(data_root=data_root, **kwargs)

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        path = Path(self.data_root) / 'test' / f'{self.movement}.txt'
        if not path.is_file():
            raise FileNotFoundError(
                f'DRAMDataset: there is no list {path}, expected <data_root>/test/{{{",".join(LISTS)}}}.txt. '
                f'{where_configs_look()}'
            )
        seen = set()
        for number, line in read_lines(path):
            name = line.strip()
            if not name:
                continue
            parts = name.split('/')
            if len(parts) != 3 + (parts[0] == 'unseen') or '..' in parts or '' in parts:
                raise ValueError(
                    f'{path}, line {number}: expected <movement>/<artist>/<name> or '
                    f'unseen/<movement>/<artist>/<name>, but got {name!r}'
                )
            if name in seen:
                raise ValueError(f'{path}, line {number}: {name!r} is in it twice')
            seen.add(name)
            yield self._pair(name, *parts[-3:-1])

    def published_counts(self) -> Iterator[Count]:
        """What a copy has beside what is published; see ``genseg_mm/datasets/published_counts.py``."""
        if self.movement in self.PUBLISHED:
            yield Count(len(self), 'pictures', self.PUBLISHED[self.movement], confirmed=False)

    def _pair(self, name: str, movement: str, artist: str) -> dict:
        return dict(
            img_path=str(Path(self.data_root, 'test', f'{name}.jpg')),
            instance_map_path=str(Path(self.data_root, 'labels', f'{name}.png')),
            ids_are_indices=True,
            label_rule=self.label_rule,
            img_id=name,
            movement=movement,
            artist=artist,
        )
