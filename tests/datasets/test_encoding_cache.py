"""The cache on disk: values back, resumed after a kill, torn and foreign files."""

import json
import os
import pickle
import signal

import numpy as np
import pytest
import torch

from genseg_mm.datasets.encoding_cache import EncodingCache, EncodingCacheWriter, config_key, content_key

MANIFEST = dict(
    config='c.py',
    dtype='float32',
    encoders={'image': dict(fingerprint='aa', settings={'size': 1}, weights='w1')},
    pipelines={'p1': []},
)


def writer(folder, **changes) -> EncodingCacheWriter:
    settings = {key: changes.pop(key) for key in ('shard_bytes',) if key in changes}
    return EncodingCacheWriter(folder, {**MANIFEST, **changes}, **settings)


def fill(cache: EncodingCacheWriter, numbers) -> None:
    for number in numbers:
        cache.put('image', f'c{number}', {'latents': torch.full((2, 4), float(number))})
        cache.note(f'i{number}', {'content': f'c{number}', 'size': number})


def values(folder) -> dict:
    cache = EncodingCache(folder)
    return {key: cache.get('image', record['content'])['latents'][0, 0].item() for key, record in cache.items.items()}


def test_keys_tell_contents_apart():
    array = np.arange(6, dtype=np.uint8)
    known = content_key('a', array)
    assert known == content_key('a', array.copy()) and len(known) == 64
    others = [
        content_key('a', array.reshape(2, 3)),
        content_key('a', array.astype(np.int8)),
        content_key('a', array.tobytes()),
        content_key('aa', array),
        content_key('a'),
        content_key('', 'a'),
        content_key('a', ''),
    ]
    assert len({known, *others}) == 8
    # What moves from one part to the next is another content.
    assert content_key('ab', 'c') != content_key('a', 'bc')
    assert content_key('x', np.zeros((0, 3))) != content_key('x', np.zeros((0, 4)))
    first = config_key([dict(type='R', scale=(8, 8), keep=False)])
    assert first == config_key([dict(keep=False, scale=[8, 8], type='R')])
    assert first != config_key([dict(type='R', scale=(8, 9), keep=False)])
    with pytest.raises(ValueError, match='plain configs, but got'):
        config_key([dict(type='R', of=object())])


def test_values_come_back_from_bounded_shards(tmp_path):
    cache = writer(tmp_path, shard_bytes=64)  # two tensors of 32 bytes
    fill(cache, range(5))
    cache.put('prompt', 'p', {'states': torch.ones(3, 2).bfloat16(), 'mask': torch.tensor([True])})
    assert cache.has('image', 'c4') and cache.has('image', 'c0') and not cache.has('mask', 'c0')
    cache.close()
    names = sorted(path.name for path in tmp_path.iterdir() if path.suffix == '.safetensors')
    assert names == [
        'image-00000.safetensors', 'image-00001.safetensors', 'image-00002.safetensors',
        'prompt-00003.safetensors',
    ]  # fmt: skip
    assert values(tmp_path) == {f'i{number}': float(number) for number in range(5)}
    read = EncodingCache(tmp_path)
    assert (read.count('image'), read.count('mask'), read.count('prompt')) == (5, 0, 1)
    prompt = read.get('prompt', 'p')
    assert prompt['mask'].tolist() == [True] and prompt['states'].dtype == torch.bfloat16
    # Workers get it by pickle, without open files; what they hand on takes no shard along.
    copied = pickle.loads(pickle.dumps(read))
    tensor = copied.get('image', 'c3')['latents']
    assert tensor.tolist() == [[3.0] * 4] * 2
    assert tensor.untyped_storage().nbytes() == 32
    tool = 'python tools/dataset_tools/cache_encodings.py'
    assert copied.command == f'{tool} c.py --out {tmp_path} --dtype float32'
    modes = {path.stat().st_mode for path in tmp_path.glob('*.safetensors')}
    assert modes == {(tmp_path / 'manifest.json').stat().st_mode}


def test_a_killed_writer_is_continued(tmp_path):
    pid = os.fork()
    if pid == 0:
        cache = writer(tmp_path, shard_bytes=64)
        fill(cache, range(5))  # c4 still waits
        (tmp_path / 'image-00007.tmp').write_bytes(b'half')
        (tmp_path / f'.image-00007.safetensors.{os.getpid()}.part').mkdir()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    # The item of a shard is noted after it, so the last of those is written with the next shard.
    assert values(tmp_path) == {'i0': 0.0, 'i1': 1.0, 'i2': 2.0}
    with (tmp_path / 'items.jsonl').open('a') as file:
        file.write('{"item": "i9", "con')  # cut in the middle of a line
    assert len(values(tmp_path)) == 3
    cache = writer(tmp_path)
    assert [cache.has('image', f'c{number}') for number in range(5)] == [True] * 4 + [False]
    fill(cache, (3, 4))
    cache.close()
    assert values(tmp_path) == {f'i{number}': float(number) for number in range(5)}
    assert not [own for own in os.listdir(tmp_path) if own.endswith(('.tmp', '.part'))]


