"""DRAM, EgoHOS, iShape and PIDRay on their tiny copies."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from PIL import Image
from tiny_datasets import maker

from genseg_mm.datasets import DRAMDataset, EgoHOSDataset, IShapeDataset, LoadImage, LoadInstanceMap, PIDRayDataset
from genseg_mm.datasets.zero_shot import DRAM_CLASSES
from genseg_mm.evaluation import PointPromptMetric

make_tiny_dram, make_tiny_egohos, make_tiny_ishape, make_tiny_pidray = map(
    maker, ('dram', 'egohos', 'ishape', 'pidray')
)
# Not serialised: that is for training, and waits for the garbage collector each time.
build_dram, build_egohos, build_ishape, build_pidray = (
    partial(kind, serialize_data=False) for kind in (DRAMDataset, EgoHOSDataset, IShapeDataset, PIDRayDataset)
)
LOADING = [LoadImage(), LoadInstanceMap()]
ANNOTATIONS = 'coco_format-mask_encoding=rle-instances_2017.json'
TEST_SPLITS = ('easy', 'hard', 'hidden')


@pytest.fixture
def dram_root(tmp_path):
    return make_tiny_dram(tmp_path / 'DRAM_processed')


@pytest.fixture
def egohos_root(tmp_path):
    return make_tiny_egohos(tmp_path / 'egohos')


@pytest.fixture
def ishape_root(tmp_path):
    return make_tiny_ishape(tmp_path / 'ishape_dataset')


@pytest.fixture
def pidray_root(tmp_path):
    return make_tiny_pidray(tmp_path / 'pidray')


@pytest.fixture
def pidray_root_2(tmp_path):
    return make_tiny_pidray(tmp_path / 'second', version=2)


# ---- DRAM


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


def test_lists_and_names(dram_root):
    names = {
        movement: [item['img_id'] for item in build_dram(dram_root, movement=movement)]
        for movement in ('dram', 'realism', 'impressionism', 'unseen', 'dram_with_unseen')
    }
    assert names['realism'] == ['realism/courbet/portrait']
    assert names['impressionism'] == ['impressionism/manet/portrait', 'impressionism/monet/harbour']
    assert names['unseen'] == ['unseen/ukiyo_e/hokusai/portrait']
    assert len(names['dram']) == 5 and names['dram_with_unseen'] == names['dram'] + names['unseen']
    item = build_dram(dram_root, movement='unseen', subset='new')[0]
    assert (item['movement'], item['artist'], item['subset']) == ('ukiyo_e', 'hokusai', 'new')
    assert Path(item['img_path']) == dram_root / 'test/unseen/ukiyo_e/hokusai/portrait.jpg'
    assert Path(item['instance_map_path']) == dram_root / 'labels/unseen/ukiyo_e/hokusai/portrait.png'
    assert 'subset' not in build_dram(dram_root)[0]


def test_there_is_nothing_to_calibrate_on_where_items_have_no_subset(dram_root, egohos_root):
    parts = [build_dram(dram_root), build_egohos(egohos_root, split='val')]
    with pytest.raises(ValueError, match=r"subset='val', but got the subsets \[''\]"):
        PointPromptMetric('calibrate').check_dataset(ConcatDataset(parts), 'val_evaluator')
    parts.append(build_egohos(egohos_root, split='val', subset='val'))
    PointPromptMetric('calibrate').check_dataset(ConcatDataset(parts), 'val_evaluator')


def test_components_of_evaluated_classes_with_a_smallest_area(dram_root):
    dataset = build_dram(dram_root, min_area=100, pipeline=LOADING, test_mode=True)
    # box areas by hand: boats 40 x 20 and 50 x 24, horse 50 x 50, rider 20 x 28; the table (11) and 255 are nobody's
    found = areas(dataset)
    assert found['impressionism/monet/harbour'] == {40001: 800, 40002: 1200}
    riders = found['post_impressionism/gauguin/riders']
    assert (riders[130001], riders[150001], len(riders)) == (2500, 560, 3)
    assert list(found['realism/courbet/portrait']) == [150001]
    assert list(found['impressionism/manet/portrait']) == [150001, 150002]
    assert list(found['expressionism/marc/cat']) == [80002]  # 80001 is a speck of 3 pixels
    assert found['unseen/ukiyo_e/hokusai/portrait'][160001] == 18 * 52
    every = areas(build_dram(dram_root, pipeline=LOADING, test_mode=True))
    assert every['expressionism/marc/cat'][80001] == 3
    assert sum(map(len, every.values())) == sum(map(len, found.values())) + 1 == 12


def test_classes_as_instances(dram_root):
    found = areas(build_dram(dram_root, instances='classes', pipeline=LOADING, test_mode=True))
    assert found['impressionism/monet/harbour'] == {4: 2000}
    assert [len(own) for own in found.values()] == [1, 1, 1, 3, 1, 2]


def test_missing_and_damaged_files_are_named(dram_root):
    with Image.open(dram_root / 'labels/realism/courbet/portrait.png') as label:
        colours = label.convert('RGB')
    colours.save(dram_root / 'labels/realism/courbet/portrait.png')
    dataset = build_dram(dram_root, pipeline=LOADING, test_mode=True)
    with pytest.raises(ValueError, match='courbet/portrait.png: expected a palette PNG.*mode RGB'):
        dataset[0]
    smooth = np.full((96, 128), 77, np.uint8)
    Image.fromarray(smooth).save(dram_root / 'labels/impressionism/manet/portrait.png')
    with pytest.raises(ValueError, match=r'manet/portrait.png: expected the labels .*but got \[77\]'):
        dataset[1]
    (dram_root / 'test/impressionism/monet/harbour.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='no image, such as .*monet/harbour.jpg'):
        build_dram(dram_root)
    kept = build_dram(dram_root, missing='skip')
    assert len(kept) == 5 and list(kept.skipped) == ['no image']


def test_bad_lists_and_arguments(dram_root, tmp_path):
    path = dram_root / 'test/dram_with_unseen.txt'
    lines = path.read_text()
    for line, message in (
        ('realism/portrait', "but got 'realism/portrait'"),
        ('realism/../../x', "but got 'realism/../../x'"),
        ('realism/courbet/portrait', "'realism/courbet/portrait' is in it twice"),
    ):
        path.write_text(f'{lines}{line}\n')
        with pytest.raises(ValueError, match=message):
            build_dram(dram_root)
    path.write_bytes('realism/édouard/été\n'.encode('latin-1'))
    with pytest.raises(ValueError, match='dram_with_unseen.txt, line 1: expected UTF-8.*0xe9.*save it as UTF-8'):
        build_dram(dram_root)
    path.write_bytes(lines.encode('utf-8-sig'))  # as Windows writes it
    assert len(build_dram(dram_root)) == 6
    path.unlink()
    with pytest.raises(FileNotFoundError, match='there is no list .*dram_with_unseen.txt'):
        build_dram(dram_root)
    for arguments, message in (
        (dict(movement='baroque'), "movement must be one of .* but got 'baroque'"),
        (dict(instances='roles'), "instances must be one of .* but got 'roles'"),
    ):
        with pytest.raises(ValueError, match=message):
            build_dram(dram_root, **arguments)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        build_dram(tmp_path / 'nowhere')


# ---- EgoHOS


def ids(egohos_root, **kwargs):
    dataset = build_egohos(egohos_root, pipeline=LOADING, test_mode=True, **kwargs)
    return [np.unique(item['gt_instance_map'])[1:].tolist() for item in dataset]


def test_splits_and_names_without_files_of_macos(egohos_root):
    names = {
        split: [item['img_id'] for item in build_egohos(egohos_root, split=split)]
        for split in ('train', 'val', 'test_indomain', 'test_outdomain')
    }
    assert names == dict(
        train=['train/ego4d_0001', 'train/epick_0002'],
        val=['val/thu_0003'],
        test_indomain=[f'test_indomain/{n}' for n in ('ego4d_0004', 'ego4d_0005', 'escape_0006')],
        test_outdomain=['test_outdomain/youtube_0007'],
    )
    assert (egohos_root / 'test_indomain/image/._ego4d_0004.jpg').is_file()
    item = build_egohos(egohos_root, split='val', subset='v')[0]
    assert Path(item['instance_map_path']) == egohos_root / 'val/label/thu_0003.png'
    assert item['subset'] == 'v'


def test_all_eight_roles(egohos_root):
    path = egohos_root / 'test_outdomain/label/youtube_0007.png'
    with Image.open(path) as image:
        label = np.zeros(image.size[::-1], np.uint8)
    label[:9, 5] = range(9)
    Image.fromarray(label).save(path)
    for roles, expected in (
        ('all', [1, 2, 3, 4, 5, 6, 7, 8]),
        ('hands', [1, 2]),
        ('objects', [3, 4, 5, 6, 7, 8]),
        ([8, 2], [2, 8]),
    ):
        assert ids(egohos_root, split='test_outdomain', ids=roles) == [expected]


def test_roles_and_components(egohos_root):
    assert ids(egohos_root) == [[1, 2, 3, 6], [1, 2, 5], [1, 2, 3, 4]]
    assert ids(egohos_root, instances='components') == [
        [10001, 20001, 30001, 60001],
        [10001, 20001, 50001],
        [10001, 20001, 30001, 40001, 40002],  # the object in the left hand lies before it
    ]
    # the bar of 80 x 14 pixels from x = 30 on, without the column x = 56 to 73
    item = build_egohos(egohos_root, instances='components', pipeline=LOADING, test_mode=True)[2]
    assert (item['gt_instance_map'] == 40001).sum() == 26 * 14
    assert (item['gt_instance_map'] == 40002).sum() == 36 * 14
    whole = build_egohos(egohos_root, pipeline=LOADING, test_mode=True)[2]
    assert (whole['gt_instance_map'] == 4).sum() == 62 * 14


def test_choice_of_roles(egohos_root):
    assert ids(egohos_root, ids='hands') == [[1, 2]] * 3
    assert ids(egohos_root, ids='objects') == [[3, 6], [5], [3, 4]]
    assert ids(egohos_root, ids=[5]) == [[], [5], []]
    assert ids(egohos_root, ids='objects', instances='components', min_area=400)[2] == [30001, 40002]


def test_ids_that_are_no_role_are_refused(egohos_root):
    path = egohos_root / 'test_indomain/label/ego4d_0005.png'
    labels = np.array(Image.open(path))
    labels[0, :2] = 9, 30
    Image.fromarray(labels).save(path)
    dataset = build_egohos(egohos_root, pipeline=LOADING, test_mode=True)
    with pytest.raises(ValueError, match=r'ego4d_0005.png: expected the labels .*but got \[9, 30\]'):
        dataset[1]


def test_missing_files_and_bad_arguments(egohos_root):
    (egohos_root / 'test_indomain/label/ego4d_0005.png').unlink()
    (egohos_root / 'test_indomain/image/escape_0006.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='no instance map.*ego4d_0005.png; .*no image.*escape_0006.jpg'):
        build_egohos(egohos_root)
    assert len(build_egohos(egohos_root, missing='skip')) == 1
    (egohos_root / 'val/label').rename(egohos_root / 'val/labels')
    with pytest.raises(FileNotFoundError, match='no folder, such as .*val/label'):
        build_egohos(egohos_root, split='val')
    for arguments, message in (
        (dict(split='test'), "split must be one of .* but got 'test'"),
        (dict(ids='feet'), "ids must be one of .* but got 'feet'"),
        (dict(ids=[0, 1]), r'labels must be some of \[1, 2, .*but got \[0, 1\]'),
        (dict(instances='classes'), "instances must be 'roles' or 'components', but got 'classes'"),
    ):
        with pytest.raises(ValueError, match=message):
            build_egohos(egohos_root, **arguments)


# ---- iShape: id maps and json say the same


def test_six_subsets_and_splits(ishape_root):
    for subset in ('antenna', 'branch', 'fence', 'hanger', 'log', 'wire'):
        names = {
            split: [item['img_id'] for item in build_ishape(ishape_root, subset=subset, split=split)]
            for split in ('train', 'val', None)
        }
        assert names['train'] == [f'{subset}/train/0000']
        assert names['val'] == [f'{subset}/val/0000', f'{subset}/val/0001']
        assert names[None] == names['train'] + names['val']
    assert build_ishape(ishape_root, subset='wire')[0]['subset'] == 'wire'


def test_ids_above_8_bits_stay(ishape_root):
    dataset = build_ishape(ishape_root, subset='log', pipeline=LOADING, test_mode=True)
    for item in dataset:
        with Image.open(item['instance_map_path']) as image:
            assert image.mode == 'I;16'
        assert np.unique(item['gt_instance_map']).tolist() == [0, 254, 255, 256]


@pytest.mark.parametrize('subset', ['antenna', 'fence'])
def test_json_and_id_map_have_the_same_masks(ishape_root, subset):
    maps = build_ishape(ishape_root, subset=subset, pipeline=LOADING, test_mode=True)
    coco = build_ishape(ishape_root, subset=subset, source='coco', pipeline=LOADING, test_mode=True)
    forms = set()
    for own, other in zip(maps, coco, strict=True):
        assert own['img_id'] == other['img_id'] and own['img_path'] == other['img_path']
        expected = np.where(own['gt_instance_map'] > 0, own['gt_instance_map'] - 253, 0)
        assert other['gt_instance_map'].tolist() == expected.tolist()
        forms |= {type(instance['mask']['counts']) for instance in other['instances']}
    assert forms == {str, list}


def test_a_hollow_object_has_its_hole(ishape_root):
    item = build_ishape(ishape_root, subset='hanger', source='coco', pipeline=LOADING, test_mode=True)[0]
    # frame 1 from (6, 8) to (82, 30), 3 pixels wide: its middle is ground
    assert item['gt_instance_map'][8, 40] == 1 and item['gt_instance_map'][30, 40] == 1
    assert item['gt_instance_map'][19, 40] == 0


def test_links_are_not_needed_and_may_be_broken(ishape_root):
    folder = ishape_root / 'wire/val/coco_format'
    assert (folder / 'instances_train2017.json').resolve() == (ishape_root / 'wire/val' / ANNOTATIONS)
    assert (folder / 'train2017' / '0001.jpg').is_file()
    for link in folder.iterdir():
        link.unlink()
        link.symlink_to('nowhere')
    for source in ('instance_map', 'coco'):
        assert len(build_ishape(ishape_root, subset='wire', source=source)) == 2


def test_missing_files_are_named(ishape_root):
    (ishape_root / 'log/val/instance_map/0001.png').unlink()
    with pytest.raises(FileNotFoundError, match='no instance map.*log/val/instance_map/0001.png'):
        build_ishape(ishape_root, subset='log')
    (ishape_root / 'log/val/image/0000.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='no image, such as .*log/val/image/0000.jpg'):
        build_ishape(ishape_root, subset='log', source='coco')
    assert len(build_ishape(ishape_root, subset='log', source='coco', missing='skip')) == 1
    (ishape_root / 'wire/val' / ANNOTATIONS).unlink()
    with pytest.raises(FileNotFoundError, match='rle-instances_2017.json'):
        build_ishape(ishape_root, subset='wire', source='coco')
    (ishape_root / 'wire/train/image').rename(ishape_root / 'wire/train/images')
    with pytest.raises(FileNotFoundError, match='no folder, such as .*wire/train/image'):
        build_ishape(ishape_root, subset='wire', split='train')


def test_masks_of_another_size_name_the_picture(ishape_root):
    path = ishape_root / 'branch/val' / ANNOTATIONS
    content = json.loads(path.read_text())
    content['annotations'][0]['segmentation']['size'] = [64, 96]
    path.write_text(json.dumps(content))
    dataset = build_ishape(ishape_root, subset='branch', source='coco', pipeline=LOADING, test_mode=True)
    with pytest.raises(ValueError, match=r'0000.jpg, annotation 0: expected .*\(96, 96\), but got \(64, 96\)'):
        dataset[0]


def test_bad_arguments(ishape_root):
    for arguments, message in (
        (dict(subset='rope'), "subset must be one of .* but got 'rope'"),
        (dict(split='test'), "split must be one of .* but got 'test'"),
        (dict(source='rle'), "source must be one of .* but got 'rle'"),
    ):
        with pytest.raises(ValueError, match=message):
            build_ishape(ishape_root, **arguments)


# ---- PIDRay, both versions


def test_ids_are_unique_over_the_splits(pidray_root):
    joined = ConcatDataset([build_pidray(pidray_root, split=split, test_mode=True) for split in TEST_SPLITS])
    items = [joined[index] for index in range(len(joined))]
    assert [item['img_id'] for item in items] == [
        'easy/0', 'easy/1', 'hard/0', 'hard/1', 'hidden/0', 'hidden/1',
    ]  # fmt: skip
    assert [item['subset'] for item in items] == ['easy'] * 2 + ['hard'] * 2 + ['hidden'] * 2
    names = [Path(item['img_path']).relative_to(pidray_root).as_posix() for item in items]
    assert names[2] == 'hard/xray_hard00000.png' and names[5] == 'hidden/xray_hidden00001.png'
    assert build_pidray(pidray_root, split='train', subset='x')[1]['subset'] == 'x'


def test_masks_from_polygons_and_rle(pidray_root):
    easy = build_pidray(pidray_root, split='easy', pipeline=LOADING, test_mode=True)
    assert (easy[0]['gt_instance_map'] == 1).sum() == 80 * 20
    assert [len(own) for own in easy[0]['instances'][0]['mask']] == [8]
    ring = easy[1]['gt_instance_map']
    assert ring[50, 56] == 0 and ring.sum() == 976  # handcuffs: a hole in the middle
    hard = build_pidray(pidray_root, split='hard', pipeline=LOADING, test_mode=True)[0]
    # the wrench (60 x 14) is smaller than the power bank (60 x 54) and keeps the 20 x 8 that they share
    assert [(hard['gt_instance_map'] == own).sum() for own in (1, 2)] == [840, 3240 - 160]
    assert [own['cat_id'] for own in hard['instances']] == [6, 4]


def test_files_of_macos_are_not_read(pidray_root):
    junk = list(pidray_root.rglob('._*'))
    assert len(junk) == 8 + 4
    for split in ('train', *TEST_SPLITS):
        dataset = build_pidray(pidray_root, split=split, pipeline=LOADING, test_mode=True)
        assert [item['img'].shape for item in dataset] == [(96, 128, 3)] * 2
        assert not any('._' in item['img_path'] for item in dataset)


def test_version_2_has_the_same_items_in_one_file(pidray_root, pidray_root_2):
    for split in ('train', *TEST_SPLITS):
        first = build_pidray(pidray_root, split=split, pipeline=LOADING, test_mode=True)
        other = build_pidray(pidray_root_2, split=split, pipeline=LOADING, test_mode=True)
        assert (first.version, other.version) == (1, 2)
        assert first.num_pictures == other.num_pictures == 2
        for one, two in zip(first, other, strict=True):
            assert np.array_equal(one['gt_instance_map'], two['gt_instance_map'])
            assert Path(one['img_path']).name == Path(two['img_path']).name
    hidden = build_pidray(pidray_root_2, split='hidden')
    assert [item['img_id'] for item in hidden] == ['hidden/4', 'hidden/5']
    assert Path(hidden[0]['img_path']) == pidray_root_2 / 'test/xray_hidden00000.png'


def test_version_2_with_a_file_per_split(pidray_root, pidray_root_2):
    easy = json.loads((pidray_root / 'annotations/xray_test_easy.json').read_text())
    (pidray_root_2 / 'annotations/test_easy.json').write_text(json.dumps(easy))
    dataset = build_pidray(pidray_root_2, split='easy')
    assert [item['img_id'] for item in dataset] == ['easy/0', 'easy/1']
    assert Path(dataset[1]['img_path']) == pidray_root_2 / 'test/xray_easy00001.png'


def test_a_folder_with_both_versions_needs_a_choice(pidray_root, pidray_root_2):
    shutil.copytree(pidray_root_2, pidray_root, dirs_exist_ok=True)
    with pytest.raises(ValueError, match='holds both versions .*version=1 or version=2, but got None'):
        build_pidray(pidray_root, split='easy')
    assert build_pidray(pidray_root, split='easy', version=2).version == 2
    assert build_pidray(pidray_root, split='easy', version=1)[0]['img_id'] == 'easy/0'


def test_missing_and_wrong_input(pidray_root, pidray_root_2):
    (pidray_root / 'annotations/xray_test_hard.json').unlink()
    with pytest.raises(
        FileNotFoundError, match="no annotations of 'hard', expected .*xray_test_hard.json or .*test.json"
    ):
        build_pidray(pidray_root, split='hard')
    shutil.rmtree(pidray_root / 'easy')
    with pytest.raises(FileNotFoundError, match="folder of pictures '.*easy"):
        build_pidray(pidray_root, split='easy')
    path = pidray_root_2 / 'annotations/test.json'
    content = json.loads(path.read_text())
    content['images'][0]['file_name'] = '000.png'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="test.json: expected names xray_easy.* but got '000.png'"):
        build_pidray(pidray_root_2, split='easy')
    for arguments, message in (
        (dict(split='test'), "split must be one of .* but got 'test'"),
        (dict(version=3), 'version must be 1, 2 or None, but got 3'),
    ):
        with pytest.raises(ValueError, match=message):
            build_pidray(pidray_root, **arguments)
