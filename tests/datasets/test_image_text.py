"""ImageTextDataset: folders, lists and tar shards of tiny pictures."""

import io
import json
import os
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine import fileio
from tiny_datasets import CAPTION_PIPELINE, FIRST_CAPTIONS, infos, maker
from torch.utils.data import DataLoader

from genseg_mm.datasets import ImageTextDataset, LoadImage, Visit, image_text
from genseg_mm.datasets.image_text import Picture, address, read_index


@pytest.fixture(scope='session')
def root(tmp_path_factory) -> Path:
    return maker('captions')(tmp_path_factory.mktemp('image_text')) / 'image_text'


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder that the test may damage."""
    return maker('captions')(tmp_path) / 'image_text'


def build(root: Path, sources='folder', **kwargs) -> ImageTextDataset:
    return ImageTextDataset(sources, str(root), **kwargs)


def picture(value: int, ending: str = '.png') -> bytes:
    return cv2.imencode(ending, np.full((8, 12, 3), value, np.uint8))[1].tobytes()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, 'w') as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize('source', ['folder', 'list.jsonl', 'list.csv', 'shards/*.tar'])
def test_every_layout_gives_the_same_pictures_and_texts(root, source):
    dataset = build(root, source, caption='first', pipeline=CAPTION_PIPELINE)
    assert [info['text'] for info in infos(dataset)] == FIRST_CAPTIONS
    assert dataset.left_out == {}
    loaded = [LoadImage()(dict(img_path=info['img_path']))['img'] for info in infos(dataset)]
    for number, image in enumerate(loaded):
        folder = root / 'folder' / ('more' if number > 4 else '')
        expected = cv2.imread(str(folder / f'{number:04d}.png')).astype(int)
        # Some of the shards' pictures are JPEGs.
        assert np.abs(image - expected).mean() < (10 if source.endswith('tar') and number % 3 == 0 else 0.01)
    samples = [item['data_samples'] for item in dataset]
    assert [(sample.task, sample.text) for sample in samples] == [('image', text.lower()) for text in FIRST_CAPTIONS]


def test_items_of_a_folder_and_of_shards(root):
    assert build(root, test_mode=True).get_data_info(5) == dict(
        img_path=str(root / 'folder/more/0005.png'),
        img_id='more/0005',
        text=FIRST_CAPTIONS[5],
        captions=[FIRST_CAPTIONS[5]],
        task='image',
        seg_fields=[],
        sample_idx=5,
    )
    shards = ['shards/tiny-000001.tar', 'shards/tiny-000000.tar']
    dataset = build(root, shards, test_mode=True)
    ids = [info['img_id'] for info in infos(dataset)]
    assert list(dict.fromkeys(ids)) == [f'tiny-00000{n // 4}/00000000{n}' for n in (4, 5, 6, 7, 0, 1, 2, 3)]
    assert len(ids) == 12
    captions = ['A green circle on a grey ground.', 'A picture of 1 shape', 'There is a green circle']
    assert [dataset.get_data_info(index)['text'] for index in (1, 2, 3)] == captions
    fresh = build(root, shards, seed=2)
    for visit in range(6):
        drawn = np.random.default_rng([2, 1, visit]).integers(3)
        assert fresh.get_data_info(Visit(1, visit))['text'] == captions[drawn]


def test_linked_folders_are_read_and_hidden_files_are_no_data(tmp_path):
    data, other = tmp_path / 'data', tmp_path / 'other'
    for path in (data / 'a', data / '.hidden/b', data / '._a', other / 'c'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f'{path.name}.png').write_bytes(picture(9))
        path.with_name(f'{path.name}.txt').write_text(f'a text of {path.name}')
    (data / 'linked').symlink_to(other)
    (other / 'circle').symlink_to(data)
    dataset = build(tmp_path, 'data', test_mode=True)
    assert [info['img_id'] for info in infos(dataset)] == ['a', 'linked/c']
    assert dataset.left_out == {}


def test_members_are_read_in_any_order_by_several_workers(root):
    dataset = build(root, 'shards/*.tar', caption='first', pipeline=CAPTION_PIPELINE)
    order = [7, 0, 3, 6, 1, 5, 2, 4] * 3
    loader = DataLoader(dataset, batch_size=2, sampler=order, num_workers=2, collate_fn=list)
    for index, item in zip(order, (item for items in loader for item in items), strict=True):
        assert item['data_samples'].text == FIRST_CAPTIONS[index].lower()
        assert np.array_equal(item['inputs'], dataset[index]['inputs'])


def test_addresses_give_the_members_bytes(tmp_path):
    long = 'folder/' + 120 * 'x'  # longer than the header's own field
    members = {'a.b#1+2/c.png': b'12345', f'{long}.png': b'678', 'e.txt': b'9'}
    shard = str(write_tar(tmp_path / 'odd #3+4.tar', members))
    with tarfile.open(shard) as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar}
    for name, data in members.items():
        where = address(shard, Picture(name, *places[name], []))
        assert fileio.get(where) == data
        assert fileio.get_text(where) == data.decode()
    with pytest.raises(ValueError, match='the shard ends after 10 of 20 bytes'):
        fileio.get(f'tar://{shard}#{os.path.getsize(shard) - 10}+20/a.png')
    with pytest.raises(ValueError, match=r'expected an address .* but got tar://x\.tar'):
        fileio.get('tar://x.tar')


def test_samples_that_are_not_whole_are_counted_and_named(tmp_path, log_lines):
    good = picture(9)
    shard = write_tar(
        tmp_path / 'a.tar',
        {
            '1.png': good,
            '1.txt': b'\xef\xbb\xbf one \n line ',
            '2.png': good,
            '3.txt': b'three',
            '4.png': b'no picture',
            '4.txt': b'four',
            '5.png': good,
            '5.txt': b'caf\xe9',
            '6.png': good,
            '6.json': b'{"title": "six"}',
            '7.PNG': good,
            '7.json': b'{"text": ["seven", " ", "7"]}',
            '8.png': good,
            '8.txt': b'  ',
            '9.png': good,
            '9.json': b'{"text": 9}',
            '1.cls': b'0',
        },
    )
    with tarfile.open(shard, 'a') as tar:
        link = tarfile.TarInfo('l.png')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/hostname'
        tar.addfile(link)
        again = tarfile.TarInfo('1.png')
        again.size = 3
        tar.addfile(again, io.BytesIO(b'abc'))
    dataset = build(tmp_path, 'a.tar', test_mode=True)
    assert [(info['img_id'], info['text']) for info in infos(dataset)] == [
        ('a/1', 'one line'),
        ('a/7', 'seven'),
        ('a/7', '7'),
    ]
    left_out = {
        reason: [name.removeprefix(f'{shard}/') for name in names] for reason, names in dataset.left_out.items()
    }
    unreadable = left_out.pop('unreadable texts')
    assert [name.split(' (')[0] for name in unreadable] == ['5.txt', '6.json', '9.json']
    assert unreadable[1] == "6.json (no key 'text')"
    assert left_out == {
        'members of other kinds': ['1.cls', 'l.png'],
        'members that come twice': ['1.png'],
        'pictures without a text': ['2'],
        'texts without a picture': ['3'],
        'damaged pictures': ['4.png'],
        'empty texts': ['7.json', '8.txt'],
    }
    assert any(line.startswith('left out 3 unreadable texts: ') for _, line in log_lines)
    title = build(tmp_path, 'a.tar', text_key='title', test_mode=True)
    assert [info['text'] for info in infos(title)] == ['one line', 'six']


@pytest.mark.parametrize('damage', ['cut in a picture', 'cut in a header', 'cut at the end', 'header'])
def test_cut_and_damaged_shards_keep_what_is_whole(tmp_path, damage):
    members = {}
    for number in range(3):
        members |= {f'{number}.png': picture(number), f'{number}.txt': f'text {number}'.encode()}
    shard = write_tar(tmp_path / 'a.tar', members)
    with tarfile.open(shard) as tar:
        header, last = tar.getmember('2.png').offset, tar.getmember('2.txt').offset_data
    data = bytearray(shard.read_bytes())
    if damage == 'header':
        data[header : header + 512] = bytes(range(256)) * 2
    else:
        ends = {'picture': header + 512 + 20, 'header': header + 100, 'end': last + 512}
        data = data[: ends[damage.split()[-1]]]
    shard.write_bytes(data)
    dataset = build(tmp_path, 'a.tar', test_mode=True)
    whole, after = (3, '2.txt') if damage == 'cut at the end' else (2, '1.txt')
    assert [info['text'] for info in infos(dataset)] == [f'text {n}' for n in range(whole)]
    assert dataset.left_out == {'shards cut short or damaged': [f'{shard} after {after}']}


def test_index_is_kept_until_the_shard_changes(own, monkeypatch):
    scans = []
    scan = image_text._scan
    monkeypatch.setattr(image_text, '_scan', lambda *args: scans.append(args) or scan(*args))
    first, second = (infos(build(own, 'shards/*.tar', index_dir='index', test_mode=True)) for _ in range(2))
    assert len(scans) == 2 and first == second  # once for each shard
    shard = str(own / 'shards/tiny-000000.tar')
    assert read_index(shard, 'text', str(own / 'index')) == read_index(shard, 'text')
    assert len(scans) == 3
    read_index(shard, 'caption', str(own / 'index'))  # other texts
    assert len(scans) == 4
    write_tar(Path(shard), {'x.png': picture(3), 'x.txt': b'new'})
    os.utime(shard, ns=(0, time.time_ns()))
    index = read_index(shard, 'text', str(own / 'index'))
    assert [(one.member, one.captions) for one in index.pictures] == [('x.png', ['new'])]
    (kept,) = (own / 'index').glob('*tiny-000000.tar.json')
    kept.write_text('{"key"')
    with pytest.raises(ValueError, match='is damaged .*: delete it'):
        read_index(shard, 'text', str(own / 'index'))


def test_damaged_pictures_are_named_at_the_start_or_when_they_are_read(own):
    path = own / 'folder/0002.png'
    path.write_bytes(path.read_bytes()[:200])
    dataset = build(own, caption='first', pipeline=CAPTION_PIPELINE)
    with pytest.raises(ValueError, match=r'0002\.png is cut short'):
        dataset[2]
    checked = build(own, caption='first', check_images=True)
    assert len(checked) == 7
    (name,) = checked.left_out['damaged pictures']
    assert name.startswith(f'{path} (image ')


def test_lists_merge_lines_of_one_picture(own):
    rows = [
        dict(file='folder/0001.png', caption='b'),
        dict(file='folder/0000.png', caption=['a', 'A']),
        dict(file='folder/0001.png', caption=' '),
        dict(file='folder/0001.png', caption='B'),
        dict(file='none.png', caption='x'),
    ]
    text = '\n\n'.join(json.dumps(row) for row in rows)
    (own / 'own.jsonl').write_text(text, encoding='utf-8-sig')
    dataset = build(own, 'own.jsonl', image_key='file', text_key='caption')
    assert [info['captions'] for info in infos(dataset)] == [['b', 'B'], ['a', 'A']]
    assert dataset.left_out == {
        'empty texts': [f'{own}/own.jsonl, line 5'],
        'pictures that do not exist': [f'{own}/none.png'],
    }
    # A csv has quoting, a tsv has none.
    for name, text in (('own.csv', 'two, "words"'), ('own.tsv', '"two, ""words"""')):
        cells = ['"two, ""words"""', '0003.png']
        row = (',' if name == 'own.csv' else '\t').join(cells)
        head = row.replace(cells[0], 'text').replace(cells[1], 'image')
        (own / name).write_text(f'{head}\n{row}\n')
        moved = build(own, name, data_prefix=dict(img_path='folder'))
        assert [(info['img_path'], info['text']) for info in infos(moved)] == [(str(own / 'folder/0003.png'), text)]


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.jsonl', '{"image": "x.png", "text": "a"}\n{"image"', r'a\.jsonl, line 2 is no JSON'),
        ('a.jsonl', '[1]', r'line 1: expected a dict, but got \[1\]'),
        ('a.jsonl', '{"image": "x.png"}', r"line 1: expected 'image' and 'text' \(image_key, text_key\)"),
        ('a.jsonl', '{"image": "x.png", "text": 3}', 'line 1: expected a string or a list of strings'),
        ('a.csv', 'image,words\nx.png,a\n', "line 2: expected 'image' and 'text'"),
        ('a.csv', 'image,text\nx.png,a,b\n', 'line 2: expected 2 cells, but got 3'),
        ('a.csv', 'image,image\nx.png,a\n', "line 1: expected .* but got 'image' twice"),
        ('a.tsv', 'image\ttext\nx.png\ta\n/etc/hostname\tb\n', "line 3: .*'/etc/hostname', which leads elsewhere"),
        ('a.csv', 'image,text\nx.png,"a\n', 'unexpected end of data'),
        ('a.parquet', '', r'must be a folder or a file that ends with \.jsonl'),
        ('a.tar', 'no tar at all', r'a\.tar is no uncompressed tar'),
        ('a.tar', '', r'a\.tar is no uncompressed tar'),
    ],
)  # fmt: skip
def test_damaged_sources_name_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        build(tmp_path, name)


