"""RefCOCO+, RefCOCOg UMD and RefCOCOg Google through RefCOCODataset, on the tool's tiny files."""

from pathlib import Path

import pytest
from tiny_refcoco import build, make_tiny_refcoco

from genseg_mm.datasets.transforms import LoadReferringMask


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return make_tiny_refcoco(tmp_path_factory.mktemp('family') / 'coco')


def read(root: Path, name: str, by: str, split: str, **kwargs) -> list[dict]:
    dataset = build(
        root,
        ann_file=f'{name}/instances.json',
        split_file=f'{name}/refs({by}).p',
        split=split,
        test_mode=True,
        serialize_data=False,
        **kwargs,
    )
    return [dataset.get_data_info(index) for index in range(len(dataset))]


@pytest.mark.parametrize(
    ('name', 'by', 'split', 'num_refs', 'num_sentences', 'images'),
    [
        ('refcoco+', 'unc', 'train', 6, 12, {108, 115, 122}),
        ('refcoco+', 'unc', 'val', 3, 6, {101}),
        ('refcoco+', 'unc', 'testA', 1, 2, {129}),
        ('refcoco+', 'unc', 'testB', 2, 4, {136}),
        ('refcoco+', 'unc', 'test', 3, 6, {129, 136}),
        ('refcocog', 'umd', 'train', 9, 9, {101, 108, 115, 136}),
        ('refcocog', 'umd', 'val', 1, 1, {129}),
        ('refcocog', 'umd', 'test', 2, 2, {122}),  # a split of that very name
        ('refcocog', 'google', 'train', 9, 9, {101, 108, 115, 122, 129, 136}),
        ('refcocog', 'google', 'val', 3, 3, {108, 122, 136}),
    ],
)
def test_splits(root, name, by, split, num_refs, num_sentences, images):
    items = read(root, name, by, split)
    assert len(items) == num_sentences
    assert len(read(root, name, by, split, sentence='first')) == num_refs
    assert {item['img_id'] for item in items} == images
    assert {item['subset'] for item in items} <= {split, 'testA', 'testB'}


def test_google_divides_the_objects_of_a_picture(root):
    train, val = (read(root, 'refcocog', 'google', split) for split in ('train', 'val'))
    assert {item['ann_ids'][0] for item in val} == {5004, 5008, 5012}
    assert not {item['ann_ids'][0] for item in train} & {5004, 5008, 5012}
    assert [item['text'] for item in val] == [
        'a yellow triangle drawn on a grey background',
        'a red cross drawn on a grey background',
        'a red square drawn on a grey background',
    ]
    # Red cross of 24x24 with bars of 6; red square of 12x12, reaching over the columns 38 to 49
    assert LoadReferringMask()(val[1])['gt_seg_map'].sum() == 2 * 24 * 6 - 6 * 6
    square = LoadReferringMask()(val[2])['gt_seg_map']
    assert square.sum() == 144 and square[20:32, 38:50].all()
    with pytest.raises(ValueError, match=r"no split 'test'; its splits are train \(9 refs\), val \(3"):
        read(root, 'refcocog', 'google', 'test')


def test_text_fields_of_the_plus(root):
    items = read(root, 'refcoco+', 'unc', 'testB', text_field='raw')
    assert [item['text'] for item in items] == ['The blue triangle', 'blue one', 'The red square', 'red one']
    assert read(root, 'refcoco+', 'unc', 'testB')[0]['text'] == 'the blue triangle'