def test_a_torn_shard_is_refused_by_readers_and_made_anew(tmp_path, capsys):
    cache = writer(tmp_path, shard_bytes=64)
    fill(cache, range(4))
    cache.close()
    shard = tmp_path / 'image-00000.safetensors'
    os.truncate(shard, shard.stat().st_size - 5)
    with pytest.raises(ValueError, match=r'image-00000.*cut short.*cache_encodings.py c.py --out'):
        EncodingCache(tmp_path)
    cache = writer(tmp_path)
    assert [cache.has('image', f'c{number}') for number in range(4)] == [False, False, True, True]
    fill(cache, (0, 1))
    cache.close()
    assert values(tmp_path) == {f'i{number}': float(number) for number in range(4)}


def test_a_later_note_replaces_an_earlier_one(tmp_path):
    cache = writer(tmp_path)
    fill(cache, (0, 1))
    cache.note('i0', {'content': 'c1', 'size': 7})
    cache.close()
    assert EncodingCache(tmp_path).items['i0'] == {'content': 'c1', 'size': 7}


def test_another_encoder_or_dtype_is_refused_and_pipelines_add_up(tmp_path):
    writer(tmp_path).close()
    prompt = {'prompt': dict(fingerprint='bb', settings={}, weights='w')}
    writer(tmp_path, encoders=prompt, pipelines={'p2': [dict(type='R')]}).close()
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    assert manifest['pipelines'] == {'p1': [], 'p2': [{'type': 'R'}]}
    assert sorted(manifest['encoders']) == ['image', 'prompt']
    other = {'image': dict(fingerprint='cc', settings={'size': 1}, weights='w2')}
    with pytest.raises(ValueError, match=r'another image encoder \(weights differ, fingerprint aa, but got cc'):
        writer(tmp_path, encoders=other)
    with pytest.raises(ValueError, match='holds float32, but got --dtype float16'):
        writer(tmp_path, dtype='float16')
    assert json.loads((tmp_path / 'manifest.json').read_text()) == manifest


def test_only_one_process_writes(tmp_path):
    first = writer(tmp_path)
    with pytest.raises(ValueError, match='is being written by this very process'):
        writer(tmp_path)
    first.close()
    writer(tmp_path).close()


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no cache of encodings in .*none.*CONFIG --out'):
        EncodingCache(tmp_path / 'none')
    cache = writer(tmp_path)
    fill(cache, (0,))
    cache.close()
    (tmp_path / 'items.jsonl').write_text('{"item": "i0", "content": "c0"}\nnonsense\n{}\n')
    with pytest.raises(ValueError, match=r'items.jsonl, line 2 is damaged.*delete this file'):
        EncodingCache(tmp_path)
    (tmp_path / 'manifest.json').write_text('{"format": 0}')
    with pytest.raises(ValueError, match='expected format 1, but got 0'):
        EncodingCache(tmp_path)
    (tmp_path / 'manifest.json').write_text('{')
    with pytest.raises(ValueError, match='manifest.json is not a whole JSON file.*delete the cache'):
        EncodingCache(tmp_path)


def test_a_flipped_byte_names_the_shard(tmp_path):
    cache = writer(tmp_path)
    fill(cache, range(3))
    cache.put('image', 'c3', {'latents': torch.ones(2, 3).bfloat16(), 'extra': torch.tensor(True)})
    cache.note('i3', {'content': 'c3'})
    cache.close()
    shard = tmp_path / 'image-00000.safetensors'
    whole = shard.read_bytes()
    start = 8 + int.from_bytes(whole[:8], 'little')
    expected = {key: EncodingCache(tmp_path).get('image', key) for key in ('c0', 'c1', 'c2', 'c3')}
    assert sorted(expected['c3']) == ['extra', 'latents'] and expected['c3']['extra'].shape == ()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        shard.write_bytes(damaged)
        found, errors = {}, []
        try:
            read = EncodingCache(tmp_path)
            for key in expected:
                try:
                    found[key] = read.get('image', key) if read.has('image', key) else None
                except ValueError as error:
                    errors.append(str(error))
        except ValueError as error:
            errors.append(str(error))
        assert all('image-00000.safetensors' in error for error in errors), place
        assert all('cache_encodings.py c.py --out' in error for error in errors), place
        if place >= start:
            assert len(errors) == 1 and 'another checksum' in errors[0], place
        for key, own in found.items():
            if own is not None:
                assert all(torch.equal(own[part], expected[key][part]) for part in expected[key])


def test_shards_of_an_older_version_are_made_anew(tmp_path):
    from safetensors.torch import save_file

    cache = writer(tmp_path)
    fill(cache, (0,))
    cache.close()
    save_file({'c0.latents': torch.zeros(2, 4)}, tmp_path / 'image-00000.safetensors')
    with pytest.raises(ValueError, match=r'image-00000.*no checksums .*: .*cache_encodings.py c.py --out'):
        EncodingCache(tmp_path)
    cache = writer(tmp_path)
    assert not cache.has('image', 'c0')
    fill(cache, (0,))
    cache.close()
    assert values(tmp_path) == {'i0': 0.0}