def test_compressed_shards_and_bad_arguments(own):
    shard = own / 'shards/tiny-000000.tar'
    packed = own / 'packed.tar'
    with tarfile.open(packed, 'w:gz') as tar:
        tar.add(shard, 'a.png')
    with pytest.raises(ValueError, match='is no uncompressed tar .*: unpack a compressed one first'):
        build(own, 'packed.tar')
    with pytest.raises(FileNotFoundError, match=r"source .*none-\*\.tar': there is no such file"):
        build(own, 'none-*.tar')
    for sources in ([], [3], None):
        with pytest.raises(ValueError, match='sources must be a folder, list or shard, or several'):
            build(own, sources or [] if sources != [3] else sources)
    (own / 'empty').mkdir()
    with pytest.raises(ValueError, match='no picture with a caption is left'):
        build(own, 'empty')


def test_coco_pictures_in_shards_are_left_out_by_their_names(tmp_path):
    members = {}
    for name in ('000000000785', 'COCO_train2014_000000000122', 'COCO_val2014_000000000785', '785'):
        members |= {f'{name}.png': picture(1), f'{name}.txt': name.encode()}
    write_tar(tmp_path / 'a.tar', members)
    dataset = build(tmp_path, 'a.tar', exclude_images=785)
    assert [info['text'] for info in infos(dataset)] == ['COCO_train2014_000000000122', '785']
