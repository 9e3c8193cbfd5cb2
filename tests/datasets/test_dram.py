"""DRAMDataset on the tiny copy."""

import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genseg_mm.datasets import DRAMDataset, LoadImage, LoadInstanceMap
from genseg_mm.datasets.zero_shot import DRAM_CLASSES

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_tools' / 'make_tiny_dram.py'
make_tiny_dram = runpy.run_path(str(TOOL))['make_tiny_dram']
LOADING = [LoadImage(), LoadInstanceMap()]
# Not serialised: that is for training, and waits for the garbage collector each time.
build_dram = partial(DRAMDataset, serialize_data=False)


@pytest.fixture
def root(tmp_path):
    return make_tiny_dram(tmp_path / 'DRAM_processed')


def areas(dataset):
    """img_id -> {id: pixels}."""
    found = {}
    for item in dataset:
        ids, counts = np.unique(item['gt_instance_map'], return_counts=True)
        found[item['img_id']] = {int(i): int(n) for i, n in zip(ids, counts, strict=True) if i}
    return found


def test_ids_are_those_of_pascal_voc():
    assert [DRAM_CLASSES[name] for name in ('bird', 'boat', 'bottle', 'cat', 'chair', 'cow')] == [3, 4, 5, 8, 9, 10]
    assert [DRAM_CLASSES[name] for name in ('dog', 'horse', 'person', 'pottedplant', 'sheep')] == [12, 13, 15, 16, 17]
    assert len(DRAM_CLASSES) == 11


def test_lists_and_names(root):
    names = {
        movement: [item['img_id'] for item in build_dram(root, movement=movement)]
        for movement in ('dram', 'realism', 'impressionism', 'unseen', 'dram_with_unseen')
    }
    assert names['realism'] == ['realism/courbet/portrait']
    assert names['impressionism'] == ['impressionism/manet/portrait', 'impressionism/monet/harbour']
    assert names['unseen'] == ['unseen/ukiyo_e/hokusai/portrait']
    assert len(names['dram']) == 5 and names['dram_with_unseen'] == names['dram'] + names['unseen']
    item = build_dram(root, movement='unseen', subset='new')[0]
    assert (item['movement'], item['artist'], item['subset']) == ('ukiyo_e', 'hokusai', 'new')
    assert Path(item['img_path']) == root / 'test/unseen/ukiyo_e/hokusai/portrait.jpg'
    assert Path(item['instance_map_path']) == root / 'labels/unseen/ukiyo_e/hokusai/portrait.png'
    assert 'subset' not in build_dram(root)[0]


def test_components_of_evaluated_classes_with_a_smallest_area(root):
    dataset = build_dram(root, min_area=100, pipeline=LOADING, test_mode=True)
    # box areas by hand: boats 40 x 20 and 50 x 24, horse 50 x 50, rider 20 x 28; the table (11) and 255 are nobody's
    found = areas(dataset)
    assert found['impressionism/monet/harbour'] == {40001: 800, 40002: 1200}
    riders = found['post_impressionism/gauguin/riders']
    assert (riders[130001], riders[150001], len(riders)) == (2500, 560, 3)
    assert list(found['realism/courbet/portrait']) == [150001]
    assert list(found['impressionism/manet/portrait']) == [150001, 150002]
    assert list(found['expressionism/marc/cat']) == [80002]  # 80001 is a speck of 3 pixels
    assert found['unseen/ukiyo_e/hokusai/portrait'][160001] == 18 * 52
    every = areas(build_dram(root, pipeline=LOADING, test_mode=True))
    assert every['expressionism/marc/cat'][80001] == 3
    assert sum(map(len, every.values())) == sum(map(len, found.values())) + 1 == 12


def test_classes_as_instances(root):
    found = areas(build_dram(root, instances='classes', pipeline=LOADING, test_mode=True))
    assert found['impressionism/monet/harbour'] == {4: 2000}
    assert [len(own) for own in found.values()] == [1, 1, 1, 3, 1, 2]


def test_missing_and_damaged_files_are_named(root):
    with Image.open(root / 'labels/realism/courbet/portrait.png') as label:
        colours = label.convert('RGB')
    colours.save(root / 'labels/realism/courbet/portrait.png')
    dataset = build_dram(root, pipeline=LOADING, test_mode=True)
    with pytest.raises(ValueError, match='courbet/portrait.png: expected a palette PNG.*mode RGB'):
        dataset[0]
    smooth = np.full((96, 128), 77, np.uint8)
    Image.fromarray(smooth).save(root / 'labels/impressionism/manet/portrait.png')
    with pytest.raises(ValueError, match=r'manet/portrait.png: expected the labels .*but got \[77\]'):
        dataset[1]
    (root / 'test/impressionism/monet/harbour.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='no image, such as .*monet/harbour.jpg'):
        build_dram(root)
    kept = build_dram(root, missing='skip')
    assert len(kept) == 5 and list(kept.skipped) == ['no image']


def test_bad_lists_and_arguments(root, tmp_path):
    path = root / 'test/dram_with_unseen.txt'
    lines = path.read_text()
    for line, message in (
        ('realism/portrait', "but got 'realism/portrait'"),
        ('realism/../../x', "but got 'realism/../../x'"),
        ('realism/courbet/portrait', "'realism/courbet/portrait' is in it twice"),
    ):
        path.write_text(f'{lines}{line}\n')
        with pytest.raises(ValueError, match=message):
            build_dram(root)
    path.write_bytes('realism/édouard/été\n'.encode('latin-1'))
    with pytest.raises(ValueError, match='dram_with_unseen.txt, line 1: expected UTF-8.*0xe9.*save it as UTF-8'):
        build_dram(root)
    path.write_bytes(lines.encode('utf-8-sig'))  # as Windows writes it
    assert len(build_dram(root)) == 6
    path.unlink()
    with pytest.raises(FileNotFoundError, match='there is no list .*dram_with_unseen.txt'):
        build_dram(root)
    for arguments, message in (
        (dict(movement='baroque'), "movement must be one of .* but got 'baroque'"),
        (dict(instances='roles'), "instances must be one of .* but got 'roles'"),
    ):
        with pytest.raises(ValueError, match=message):
            build_dram(root, **arguments)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        build_dram(tmp_path / 'nowhere')
