"""GenMask trained from a cache: the losses of training without it; caches of other encoders are refused."""

import os
import signal

import pytest
import torch
from cached_data import (
    ORDER,
    TOOL,
    batch,
    data_config,
    encoder,
    losses,
    make_cache,
    make_tiny_refcoco,
    set_hub,
    write_config,
)
from safetensors import safe_open
from tiny_models import TEXT, build, genmask_config
from tiny_qwen_vl import pretrained, save_tiny_qwen_vl
from tiny_released import write_tokenizer
from tiny_released_dits import byte_tokenizer

from genseg_mm.checkpoint import weights_digest
from genseg_mm.models.cached_inputs import encoder_manifest

FAMILIES = ('sana', 'wan')


@pytest.fixture(autouse=True)
def fresh_hub():
    set_hub()


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return make_tiny_refcoco(tmp_path_factory.mktemp('data') / 'coco')


@pytest.mark.parametrize('family', FAMILIES)
def test_losses_from_the_cache_are_those_without(family, coco, tmp_path):
    config = write_config(tmp_path / 'c.py', coco, family)
    make_cache(config, tmp_path / 'cache')
    plain, cached = data_config(coco), data_config(coco, tmp_path / 'cache')
    for drop in (0.0, 1.0):  # with the dropped prompts of text-to-image samples, too
        model = build(family, prompt_encoder=encoder(family), image_prompt_drop_prob=drop)
        for visit in (1, 2):
            first = losses(model, batch(plain, visit=visit))
            second = losses(model, batch(cached, visit=visit))
            assert second == pytest.approx(first, rel=1e-5) and min(first.values()) > 0
    from_image = build(family, prompt_encoder=encoder(family), start='image')
    assert losses(from_image, batch(cached)) == pytest.approx(losses(from_image, batch(plain)), rel=1e-5)
    parts = losses(model, batch(data_config(coco, tmp_path / 'cache', ('image', 'mask'))))
    assert parts == pytest.approx(losses(model, batch(plain)), rel=1e-5)
    only = losses(model, batch(data_config(coco, tmp_path / 'cache', 'prompt'), ORDER[::2]))
    assert only == pytest.approx(losses(model, batch(plain, ORDER[::2])), rel=1e-5)


