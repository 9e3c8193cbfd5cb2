"""Pictures are encoded once: which, by whom, and never another one's."""

import pytest
import torch
from tiny_codecs import AUTOENCODERS
from tiny_models import batch, build
from tiny_qwen_vl import pretrained, save_tiny_qwen_vl

from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.models.picture_memory import PictureMemory
from genseg_mm.models.prompt_encoders import QwenVLPromptEncoder

PICTURES = torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
REPEATED = [0, 0, 1, 0, 2, 1]


def counted(module, calls):
    module.register_forward_pre_hook(lambda _module, args: calls.append(len(args[0])))


class TestMemory:
    def encode(self, pictures, memory, encoder, calls):
        def run(new):
            calls.append(len(new))
            return list(new.flatten(1).sum(1))

        return torch.stack(memory.encode(pictures, run, encoder))

    def test_each_picture_once_over_batches_of_any_size(self):
        encoder, places = torch.nn.Linear(1, 1), torch.tensor(REPEATED)
        for size in (1, 2, 4, 6):
            memory, calls = PictureMemory(capacity=3), []
            found = torch.cat([self.encode(own, memory, encoder, calls) for own in PICTURES[places].split(size)])
            assert torch.equal(found, PICTURES.flatten(1).sum(1)[places])
            assert sum(calls) == 3

    def test_it_is_bounded_and_keeps_what_was_used_last(self):
        encoder, memory, calls = torch.nn.Linear(1, 1), PictureMemory(capacity=2), []
        for index in (0, 1, 0, 2, 0, 1):
            self.encode(PICTURES[index][None], memory, encoder, calls)
        assert len(calls) == 4  # 1 was forgotten for 2
        assert len(memory._kept) == 2
        assert sum(own.picture.untyped_storage().nbytes() for own in memory._kept) == 2 * PICTURES[0].nbytes

    def test_pictures_with_the_same_sum_or_another_shape_or_type_are_others(self):
        encoder, memory = torch.nn.Linear(1, 1), PictureMemory()
        calls: list[int] = []
        turned = PICTURES.flip(-1)  # the same pixels in another order
        for pictures in (PICTURES, turned, PICTURES.reshape(3, 3, 48, 32), PICTURES.double()):
            self.encode(pictures, memory, encoder, calls)
        assert calls == [3] * 4
        near = PICTURES.clone()
        near[0, 0, 0, 0] = torch.nextafter(near[0, 0, 0, 0], torch.tensor(9.0))
        self.encode(torch.cat([PICTURES[:1], near[:1]]), memory, encoder, calls)
        assert calls[-1] == 2

    def test_a_failed_pass_leaves_nothing_behind(self):
        encoder, memory = torch.nn.Linear(1, 1), PictureMemory()
        with pytest.raises(MemoryError):
            memory.encode(PICTURES, lambda new: (_ for _ in ()).throw(MemoryError()), encoder)
        calls: list[int] = []
        assert torch.equal(self.encode(PICTURES, memory, encoder, calls), PICTURES.flatten(1).sum(1))
        assert calls == [3]

    @pytest.mark.parametrize('change', ['in place', 'loaded', 'precision', 'data'])
    def test_other_weights_forget(self, change):
        encoder, memory, calls = torch.nn.Linear(1, 1), PictureMemory(), []
        self.encode(PICTURES, memory, encoder, calls)
        with torch.no_grad():
            if change == 'in place':
                encoder.weight.mul_(2)
            elif change == 'loaded':
                encoder.load_state_dict(torch.nn.Linear(1, 1).state_dict())
            elif change == 'precision':
                encoder.bfloat16()
            else:
                encoder.weight.data = torch.ones(1, 1)
        self.encode(PICTURES, memory, encoder, calls)
        assert calls == [3, 3]

    def test_sharded_encoders_see_every_batch(self):
        encoder, memory, calls = torch.nn.Linear(1, 1), PictureMemory(), []
        encoder.weight.placements = ('Shard(0)',)  # as of a DTensor: all processes gather it together
        for _ in range(2):
            self.encode(PICTURES[torch.tensor(REPEATED)], memory, encoder, calls)
        assert calls == [6, 6]


@pytest.mark.parametrize('kind', AUTOENCODERS)
def test_codecs_encode_once_in_evaluation_and_as_they_are_asked_in_training(kind):
    torch.manual_seed(0)
    codec = LatentCodec(AUTOENCODERS[kind]).train()
    calls: list[int] = []
    encode = codec.autoencoder.encode
    codec.autoencoder.encode = lambda images: calls.append(len(images)) or encode(images)
    pictures = PICTURES[torch.tensor(REPEATED)]
    plain = codec.encode(pictures)
    assert calls == [6]
    codec.eval()
    for _ in range(2):
        torch.testing.assert_close(codec.encode(pictures), plain, rtol=1e-5, atol=1e-6)
    assert calls == [6, 3]


@pytest.mark.parametrize('kind', ['qwen2_5_vl', 'qwen3_vl'])
def test_the_vision_tower_sees_a_picture_once(tmp_path, kind):
    folder = save_tiny_qwen_vl(tmp_path, kind)
    encoder = QwenVLPromptEncoder(pretrained(folder, kind), folder, max_length=96).eval()
    calls: list[int] = []
    counted(encoder.encoder.visual.patch_embed, calls)
    pictures = PICTURES[torch.tensor(REPEATED)]
    texts = [f'the {word} circle' for word in ('red', 'blue', 'red', 'large', 'left', 'square')]
    one_by_one = [encoder(texts[index : index + 1], pictures[index : index + 1]).states for index in range(6)]
    per_picture = calls[0]
    assert calls == [per_picture] * 3
    encoder._memory, calls[:] = PictureMemory(), []
    together = encoder(texts, pictures)
    shown = torch.tensor([True, True, False, True, True, True])
    some = encoder(texts, pictures, has_image=shown)
    assert calls == [3 * per_picture]
    for index, (states, own) in enumerate(zip(one_by_one, together.states, strict=True)):
        torch.testing.assert_close(own[: states.shape[1]], states[0], rtol=1e-4, atol=1e-4)
        if shown[index]:
            torch.testing.assert_close(some.states[index][: states.shape[1]], states[0], rtol=1e-4, atol=1e-4)
    encoder.train()
    torch.testing.assert_close(encoder(texts, pictures).states, together.states, rtol=1e-4, atol=1e-4)
    assert calls == [3 * per_picture, 6 * per_picture]


def test_masks_of_the_sentences_of_a_picture_are_those_without_memory():
    model = build('wan').eval()
    data = batch(['mask'] * 4)
    data['inputs'] = [data['inputs'][index] for index in (0, 0, 0, 1)]
    calls: list[int] = []
    encode = model.codec.autoencoder.encode
    model.codec.autoencoder.encode = lambda images: calls.append(len(images)) or encode(images)
    processed = model.data_preprocessor(data)

    def logits(places):
        samples = [processed['data_samples'][index].clone() for index in places]
        predicted = model.predict(processed['inputs'][torch.tensor(places)], samples)
        return {index: own.seg_logits.data for index, own in zip(places, predicted, strict=True)}

    together = logits([0, 1, 2, 3])
    again = {**logits([2, 3]), **logits([1]), **logits([0])}
    assert calls == [2]
    for index in range(4):
        model.codec._memory = PictureMemory()
        torch.testing.assert_close(again[index], together[index], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits([index])[index], together[index], rtol=1e-4, atol=1e-5)
    assert calls == [2, 1, 1, 1, 1]
