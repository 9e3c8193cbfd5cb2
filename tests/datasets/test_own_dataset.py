"""A dataset of one's own, from outside the package: one class, with its layout and what is published of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.dataset import ConcatDataset
from PIL import Image

from genseg_mm.datasets import InstanceFolderDataset, ReferringDataset
from genseg_mm.datasets.annotation_files import named_files
from genseg_mm.datasets.instance_maps import InstanceMapDataset
from genseg_mm.datasets.published_counts import Count, difference, expected_items, shortage
from genseg_mm.registry import DATASETS


@DATASETS.register_module()
class OwnCellsDataset(InstanceMapDataset):
    """``<data_root>/pictures/<name>.png`` with the ids of its cells in ``<data_root>/cells/<name>.png``."""

    PUBLISHED = 3  # pictures

    def list_pairs(self) -> Iterator[dict]:
        folder = Path(self.data_root)
        for name in sorted(named_files(folder / 'pictures', ('.png',))):
            pictures, cells = (folder / kind / f'{name}.png' for kind in ('pictures', 'cells'))
            yield dict(img_path=str(pictures), instance_map_path=str(cells), img_id=name)

    def published_items(self) -> int:
        return self.PUBLISHED

    def published_counts(self) -> Iterator[Count]:
        yield Count(len(self), 'pictures', self.PUBLISHED)


def test_an_own_dataset_has_what_ours_have(tmp_path):
    ids = np.zeros((8, 8), np.uint16)
    ids[1:4, 2:5], ids[6, 6] = 300, 7
    for kind, array in (('pictures', np.zeros((8, 8, 3), np.uint8)), ('cells', ids)):
        (tmp_path / kind).mkdir()
        for name in 'ab':
            Image.fromarray(array).save(tmp_path / kind / f'{name}.png')
    config = dict(
        type='genseg_mm.OwnCellsDataset',
        data_root=str(tmp_path),
        subset='cells',
        test_mode=True,
        pipeline=[
            dict(type='genseg_mm.LoadImage'),
            dict(type='genseg_mm.LoadInstanceMap'),
            dict(type='genseg_mm.PointPrompt', mode='deepest'),
            dict(type='genseg_mm.PackGenSegInputs'),
        ],
    )
    dataset = DATASETS.build(config)
    sample = dataset[1]['data_samples']
    assert (sample.img_id, sample.subset, sample.point_ids.tolist()) == ('b', 'cells', [7, 300])
    assert sample.points.tolist() == [[[6, 6]], [[3, 2]]]
    assert sample.gt_instance_map.data[0].tolist() == ids.tolist()
    # What the tools and the benchmark say of a copy
    assert expected_items(dataset) == 3 and shortage(dataset) == '2 of 3 pictures'
    assert difference(dataset) == '1 pictures fewer than the 3 of the complete dataset'
    joined = ConcatDataset([dataset, DATASETS.build(dict(config, subset='others'))])
    assert expected_items(joined) == 6 and shortage(joined) == '4 of 6 pictures'


@DATASETS.register_module()
class OwnFolders(InstanceFolderDataset):
    """Folders whose items say where they are from."""

    def list_pairs(self) -> Iterator[dict]:
        for pair in super().list_pairs():
            yield dict(pair, source='own')


@DATASETS.register_module()
class OwnSentences(ReferringDataset):
    """A table whose sentences begin alike."""

    def usable_text(self, value: object, where: str, name: str = '') -> str:
        text = super().usable_text(value, where, name)
        return text and f'the {text}'


def test_subclasses_of_the_readers_of_own_data(tmp_path):
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / folder / 'a.png')
    (tmp_path / 'refs.csv').write_text('image,mask,text\nimages/a.png,masks/a.png,line\n')
    folders = DATASETS.build(dict(type='genseg_mm.OwnFolders', data_root=str(tmp_path)))
    assert (
        folders.get_data_info(0)['source'] == 'own' and difference(folders) is None and expected_items(folders) is None
    )
    sentences = dict(type='genseg_mm.OwnSentences', data_root=str(tmp_path), ann_file='refs.csv', mask_values='0/1')
    pipeline = [dict(type=f'genseg_mm.{name}') for name in ('LoadImage', 'LoadReferringMask', 'PackGenSegInputs')]
    sample = DATASETS.build(dict(sentences, test_mode=True, pipeline=pipeline))[0]['data_samples']
    assert sample.text == 'the line' and np.array_equal(sample.gt_sem_seg.data[0], np.eye(8))