def test_the_encoders_are_not_run_and_gradients_are_the_same(coco, tmp_path, monkeypatch):
    make_cache(write_config(tmp_path / 'c.py', coco, 'wan'), tmp_path / 'cache')
    gradients = []
    for data in (data_config(coco), data_config(coco, tmp_path / 'cache')):
        model = build('wan', prompt_encoder=encoder('wan'))
        if gradients:
            monkeypatch.setattr(model.codec, 'encode', lambda *_: pytest.fail('encoded'))
            monkeypatch.setattr(model.prompt_encoder, 'forward', lambda *_: pytest.fail('encoded'))
        sum(model(**model.data_preprocessor(batch(data), True), mode='loss').values()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.backbone.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    assert gradients[0].norm() > 0.01


def test_masks_predicted_from_the_cache_are_those_without(coco, tmp_path):
    make_cache(write_config(tmp_path / 'c.py', coco, 'sana'), tmp_path / 'cache')
    model = build('sana', prompt_encoder=encoder('sana'))
    results = [
        model(**model.data_preprocessor(batch(data, (0, 3))), mode='predict')
        for data in (data_config(coco), data_config(coco, tmp_path / 'cache'))
    ]
    for plain, cached in zip(*results, strict=True):
        logits = cached.seg_logits.data
        assert logits.shape[-2:] == plain.ori_shape == cached.ori_shape
        torch.testing.assert_close(logits, plain.seg_logits.data, rtol=1e-4, atol=1e-4)


def test_pictures_generated_for_cached_samples_have_the_size_of_their_latents(coco, tmp_path):
    make_cache(write_config(tmp_path / 'c.py', coco, 'sana'), tmp_path / 'cache')
    model = build('sana', prompt_encoder=encoder('sana'), generation=dict(num_steps=1))
    plain, cached = (
        model(**model.data_preprocessor(batch(data, ORDER)), mode='predict')
        for data in (data_config(coco), data_config(coco, tmp_path / 'cache'))
    )
    assert ['pred_img' in sample for sample in cached] == [False, True, False, True]
    for index in (1, 3):
        assert cached[index].pred_img.data.shape == (3, 32, 32)
        assert torch.equal(cached[index].pred_img.data, plain[index].pred_img.data)


def test_coarse_dtypes_stay_close_and_overflow_is_refused(coco, tmp_path):
    config = write_config(tmp_path / 'c.py', coco, 'sana')
    make_cache(config, tmp_path / 'cache', dtype='bfloat16')
    model = build('sana', prompt_encoder=encoder('sana'), image_prompt_drop_prob=0.0)
    found = batch(data_config(coco, tmp_path / 'cache'))
    assert found['data_samples'][0].image_latents.dtype == torch.bfloat16
    plain = losses(model, batch(data_config(coco)))
    assert losses(model, found) == pytest.approx(plain, rel=2e-2) != pytest.approx(plain, rel=1e-7)
    encoding = TOOL['Encoding'](torch.nn.Module(), None, [], torch.float16, 1)
    with pytest.raises(ValueError, match=r'largest value is 1e\+05\): use --dtype bfloat16'):
        encoding._cast(torch.tensor([1e5]), 'prompt')


def test_a_killed_run_is_continued_and_changed_pictures_alone_are_done_again(coco, tmp_path, monkeypatch, capfd):
    config = write_config(tmp_path / 'c.py', coco, 'sana')
    out = tmp_path / 'cache'
    pid = os.fork()
    if pid == 0:
        writer = TOOL['EncodingCacheWriter']
        put = writer.put

        def put_and_die(self, kind, content, tensors):
            put(self, kind, content, tensors)
            if kind == 'mask' and len(list(out.glob('mask-*'))) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(writer, 'put', put_and_die)
        make_cache(config, out, shard_size=1e-6, batch_size=1)  # a shard per tensor
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in out.glob('*.safetensors')}
    kinds = [path.name.split('-')[0] for path in before]
    assert kinds.count('mask') == 2 and 0 < kinds.count('image') < 6
    capfd.readouterr()
    make_cache(config, out)
    text = capfd.readouterr().out
    assert 'image: ' in text and 'mask: 4 new, 6 in all' in text
    assert {path: path.stat().st_mtime_ns for path in before} == before
    model = build('sana', prompt_encoder=encoder('sana'))
    plain = losses(model, batch(data_config(coco)))
    assert losses(model, batch(data_config(coco, out))) == pytest.approx(plain, rel=1e-5)

    picture = min((coco / 'train2014').iterdir())
    data, state = picture.read_bytes(), os.stat(picture)
    try:
        os.utime(picture)  # touched, with the same pixels: looked at, not encoded
        make_cache(config, out)
        text = capfd.readouterr().out
        assert 'train 1/2: 1 of 13 items' in text and 'image: 0 new, 6 in all' in text
        picture.write_bytes(sorted((coco / 'train2014').iterdir())[2].read_bytes())
        with pytest.raises(ValueError, match=f'{picture} has changed'):
            batch(data_config(coco, out))
        make_cache(config, out)
        assert 'image: 0 new' in capfd.readouterr().out  # the pixels of another picture
        batch(data_config(coco, out))
    finally:
        picture.write_bytes(data)
        os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_prompts_are_kept_without_their_padding(coco, tmp_path):
    make_cache(write_config(tmp_path / 'c.py', coco, 'wan'), tmp_path / 'cache')
    samples = batch(data_config(coco, tmp_path / 'cache'))['data_samples']
    empty = samples[1]
    assert empty.empty_prompt_states.shape == (1, 32)  # the end token of T5
    assert empty.empty_prompt_mask.tolist() == [True] + [False] * 23
    for sample in samples:
        length = min(len(sample.text.encode()) + 1, 24)
        assert sample.prompt_states.shape == (length, 32)
        assert sample.prompt_mask.sum() == length and len(sample.prompt_mask) == 24
    trimmed = TOOL['trimmed']
    states = torch.tensor([[0.0], [2.0], [3.0], [0.0]])
    mask = torch.tensor([False, True, True, False])
    for fixed, expected in ((False, ([2.0, 3.0], 2)), (True, ([0.0, 2.0, 3.0], 4))):
        kept, own = trimmed(states, mask, fixed)
        assert (kept.flatten().tolist(), len(own)) == expected
    kept, own = trimmed(states + 1, mask, False)  # values in the padding are no padding
    assert kept.flatten().tolist() == [1.0, 3.0, 4.0, 1.0] and len(own) == 4


