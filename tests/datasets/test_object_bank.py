"""The file of objects: what is packed comes back, damaged ones are one line, and it is there whole or not at all."""

import json
import pickle
import struct

import numpy as np
import pytest

from genseg_mm.datasets.object_bank import SIDES, CutOut, ObjectBank, clean_words, default_bank, open_bank, write_bank
from genseg_mm.files import WriteError


def cut_out(name: str = 'a thing', color=(200, 100, 50), size=(40, 60), **kwargs) -> CutOut:
    """A half transparent rectangle that lies aside, with a solid core."""
    picture = np.zeros((100, 120, 4), np.uint8)
    picture[10 : 10 + size[0], 30 : 30 + size[1]] = (*color, 255)
    picture[: size[0] // 2, :20] = (*color, 100)  # too thin to be the object
    fields = dict(group='Things', subgroup='thing-flat', synonyms=())
    return CutOut(name, picture=picture, **{**fields, **kwargs})


def test_objects_come_back(tmp_path):
    path = tmp_path / 'bank.safetensors'
    cuts = [cut_out('Zebra_2', synonyms=('Equus’s', 'zebra 2', 'Equus’s')), cut_out('piñata', (0, 0, 255), (60, 60))]
    empty = CutOut('nothing', '', '', (), np.zeros((100, 100, 4), np.uint8))
    assert write_bank(path, [*cuts, empty], 'made here, CC0') == (2, 1)
    bank = open_bank(path)
    assert (len(bank), bank.names, bank.source) == (2, ('zebra 2', 'pinata'), 'made here, CC0')
    assert (bank.groups[0], bank.subgroups[0], bank.synonyms) == ('Things', 'thing-flat', (("equus's",), ()))
    wide, square = bank.picture(0, 128), bank.picture(1, 100)
    assert wide.shape == square.shape == (128, 128, 4)
    assert np.array_equal(square[64, 64], (0, 0, 255, 255)) and np.array_equal(square[0, 0], (0, 0, 255, 255))
    # 60 wide and 40 high in a square: a sixth of it is empty above and below.
    assert not wide[:20].any() and not wide[-20:].any() and np.array_equal(wide[64, 2], (200, 100, 50, 255))
    assert [bank.picture(0, side).shape[0] for side in (1, 16, 17, 64, 64.5, 500)] == [16, 16, 32, 64, 128, 128]
    assert path.stat().st_size < 2 * 4 * sum(side**2 for side in SIDES) + 1000
    again = pickle.loads(pickle.dumps(bank))
    assert again.names == bank.names and len(pickle.dumps(bank)) < 500


def test_colours_are_multiplied_by_alpha(tmp_path):
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:] = (200, 100, 50, 255)
    picture[32:] = (200, 100, 50, 128)
    write_bank(tmp_path / 'bank', [CutOut('x', '', '', (), picture)], '')
    assert ObjectBank(tmp_path / 'bank').picture(0, 64)[50, 10].tolist() == [100, 50, 25, 128]


def test_kinds_are_selected(tiny_objects):
    bank = open_bank(tiny_objects)

    def names(**wanted):
        return sorted({bank.names[index] for index in bank.select(**wanted)})

    assert names(groups='fruit') == ['apple', 'banana', 'grapes', 'pear']
    assert names(groups=['Fruit', 'vegetable'], exclude_names=['apple', 'Carrot']) == [
        'banana',
        'grapes',
        'onion',
        'pear',
    ]
    assert names(exclude_groups=['animal', 'fruit', 'vegetable', 'vehicle', 'household']) == [
        'red heart',
        'ring',
        'star',
    ]
    assert names(names='clock') == ['clock'] and len(bank.select(names='clock')) == 2
    for wanted, message in (
        (
            dict(groups='animals'),
            r"groups: .* has no group 'animals'; did you mean 'animal'\?; it has \['animal', 'fru",
        ),
        (dict(exclude_names=['zebrra']), r"exclude_names: .* has no object 'zebrra'; did you mean 'zebra'\?"),
        (dict(groups='fruit', exclude_groups='fruit'), 'leave none of its 24 objects'),
        (dict(groups=[]), r'groups must be names, one or several, but got \[\]'),
    ):
        with pytest.raises(ValueError, match=message):
            bank.select(**wanted)


