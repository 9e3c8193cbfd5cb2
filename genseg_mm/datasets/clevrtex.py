"""ClevrTex: textured solids on textured ground, with the index of every object."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genseg_mm.datasets.annotation_files import folders_below
from genseg_mm.datasets.instance_maps import InstanceMapDataset, check_index_png
from genseg_mm.registry import DATASETS

VARIANTS = ('full', 'pbg', 'vbg', 'grassbg', 'camo', 'outd')
UNSPLIT = ('outd',)
SPLITS = ('train', 'val', 'test')


@DATASETS.register_module()
class ClevrTexDataset(InstanceMapDataset):
    """ClevrTex (Karazija et al., NeurIPS 2021 Datasets and Benchmarks), 240 x 320, and its variants.

    Anywhere below data_root: ``CLEVRTEX_<variant>_%06d.png`` (the picture), ``..._flat.png`` (palette PNG: index =
    instance, 0 = ground) and ``....json`` (materials and shapes; not read). Splits are by sorted number, as the
    authors' loader has them: test is the first tenth, val the second, train the rest.

    Items have, besides those of every ``InstanceMapDataset``, ``metadata_path`` where there is a json, and
    ``subset``, by default the variant.

    Args:
        data_root: Folder of one variant, or of several.
        variant: 'full', 'pbg', 'vbg', 'grassbg', 'camo' or 'outd'.
        split: 'train', 'val', 'test'; None takes all. 'outd' has no splits.
        **kwargs: As for ``InstanceMapDataset``.

    Raises:
        FileNotFoundError: If there is no such folder, or a file of a pair is missing.
        ValueError: If variant or split is unknown, a number comes twice, or the index file is no palette PNG.
    """

    def __init__(self, data_root: str, variant: str = 'full', split: str | None = 'train', **kwargs: Any) -> None:
        if variant not in VARIANTS:
            raise ValueError(f'variant must be one of {VARIANTS}, but got {variant!r}')
        if split not in (None, *SPLITS):
            raise ValueError(f'split must be one of {SPLITS} or None, but got {split!r}')
        if split and variant in UNSPLIT:
            raise ValueError(f'variant {variant!r} is for testing as a whole: set split=None, but got {split!r}')
        self.variant, self.split = variant, split
        super().__init__(data_root=data_root, **{'subset': variant, **kwargs})

    def list_pairs(self) -> Iterator[dict]:
        """See ``InstanceMapDataset``."""
        scenes = self._scenes()
        numbers = sorted(scenes)
        # Numbers of broken pairs count as well: a lost file must not move the others to another split.
        first, second = len(numbers) // 10, len(numbers) * 2 // 10
        parts = {None: numbers, 'test': numbers[:first], 'val': numbers[first:second], 'train': numbers[second:]}
        checked = False
        for number in parts[self.split]:
            stem, endings = scenes[number]
            if '_flat.png' in endings and not checked:
                check_index_png(f'{stem}_flat.png')
                checked = True
            item = dict(
                img_path=f'{stem}.png',
                instance_map_path=f'{stem}_flat.png',
                ids_are_indices=True,
                img_id=number,
            )
            if '.json' in endings:
                item['metadata_path'] = f'{stem}.json'
            yield item

    def _scenes(self) -> dict[int, tuple[str, set[str]]]:
        """Number -> path without ending, and which endings there are."""
        pattern = re.compile(rf'(CLEVRTEX_{self.variant}_(\d{{6}}))(\.png|_flat\.png|\.json)')
        scenes: dict[int, tuple[str, set[str]]] = {}
        for folder, names in folders_below(self.data_root):
            for match in filter(None, map(pattern.fullmatch, names)):
                stem = str(Path(folder, match[1]))
                known, endings = scenes.setdefault(int(match[2]), (stem, set()))
                if known != stem:
                    raise ValueError(
                        f'{self.data_root} holds {match[1]} twice, in {Path(known).parent} and in {folder}: point '
                        'data_root to one copy'
                    )
                endings.add(match[3])
        return scenes
