"""GenMask: losses, one-step masks, seeded noise, frozen parts, learning."""

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from tiny_models import batch, build, genmask_config

from genseg_mm.functional.flow_matching import noisy_latents
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models.base import draw_noise, training_generators
from genseg_mm.models.mask_head import GenerativeMaskHead

FAMILIES = ('sana', 'wan')


@pytest.fixture(autouse=True)
def fresh_hub():
    hub = MessageHub.get_current_instance()
    hub.update_info('iter', 3)
    hub.update_info('seed', 5)


def losses(model, tasks, training=True, **kwargs):
    data = model.data_preprocessor(batch(tasks, **kwargs), training)
    return model(**data, mode='loss')


@pytest.mark.parametrize('family', FAMILIES)
class TestLoss:
    def test_is_the_mean_squared_velocity_error(self, family):
        model = build(family)
        tasks = ['mask', 'image', 'mask']
        model.image_prompt_drop_prob = 0.0
        result = losses(model, tasks)

        data = model.data_preprocessor(batch(tasks), True)
        images = data['inputs']
        masks = torch.stack([sample.gt_sem_seg.data for sample in data['data_samples']])
        image_latents = model.codec.encode(images)
        clean = image_latents.clone()
        drawn = (masks.float() * 2 - 1).expand(-1, 3, -1, -1)
        for index in (0, 2):
            clean[index] = model.codec.encode(drawn[index : index + 1])[0]
        generators = training_generators(3)
        for generator in generators:
            torch.rand(1, generator=generator)  # the draw of the prompt dropout
        sigma = model.mask_head.timesteps(3, generator=generators, tasks=tasks)
        noise = draw_noise(clean.shape[1:], generators)
        prompt = model.prompt_encoder([s.text for s in data['data_samples']])
        has_image = torch.tensor([True, False, True])
        with torch.no_grad():
            velocity = model.backbone(noisy_latents(clean, noise, sigma), sigma, prompt, image_latents, has_image)
        error = (velocity - (noise - clean)).square().flatten(1).mean(1)
        torch.testing.assert_close(result['loss_mask'], (error[0] + error[2]) / 3)
        torch.testing.assert_close(result['loss_image'], error[1] / 3)

    @pytest.mark.parametrize('start', ['noise', 'image'])
    def test_keys_and_graph_are_the_same_for_any_mix(self, family, start):
        model = build(family, start=start)
        for tasks in (['mask'] * 2, ['image'] * 2, ['mask', 'image']):
            result = losses(model, tasks)
            assert list(result) == ['loss_mask', 'loss_image', 'num_samples_mask', 'num_samples_image']
            assert result['num_samples_mask'].item() == tasks.count('mask')
            assert result['num_samples_image'].item() == tasks.count('image')
            assert (result['loss_mask'] == 0).item() == ('mask' not in tasks)
            assert (result['loss_image'] == 0).item() == ('image' not in tasks)
            model.zero_grad()
            sum(result.values()).backward()
            assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    @pytest.mark.parametrize('start', ['noise', 'image'])
    def test_does_not_depend_on_how_ranks_share_the_batch(self, family, start, monkeypatch):
        model = build(family, start=start)
        whole = losses(model, ['mask'] * 4)
        full = batch(['mask'] * 4)
        parts = []
        for rank in range(2):
            monkeypatch.setattr('genseg_mm.models.base.get_rank', lambda rank=rank: rank)
            monkeypatch.setattr('genseg_mm.models.base.get_world_size', lambda: 2)
            own = {key: value[rank::2] for key, value in full.items()}
            parts.append(model(**model.data_preprocessor(own, True), mode='loss')['loss_mask'])
        torch.testing.assert_close(sum(parts) / 2, whole['loss_mask'], rtol=1e-5, atol=1e-6)

    def test_noise_changes_with_iteration_and_seed_only(self, family):
        model = build(family)
        hub = MessageHub.get_current_instance()
        first = losses(model, ['mask'] * 2)['loss_mask'].item()
        assert losses(model, ['mask'] * 2)['loss_mask'].item() == first
        for key, value in (('iter', 4), ('seed', 6)):
            old = hub.get_info(key)
            hub.update_info(key, value)
            assert losses(model, ['mask'] * 2)['loss_mask'].item() != first
            hub.update_info(key, old)