def test_parts_of_subgroups_are_groups(tmp_path):
    cuts = [cut_out(name, subgroup=sub) for name, sub in (('a', 'animal-bird'), ('b', 'animal'), ('c', 'animalistic'))]
    write_bank(tmp_path / 'bank', cuts, '')
    assert open_bank(tmp_path / 'bank').select(groups='animal') == [0, 1]


def test_the_default_bank_is_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert default_bank() == tmp_path / 'genseg_mm' / 'objects' / 'fluent-emoji-3d-1.1.0.safetensors'
    with pytest.raises(
        FileNotFoundError, match='no bank of objects .*: `python tools/dataset_tools/prepare_objects.py` '
    ):
        open_bank()


def test_damaged_banks_are_one_line(tiny_objects, tmp_path):
    whole = tiny_objects.read_bytes()
    (length,) = struct.unpack('<Q', whole[:8])
    header = json.loads(whole[8 : 8 + length])
    about = json.loads(header['__metadata__']['about'])

    def with_header(**changes):
        text = json.dumps({**header, **changes}).encode()
        return struct.pack('<Q', len(text)) + text + whole[8 + length :]

    def with_about(**changes):
        return with_header(__metadata__=dict(about=json.dumps({**about, **changes})))

    level = dict(header['rgba16'], shape=[10**9, 16, 16, 4])
    for content, message in (
        (b'', 'is no whole bank of objects'),
        (struct.pack('<Q', 2**62) + b'{}', 'is no whole bank of objects'),
        (whole[:-1], 'is cut short'),
        (whole[: 8 + length // 2] + b' ' * 200_000, 'is no whole bank of objects'),
        (struct.pack('<Q', 2) + b'[]', 'expected a bank of objects'),
        (with_header(__metadata__=None), 'expected a bank of objects'),
        (with_header(rgba16=level), 'expected bytes of .* as rgba16'),
        (with_header(rgba16=dict(header['rgba16'], data_offsets=[-8, 0])), 'is cut short'),
        (with_about(objects=[]), 'expected 1 to 20000 objects'),
        (with_about(objects=[['', '', '', []]] * 24), 'expected 1 to 20000 objects'),
        (with_about(objects=[['a', '', '', [3]]] * 24), 'expected 1 to 20000 objects'),
        (with_about(format='other'), 'expected a bank of objects'),
    ):
        path = tmp_path / 'bank'
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            ObjectBank(path)
        assert '\n' not in str(caught.value) and str(path) in str(caught.value)


def test_a_bank_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'bank'
    write_bank(path, [cut_out('first')], '')

    def broken():
        yield cut_out('second')
        raise ValueError('picture 2 is damaged')

    with pytest.raises(ValueError, match='picture 2 is damaged'):
        write_bank(path, broken(), '')
    for cuts, message in (
        ([], 'no object is left'),
        ([cut_out('?!')], "a name of letters for every object, but got '?!'"),
    ):
        with pytest.raises(ValueError, match=message.replace('?', r'\?')):
            write_bank(path, cuts, '')
    assert open_bank(path).names == ('first',) and [own.name for own in tmp_path.iterdir()] == ['bank']
    (tmp_path / 'file').write_text('')
    with pytest.raises((WriteError, OSError)):
        write_bank(tmp_path / 'file' / 'bank', [cut_out()], '')


def test_words_are_cleaned():
    assert clean_words(' Mrs. Claus’s  piñata_(2) ') == "mrs claus's pinata 2"
    assert clean_words('T-Rex') == 't-rex'
