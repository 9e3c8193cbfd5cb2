"""GenMask with Qwen-VL as its prompt encoder, the paper's pairing."""

import pytest
import torch
from tiny_models import batch, build
from tiny_qwen_vl import pretrained, save_tiny_qwen_vl


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return save_tiny_qwen_vl(tmp_path_factory.mktemp('qwen_vl'))


def genmask(folder: str, family: str = 'wan', **kwargs):
    encoder = dict(
        type='genseg_mm.QwenVLPromptEncoder',
        encoder=pretrained(folder),
        processor=folder,
        max_length=48,
        padding='max_length',
    )
    return build(family, prompt_encoder=encoder, **kwargs)


def run(model, data: dict, mode: str):
    processed = model.data_preprocessor(data, training=mode == 'loss')
    return model(processed['inputs'], processed['data_samples'], mode=mode)


@pytest.mark.parametrize('family', ['wan', 'sana'])
def test_both_tasks_train_the_dit_and_not_the_encoder(folder, family):
    model = genmask(folder, family).train()
    losses = run(model, batch(['mask', 'image', 'mask']), 'loss')
    counts = {task: losses.pop(f'num_samples_{task}') for task in ('mask', 'image')}
    assert counts == dict(mask=2, image=1)
    assert sorted(losses) == ['loss_image', 'loss_mask']
    assert all(0.1 < loss.item() < 100 for loss in losses.values())
    sum(losses.values()).backward()
    grads = [p.grad for p in model.backbone.parameters() if p.requires_grad]
    assert max(grad.abs().max() for grad in grads if grad is not None) > 0
    assert [n for n, p in model.prompt_encoder.named_parameters() if p.grad is not None] == []
    assert [key for key in model.state_dict() if key.startswith('prompt_encoder')] == []


def test_a_sample_that_generates_its_image_does_not_show_it_to_the_encoder(folder, monkeypatch):
    model = genmask(folder).train()
    prompts = []
    encode = model.prompt_encoder.forward

    def spy(texts, images=None, has_image=None):
        prompts.append(encode(texts, images, has_image=has_image))
        return prompts[-1]

    monkeypatch.setattr(model.prompt_encoder, 'forward', spy)
    model.image_prompt_drop_prob = 0.0
    for seed in (0, 1):  # other pictures, the same texts
        run(model, batch(['mask', 'image'], seed=seed), 'loss')
    one, other = (prompt.states for prompt in prompts)
    assert torch.equal(one[1], other[1])
    assert (one[0] - other[0]).abs().max() > 0.01
    # 16 image tokens between start and end tell the two tasks apart, beside the words.
    words = [len(model.prompt_encoder.chat.words(t)) for t in ('the red circle', 'a large blue square')]
    counts = prompts[0].mask.sum(1).tolist()
    assert counts[0] - counts[1] == 18 + words[0] - words[1]


def test_without_the_latent_condition_the_picture_still_comes_in_through_the_encoder(folder):
    model = genmask(folder, image_condition=False)
    logits = [run(model, batch(['mask'], seed=seed), 'predict')[0].seg_logits.data for seed in (0, 1)]
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    model.prompt_encoder.looks_at_images = False
    blind = [run(model, batch(['mask'], seed=seed), 'predict')[0].seg_logits.data for seed in (0, 1)]
    assert torch.equal(*blind)