@pytest.mark.parametrize('family', FAMILIES)
class TestPredict:
    def test_one_step_from_seeded_noise_whatever_the_batch(self, family):
        model = build(family)
        full = batch(['mask'] * 3)
        together = model(**model.data_preprocessor(full), mode='predict')
        alone = {key: value[2:] for key, value in batch(['mask'] * 3).items()}
        alone = model(**model.data_preprocessor(alone), mode='predict')
        torch.testing.assert_close(together[2].seg_logits.data, alone[0].seg_logits.data, rtol=1e-3, atol=1e-4)
        logits = together[0].seg_logits.data
        assert torch.equal(together[0].pred_sem_seg.data, (logits > 0).to(torch.uint8))
        assert logits.std() > 0.01

    def test_an_oracle_velocity_gives_the_mask_back(self, family, monkeypatch):
        model = build(family)
        data = model.data_preprocessor(batch(['mask'] * 2))
        masks = torch.stack([s.gt_sem_seg.data[0] for s in data['data_samples']])
        clean = model.codec.encode(model.mask_head.masks_to_images(masks))
        calls = []

        def oracle(noisy, sigma, *_):
            calls.append(sigma.tolist())
            return noisy - clean  # noise - data at sigma = 1

        monkeypatch.setattr(model.backbone, 'forward', oracle)
        decoded = model(**data, mode='tensor')
        torch.testing.assert_close(decoded, model.codec.decode(clean), rtol=1e-4, atol=1e-4)
        assert calls == [[1.0, 1.0]]  # a single forward pass, from pure noise
        if family == 'sana':  # its codec is near lossless: the mask itself must come back
            result = model(**model.data_preprocessor(batch(['mask'] * 2)), mode='predict')
            for sample, mask in zip(result, masks, strict=True):
                assert (sample.pred_sem_seg.data[0] == mask).float().mean() > 0.98

    def test_masks_come_at_the_original_size(self, family):
        model = build(family)
        result = model(**model.data_preprocessor(batch(['mask'], ori_size=50)), mode='predict')
        assert result[0].pred_sem_seg.data.shape == (1, 50, 50)
        assert set(result[0].pred_sem_seg.data.unique().tolist()) <= {0, 1}


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('condition', [True, False])
class TestStartFromTheImage:
    def test_masks_are_on_the_path_from_their_image_and_pictures_on_that_from_noise(
        self, family, condition, monkeypatch
    ):
        tasks = ['mask', 'image', 'mask']
        seen = {}

        def spy(noisy, sigma, prompt, image, has_image):
            seen.update(noisy=noisy, sigma=sigma, image=image, has_image=has_image)
            return torch.zeros_like(noisy)

        found = []
        for start in ('noise', 'image'):
            model = build(family, start=start, image_condition=condition, image_prompt_drop_prob=0.0)
            monkeypatch.setattr(model.backbone, 'forward', spy)
            found.append((losses(model, tasks), dict(seen)))
        (from_noise, first), (from_image, second) = found
        assert torch.equal(first['sigma'], second['sigma'])  # the same draws
        assert torch.equal(first['noisy'][1], second['noisy'][1])  # text-to-image goes on from noise
        assert from_noise['loss_image'] == from_image['loss_image']
        assert second['has_image'].tolist() == [condition, False, condition]
        data = model.data_preprocessor(batch(tasks), True)
        masks = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples']])[[0, 2]]
        clean = model.codec.encode(model.mask_head.masks_to_images(masks))
        images = model.codec.encode(data['inputs'])[[0, 2]]
        sigma = second['sigma'][[0, 2]].reshape(2, 1, 1, 1)
        torch.testing.assert_close(second['noisy'][[0, 2]], (1 - sigma) * clean + sigma * images)
        expected = (images - clean).square().mean((1, 2, 3)).sum() / 3  # of a velocity of zero
        torch.testing.assert_close(from_image['loss_mask'], expected)

    def test_a_perfect_velocity_gives_the_mask_and_nothing_is_drawn(self, family, condition, monkeypatch):
        model = build(family, start='image', image_condition=condition)
        data = model.data_preprocessor(batch(['mask'] * 2))
        images = model.codec.encode(data['inputs'])
        masks = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples']])
        clean = model.codec.encode(model.mask_head.masks_to_images(masks))
        monkeypatch.setattr('genseg_mm.models.genmask.draw_noise', lambda *_: pytest.fail('noise was drawn'))
        with torch.no_grad():
            first = model(**data, mode='tensor')
            model.seed = 7
            for sample in data['data_samples']:
                sample.set_metainfo(dict(sample_idx=99))
            assert torch.equal(model(**data, mode='tensor'), first)  # neither the seed nor the sample's number matters
        seen = []

        def oracle(noisy, *_):
            seen.append(noisy)
            return images - clean

        monkeypatch.setattr(model.backbone, 'forward', oracle)
        for num_steps in (1, 3):
            model.mask_head.num_steps = num_steps
            decoded = model(**data, mode='tensor')
            torch.testing.assert_close(decoded, model.codec.decode(clean), rtol=1e-4, atol=1e-4)
        assert torch.equal(seen[0], images) and len(seen) == 4