class TestOtherEncoders:
    @pytest.fixture(scope='class')
    def cache(self, coco, tmp_path_factory):
        folder = tmp_path_factory.mktemp('caches')
        make_cache(write_config(folder / 'c.py', coco, 'sana'), folder / 'cache')
        return folder / 'cache'

    def test_a_trained_encoder_takes_no_cached_prompts(self, coco, cache, tmp_path):
        model = build('sana')
        with pytest.raises(ValueError, match="is trained.*leave 'prompt' out"):
            losses(model, batch(data_config(coco, cache)))
        assert losses(model, batch(data_config(coco, cache, ('image', 'mask'))))['loss_mask'] > 0
        config = write_config(tmp_path / 'c.py', coco, 'sana', genmask_config('sana'))
        with pytest.raises(ValueError, match='is trained.*--what image mask'):
            make_cache(config, tmp_path / 'other')

    def test_other_weights_or_settings_are_stale(self, coco, cache, tmp_path):
        data = batch(data_config(coco, cache))
        other = build('sana', prompt_encoder=encoder('sana'), seed=1)  # other weights
        with pytest.raises(ValueError, match='prompt of .* made by another prompt encoder'):
            losses(other, data)
        cut = build('sana', prompt_encoder=encoder('sana', max_length=23))
        with pytest.raises(ValueError, match='another prompt encoder'):
            losses(cut, data)
        grey = build('sana', prompt_encoder=encoder('sana'))
        grey.data_preprocessor.mean += 1
        with pytest.raises(ValueError, match='cached image .* made by another autoencoder'):
            losses(grey, data)
        model = genmask_config('sana', prompt_encoder=encoder('sana', max_length=23))
        config = write_config(tmp_path / 'c.py', coco, 'sana', model)
        with pytest.raises(ValueError, match=r'another prompt encoder \(settings differ'):
            make_cache(config, cache)
        padded = build('sana', prompt_encoder=encoder('sana', padding='max_length'))
        assert losses(padded, data)['loss_mask'] > 0  # padding is not what is encoded

    def test_the_encoders_of_a_checkpoint(self, coco, cache, tmp_path):
        model = build('sana', prompt_encoder=encoder('sana'), seed=1)
        torch.save(dict(state_dict=model.state_dict()), tmp_path / 'w.pth')
        config = write_config(tmp_path / 'c.py', coco, 'sana')
        make_cache(config, tmp_path / 'own', checkpoint=str(tmp_path / 'w.pth'))
        assert losses(model, batch(data_config(coco, tmp_path / 'own')))['loss_mask'] > 0

    def test_batches_are_all_cached_or_not_at_all(self, coco, cache):
        model = build('sana', prompt_encoder=encoder('sana'))
        mixed = data_config(coco, cache)
        mixed['datasets'][1]['pipeline'] = data_config(coco)['datasets'][1]['pipeline']
        with pytest.raises(ValueError, match=r'one size, but got \[\(0, 0\), \(32, 32\)\]'):
            losses(model, batch(mixed))
        data = batch(data_config(coco, cache))
        del data['data_samples'][2].image_latents
        with pytest.raises(ValueError, match='3 of 4 samples have image_latents.*group=batch_size'):
            losses(model, data)
        data = batch(data_config(coco, cache, ('image', 'mask')))
        for sample in data['data_samples']:
            del sample.image_latents
        with pytest.raises(ValueError, match='neither pixels nor image_latents'):
            losses(model, data)
        model.prompt_encoder.looks_at_images = True
        with pytest.raises(ValueError, match='T5PromptEncoder looks at images: cache the prompts'):
            losses(model, batch(data_config(coco, cache, ('image', 'mask'))))

    def test_wrong_shapes_say_which_sample(self, coco, cache):
        model = build('sana', prompt_encoder=encoder('sana'), image_prompt_drop_prob=0.0)

        def after(change):
            data = batch(data_config(coco, cache))
            change(data['data_samples'][2])
            with pytest.raises(ValueError) as error:
                losses(model, data)
            return str(error.value)

        message = after(lambda s: s.set_data(dict(image_latents=s.image_latents[:, :3])))
        assert 'one shape (C, h, w), but got (20, 4, 4)' in message and '(20, 3, 4)' in message
        data = batch(data_config(coco, cache), (0, 2))
        for sample in data['data_samples']:
            sample.set_data(dict(mask_latents=sample.mask_latents[:, :2]))
        with pytest.raises(ValueError, match=r'\(20, 4, 4\), but got \(20, 2, 4\): .* same Resize'):
            losses(model, data)
        message = after(lambda s: s.set_data(dict(prompt_mask=s.prompt_mask[:3])))
        assert 'with l <= L, but got' in message and '(3,)' in message
        message = after(lambda s: s.set_data(dict(prompt_states=s.prompt_states[:, :5])))
        assert 'must have one width, but got 32 and 5' in message
        message = after(lambda s: s.set_metainfo(dict(text='changed')))
        assert "but got 'changed': put what changes the text, such as TextPrompt" in message

    def test_a_dropped_prompt_without_the_empty_one(self, coco, cache):
        model = build('sana', prompt_encoder=encoder('sana'), image_prompt_drop_prob=1.0)
        data = batch(data_config(coco, cache))
        del data['data_samples'][1].empty_prompt_states
        with pytest.raises(ValueError, match="but got '': put what changes the text"):
            losses(model, data)