def test_the_image_reaches_the_model_by_the_start_alone():
    first, other = (
        build('sana', image_condition=False, start='image')(
            **build('sana').data_preprocessor(batch(['mask'], seed=seed)), mode='tensor'
        )
        for seed in (0, 9)
    )
    assert (first - other).abs().max() > 0.01
    picture = batch(['mask'])['inputs'][0].permute(1, 2, 0).numpy()
    masks = []
    for seed in (0, 5):
        model = build('sana', start='image')
        model.seed = seed
        infer = GenSegInferencer(model, show_progress=False)
        masks.append(infer(picture, texts='the red circle')['predictions'][0]['masks'])
    assert masks[0].any() and np.array_equal(*masks)
    with pytest.raises(ValueError, match="start must be one of noise, image, but got 'mask'"):
        build('sana', start='mask')


def test_ignored_pixels_are_drawn_black_and_threshold_moves_the_logits():
    image = GenerativeMaskHead.masks_to_images(torch.tensor([[[0, 1], [255, 1]]]))
    assert image[0, 0].tolist() == [[-1.0, 1.0], [-1.0, 1.0]] and image.shape == (1, 3, 2, 2)
    grey = torch.tensor([[[0.1]]])
    logits = [GenerativeMaskHead(threshold=t).grey_to_logits(grey, (1, 1)) for t in (0.5, 0.6)]
    assert [round(value.item(), 4) for value in logits] == [0.1, -0.1]


def test_without_the_image_condition_the_picture_does_not_matter():
    model = build('sana', image_condition=False)
    first = model(**model.data_preprocessor(batch(['mask'], seed=0)), mode='tensor')
    other = model(**model.data_preprocessor(batch(['mask'], seed=9)), mode='tensor')
    torch.testing.assert_close(first, other, rtol=0, atol=0)


def test_prompts_are_dropped_for_images_only(monkeypatch):
    model = build('sana', image_prompt_drop_prob=1.0)
    seen = []
    encode = model.prompt_encoder.forward
    monkeypatch.setattr(model.prompt_encoder, 'forward', lambda texts, images: seen.extend(texts) or encode(texts))
    losses(model, ['mask', 'image', 'mask'])
    assert seen == ['the red circle', '', 'the leftmost shape']


def test_training_moves_all_but_the_frozen_codec_and_learns_a_batch():
    model = build('sana')
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    wrapper = OptimWrapper(optimizer)
    frozen = {k: v.clone() for k, v in model.codec.autoencoder.state_dict().items()}
    before = {n: p.clone() for n, p in model.named_parameters()}
    hub = MessageHub.get_current_instance()
    history = []
    for iteration in range(80):
        hub.update_info('iter', iteration)
        history.append(model.train_step(batch(['mask'] * 4), wrapper)['loss'].item())
    assert sum(history[-10:]) < 0.3 * sum(history[:10])
    for key, value in model.codec.autoencoder.state_dict().items():
        assert torch.equal(value, frozen[key])
    unchanged = [n for n, p in model.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
    assert unchanged == []


def test_checkpoint_holds_what_is_trained_and_loads_strictly():
    model, other = build('sana', seed=0), build('sana', seed=1)
    state = model.state_dict()
    assert not [key for key in state if key.startswith('codec.')]
    assert [key for key in state if key.startswith('prompt_encoder.encoder.')]
    other.load_state_dict(state, strict=True)
    first = model(**model.data_preprocessor(batch(['mask'])), mode='tensor')
    second = other(**other.data_preprocessor(batch(['mask'])), mode='tensor')
    assert torch.equal(first, second)


def test_wrong_input_says_what_came():
    model = build('sana')
    data = model.data_preprocessor(batch(['mask']), True)
    with pytest.raises(ValueError, match="'loss', 'predict' or 'tensor', but got 'train'"):
        model(**data, mode='train')
    with pytest.raises(ValueError, match='needs data_samples'):
        model(data['inputs'])
    del data['data_samples'][0].gt_sem_seg
    with pytest.raises(ValueError, match='no gt_sem_seg.*LoadReferringMask'):
        model(**data, mode='loss')
    data['data_samples'][0].set_metainfo(dict(text=None))
    with pytest.raises(ValueError, match="metainfo 'text', but got None"):
        model(**data, mode='predict')
    config = genmask_config('wan')
    config['prompt_encoder'] = dict(config['prompt_encoder'], padding='longest')
    with pytest.raises(ValueError, match="padding='max_length'.*but got 'longest'"):
        build('wan', prompt_encoder=config['prompt_encoder'])
    mixed = batch(['mask'])['inputs'] + batch(['mask'], size=48)['inputs']
    with pytest.raises(ValueError, match=r'one size, but got \[\(32, 32\), \(48, 48\)\]'):
        model.data_preprocessor(dict(inputs=mixed, data_samples=None))


def test_unknown_tasks_are_refused():
    model = build('sana')
    data = model.data_preprocessor(batch(['mask']), True)
    data['data_samples'][0].set_metainfo(dict(task='paint'))
    for mode in ('loss', 'predict', 'tensor'):
        with pytest.raises(ValueError, match="task must be 'mask' or 'image', but got 'paint'"):
            model(**data, mode=mode)