def test_fingerprints_see_names_types_shapes_and_values():
    torch.manual_seed(0)
    linear = torch.nn.Linear(2, 3)
    known = weights_digest(linear)
    assert known == weights_digest(linear)
    bit = torch.nn.Linear(2, 3)
    bit.load_state_dict(linear.state_dict())
    assert weights_digest(bit) == known
    with torch.no_grad():
        bit.bias[0] += 1e-6
    flat = torch.nn.Linear(3, 2)
    with torch.no_grad():
        flat.weight.copy_(linear.weight.view(2, 3))
    digests = {known, weights_digest(bit), weights_digest(flat), weights_digest(linear.bfloat16())}
    assert len(digests) == 4
    first = encoder_manifest(build('wan', prompt_encoder=encoder('wan')), 'prompt')
    longer = encoder_manifest(build('wan', prompt_encoder=encoder('wan', max_length=9)), 'prompt')
    assert first['weights'] == longer['weights'] and first['fingerprint'] != longer['fingerprint']
    assert first['settings']['encoder']['max_length'] == 24 and first['looks_at_images'] is False
    assert len(first['settings']['encoder']['tokenizer']) == 16  # a digest of the vocabulary
    wide = encoder('wan', encoder=dict(TEXT, layer_norm_epsilon=1e-3))
    same = encoder_manifest(build('wan', prompt_encoder=wide), 'prompt')
    assert same['weights'] == first['weights'] and same['fingerprint'] != first['fingerprint']


def test_shards_hold_plain_tensors_by_content(coco, tmp_path):
    make_cache(write_config(tmp_path / 'c.py', coco, 'sana'), tmp_path / 'cache', what=['image'])
    names, shapes, checked = [], set(), set()
    for shard in (tmp_path / 'cache').glob('*.safetensors'):
        with safe_open(shard, framework='pt') as file:
            for name in file.keys():  # noqa: SIM118
                content, part = name.split('.')
                if part == 'crc32':
                    checked.add(content)
                else:
                    names.append(name)
                    shapes.add(tuple(file.get_tensor(name).shape))
    assert checked == {name.split('.')[0] for name in names}  # each with its checksum
    assert len(names) == 6 and shapes == {(20, 4, 4)}  # 3 pictures, 3 scenes
    assert {name.split('.')[1] for name in names} == {'latents'}
    assert {len(name.split('.')[0]) for name in names} == {64}


def test_an_encoder_that_looks_at_images(coco, tmp_path):
    folder = save_tiny_qwen_vl(tmp_path / 'qwen')
    qwen = dict(
        type='genseg_mm.QwenVLPromptEncoder',
        encoder=pretrained(folder),
        processor=folder,
        max_length=96,
        padding='max_length',
    )
    config = write_config(tmp_path / 'c.py', coco, 'wan', genmask_config('wan', prompt_encoder=qwen))
    make_cache(config, tmp_path / 'cache')
    cached = data_config(coco, tmp_path / 'cache')
    for drop in (0.0, 1.0):
        model = build('wan', prompt_encoder=qwen, image_prompt_drop_prob=drop)
        plain = losses(model, batch(data_config(coco)))
        assert losses(model, batch(cached)) == pytest.approx(plain, rel=1e-5)
    # Prompts alone: the picture's content is known to the cache, although its latents are not.
    make_cache(config, tmp_path / 'prompts', what=['prompt'])
    only = losses(model, batch(data_config(coco, tmp_path / 'prompts', 'prompt')))
    assert only == pytest.approx(plain, rel=1e-5)
    settings = encoder_manifest(model, 'prompt')
    assert settings['looks_at_images'] is True and 'data_preprocessor' in settings['settings']


def own_encoder(family, folder):
    """A frozen encoder with a pooled vector and a fixed length (Flux), or with an instruction (Sana)."""
    if family == 'sana':
        tokenizer = byte_tokenizer('<bos>')
        tokenizer.save_pretrained(folder)
        sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8)
        return dict(
            type='genseg_mm.LanguageModelPromptEncoder',
            encoder=dict(sizes, model_type='gemma2', vocab_size=258, num_key_value_heads=2, pad_token_id=256),
            tokenizer=str(folder),
            instruction='Draw: ',
            max_length=24,
            trainable=False,
        )
    write_tokenizer(folder)
    sizes = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    ids = dict(vocab_size=514, bos_token_id=512, eos_token_id=513, pad_token_id=0)
    clip = dict(type='genseg_mm.CLIPPromptEncoder', encoder={**sizes, **ids}, tokenizer=str(folder), keep='pooled')
    t5 = dict(type='genseg_mm.T5PromptEncoder', encoder=TEXT, padding='max_length', reads_padding=True, max_length=40)
    return dict(type='genseg_mm.CombinedPromptEncoder', parts=[{**part, 'trainable': False} for part in (clip, t5)])


@pytest.mark.parametrize('family', ['flux', 'sana'])
def test_encoders_with_pooled_vectors_templates_and_lengths(family, coco, tmp_path):
    own = own_encoder(family, tmp_path / 'tokenizer')
    config = write_config(tmp_path / 'c.py', coco, family, genmask_config(family, prompt_encoder=own))
    make_cache(config, tmp_path / 'cache')
    data = data_config(coco, tmp_path / 'cache')
    for drop in (0.0, 1.0):
        model = build(family, prompt_encoder=own, image_prompt_drop_prob=drop)
        assert losses(model, batch(data)) == pytest.approx(losses(model, batch(data_config(coco))), rel=1e-5)
    sample = batch(data)['data_samples'][0]
    if family == 'flux':
        assert sample.prompt_pooled.shape == (24,) and sample.prompt_mask.tolist() == [True] * 40
        assert sample.prompt_states.shape == (40, 32) and sample.prompt_states[-1].abs().max() > 0
        changed = [dict(own, length=50), dict(own, parts=[own['parts'][0], dict(own['parts'][1], lowercase=True)])]
    else:
        assert sample.prompt_mask.sum() == min(2 + len(sample.text.encode()), 24)
        changed = [dict(own, instruction='Draw; '), dict(own, hidden_layer=-2), dict(own, lowercase=True)]
    for other in changed:
        with pytest.raises(ValueError, match='made by another prompt encoder'):
            losses(build(family, prompt_encoder=other), batch(data))
    if family == 'sana':  # the same vocabulary, cut another way
        tokenizer = tmp_path / 'tokenizer' / 'tokenizer.json'
        tokenizer.write_text(tokenizer.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))
        with pytest.raises(ValueError, match='made by another prompt encoder'):
            losses(build(family, prompt_encoder=own), batch(data))
