"""The heads of GenMask: the paper's losses on 4x4 masks worked out by hand, and masks read by a probe."""

import copy
import math

import pytest
import torch
from mmengine.logging import MessageHub
from tiny_codecs import AUTOENCODERS, grey_weight, pixel_codec
from tiny_models import batch, build

from genseg_mm.models.base import seeded_generator
from genseg_mm.models.bce_mask_head import BCEMaskHead, ProbeMaskHead
from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.models.latent_probe import LatentProbe
from genseg_mm.models.mask_head import GenerativeMaskHead, NoisyLatents

PURE_NOISE = dict(type='genseg_mm.UniformTimesteps', low=1.0, high=1.0)
BCE = ('decoder', 'linear')
HEADS = dict(
    velocity=dict(type='genseg_mm.GenerativeMaskHead'),
    decoder=dict(type='genseg_mm.BCEMaskHead', through='decoder'),
    linear=dict(type='genseg_mm.BCEMaskHead', through='linear'),
)
# 4 x 4: the left half is the object; one ignored pixel counts as background.
MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 255], [1, 1, 0, 0], [1, 1, 0, 0]])


@pytest.fixture(autouse=True)
def fresh_hub():
    hub = MessageHub.get_current_instance()
    hub.update_info('iter', 3)
    hub.update_info('seed', 5)


def generators(num: int) -> list[torch.Generator]:
    return [seeded_generator(0, index) for index in range(num)]


def head_for(codec, through, **options) -> BCEMaskHead:
    """A head whose linear layer, if it has one, is the mean over RGB."""
    head = BCEMaskHead(through, **{'timesteps': PURE_NOISE, **options})
    head.attach_codec(codec)
    if through == 'linear':
        head.probe.linear.load_state_dict(dict(weight=grey_weight(), bias=torch.zeros(4)))
    return head


def loss_of(head, estimate, tasks=('mask',), masks=MASK[None], sigma=1.0):
    """Losses if the velocity says that the clean latents are ``estimate``."""
    noisy = head.add_noise(torch.zeros(len(tasks), 12, 2, 2), tasks, generators(len(tasks)))
    is_mask = torch.tensor([task == 'mask' for task in tasks])
    return head.loss((noisy.latents - estimate) / sigma, noisy, is_mask, masks)


def drawn(grey: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pixel_unshuffle(grey.expand(1, 3, 4, 4), 2)


@pytest.mark.parametrize('through', BCE)
class TestCrossEntropy:
    def test_by_hand(self, through, tmp_path):
        codec = pixel_codec(tmp_path)
        head = head_for(codec, through)
        scale = 5.0 if through == 'decoder' else 1.0  # the linear layer has its own
        right = drawn((MASK == 1).float() * 2 - 1)
        expected = {1.0: math.log(1 + math.exp(-scale)), 0.0: math.log(2), -1.0: math.log(1 + math.exp(scale))}
        for factor, value in expected.items():
            result = loss_of(head, factor * right)
            assert math.isclose(result['loss_mask'].item(), value, rel_tol=1e-5)
            assert result['loss_image'].item() == 0

    def test_at_the_noise_level_that_the_law_draws(self, through, tmp_path):
        codec = pixel_codec(tmp_path)
        law = dict(PURE_NOISE, low=0.25, high=0.25)
        head = head_for(codec, through, timesteps=law)
        right = drawn((MASK == 1).float() * 2 - 1)
        loss = loss_of(head, right, sigma=0.25)['loss_mask'].item()
        scale = 5.0 if through == 'decoder' else 1.0
        assert math.isclose(loss, math.log(1 + math.exp(-scale)), rel_tol=1e-4)

    def test_its_gradient_improves_the_mask(self, through, tmp_path):
        codec = pixel_codec(tmp_path)
        head = head_for(codec, through)
        estimate = torch.zeros(1, 12, 2, 2, requires_grad=True)
        before = loss_of(head, estimate)['loss_mask']
        before.backward()
        step = codec.decode(-estimate.grad).mean(1)[0]
        assert (step[MASK == 1] > 0).all() and (step[MASK != 1] < 0).all()
        after = loss_of(head, estimate.detach() - estimate.grad)['loss_mask']
        assert after < before

    def test_divides_by_the_whole_batch_and_leaves_images_alone(self, through, tmp_path):
        codec = pixel_codec(tmp_path)
        head = head_for(codec, through, loss_weight=3.0)
        tasks = ('image', 'mask', 'image', 'image')
        estimate = torch.zeros(4, 12, 2, 2)
        estimate[3] += 0.5  # velocity off by -0.5: squared error 0.25 in one of four
        result = loss_of(head, estimate, tasks)
        assert math.isclose(result['loss_mask'].item(), 3 * math.log(2) / 4, rel_tol=1e-5)
        assert math.isclose(result['loss_image'].item(), 0.25 / 4, rel_tol=1e-5)

    def test_without_masks_it_is_zero_with_a_gradient_for_everything(self, through, tmp_path):
        codec = pixel_codec(tmp_path)
        head = head_for(codec, through)
        estimate = torch.ones(2, 12, 2, 2, requires_grad=True)
        result = loss_of(head, estimate, ('image', 'image'), None)
        assert result['loss_mask'].item() == 0
        result['loss_mask'].backward()
        assert estimate.grad.abs().sum() == 0
        assert [own.grad.abs().sum().item() for own in head.parameters()] == [0.0] * (2 if through == 'linear' else 0)

    def test_needs_the_masks_themselves(self, through, tmp_path):
        codec = pixel_codec(tmp_path)
        head = head_for(codec, through)
        with pytest.raises(ValueError, match='mask of each of the 1 mask samples, but got none'):
            loss_of(head, torch.zeros(1, 12, 2, 2), masks=None)


def test_velocity_loss_by_hand():
    """One unit off in one of four cells of a mask, two units in all cells of an image."""
    head = GenerativeMaskHead(timesteps=PURE_NOISE)
    data = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    noisy = head.add_noise(data, ['mask', 'image', 'mask'], generators(3))
    torch.testing.assert_close(noisy.latents - noisy.velocity, data)
    predicted = noisy.velocity.clone()
    predicted[0, 0, 0, 0] += 1
    predicted[1] += 2
    losses = head.loss(predicted, noisy, torch.tensor([True, False, True]))
    assert list(losses) == ['loss_mask', 'loss_image']
    assert math.isclose(losses['loss_mask'].item(), 0.25 / 3, rel_tol=1e-5)
    assert math.isclose(losses['loss_image'].item(), 4 / 3, rel_tol=1e-5)


def test_scale_of_the_decoders_log_odds(tmp_path):
    head = head_for(pixel_codec(tmp_path), 'decoder', scale=2.0)
    even = loss_of(head, torch.zeros(1, 12, 2, 2))['loss_mask'].item()
    assert math.isclose(even, math.log(2), rel_tol=1e-6)
    # Grey 0.5 on [-1, 1]: log-odds 1, right in one half of the picture.
    inside, outside = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    result = loss_of(head, torch.full((1, 12, 2, 2), 0.5))['loss_mask'].item()
    assert math.isclose(result, (inside + outside) / 2, rel_tol=1e-5)


def test_linear_layer_is_read_at_inference_as_a_probability(tmp_path):
    head = head_for(pixel_codec(tmp_path), 'linear', threshold=0.6)
    latents = torch.full((1, 12, 2, 2), math.log(0.7 / 0.3))  # log-odds of 0.7
    grey = head.latents_to_grey(latents)
    torch.testing.assert_close(grey, torch.full((1, 1, 4, 4), 0.4))  # 2 * 0.7 - 1
    logits = head.grey_to_logits(grey[0], (6, 6))
    torch.testing.assert_close(logits, torch.full((1, 6, 6), 0.4 - 0.2))


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('family', ['sana', 'wan'])
def test_keys_and_gradients_of_the_whole_model(family, head):
    model = build(family, mask_head=HEADS[head])
    for tasks in (['mask', 'image'], ['image', 'image']):
        model.zero_grad()
        losses = model(**model.data_preprocessor(batch(tasks), True), mode='loss')
        counts = {task: losses.pop(f'num_samples_{task}') for task in ('mask', 'image')}
        assert counts == {task: tasks.count(task) for task in counts}
        assert list(losses) == ['loss_mask', 'loss_image']
        assert (losses['loss_mask'] > 0).item() == ('mask' in tasks)
        losses['loss_mask'].backward()
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        assert [n for n, p in trained.items() if p.grad is None] == []
        sums = [p.grad.abs().sum().item() for n, p in trained.items() if 'proj_out' in n or 'probe' in n]
        assert all(value > 0 for value in sums) == ('mask' in tasks)
        assert ('mask_head.probe.linear.weight' in trained) == (head == 'linear')


def test_linear_bce_learns_a_batch_and_its_checkpoint_keeps_the_layer():
    model = build('sana', mask_head=dict(HEADS['linear'], timesteps=PURE_NOISE)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    history = []
    for _ in range(40):
        data = model.data_preprocessor(batch(['mask'] * 4), True)
        loss = model(**data, mode='loss')['loss_mask']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-5:]) < 0.7 * sum(history[:5])
    other = build('sana', seed=1, mask_head=dict(HEADS['linear'], timesteps=PURE_NOISE))
    other.load_state_dict(model.state_dict(), strict=True)
    predictions = [
        own.eval()(**own.data_preprocessor(batch(['mask'])), mode='predict')[0].seg_logits.data
        for own in (model, other)
    ]
    assert torch.equal(*predictions)


def test_a_fitted_probe_takes_the_decoders_place(tmp_path, monkeypatch):
    codec = LatentCodec(AUTOENCODERS['patch'])
    masks = torch.stack([sample.gt_sem_seg.data[0] for sample in batch(['mask'] * 40)['data_samples']])
    latents = codec.encode(GenerativeMaskHead.masks_to_images(masks))
    path = tmp_path / 'probe.safetensors'
    LatentProbe(20, 8).fit(latents, masks == 1).save(path, codec)
    probing = dict(type='genseg_mm.ProbeMaskHead', weights=str(path))
    model = build('sana', mask_head=probing)
    plain = build('sana')
    # The probe comes from its own file: checkpoints of either kind fit the other, and nothing of it is trained.
    assert set(model.state_dict()) == set(plain.state_dict())
    model.load_state_dict(plain.state_dict(), strict=True)
    assert not any(own.requires_grad for own in model.mask_head.probe.parameters())

    def oracle(noisy, *_):
        return noisy - latents[: len(noisy)]

    monkeypatch.setattr(model.backbone, 'forward', oracle)
    monkeypatch.setattr(model.codec, 'decode', lambda *_: pytest.fail('the decoder was called'))
    result = model(**model.data_preprocessor(batch(['mask'] * 4)), mode='predict')
    for sample, mask in zip(result, masks, strict=False):
        assert (sample.pred_sem_seg.data[0] == mask).float().mean() > 0.97
    with pytest.raises(ValueError, match='reads latents of 20 channels .* but the codec has 4 and 4'):
        build('wan', mask_head=probing)


@pytest.mark.parametrize('image_condition', [False, True])
def test_without_image_condition_the_loss_does_not_see_the_picture(image_condition):
    model = build('sana', image_condition=image_condition)
    values = []
    for seed in (0, 9):  # two pictures, the same mask
        data = model.data_preprocessor(batch(['mask', 'mask']), True)
        generator = torch.Generator().manual_seed(seed)
        data['inputs'] = torch.rand(data['inputs'].shape, generator=generator) * 2 - 1
        values.append(model(**data, mode='loss')['loss_mask'].item())
    assert values[0] > 0 and (values[0] == values[1]) == (not image_condition)


@pytest.mark.parametrize(
    ('head', 'options', 'message'),
    [
        (GenerativeMaskHead, dict(threshold=1.0), r'threshold must lie in \(0, 1\), but got 1.0'),
        (BCEMaskHead, dict(through='dice'), "through must be one of .*but got 'dice'"),
        (BCEMaskHead, dict(scale=0), 'scale must be positive, but got 0'),
        (BCEMaskHead, dict(loss_weight=-1), 'loss_weight must be positive, but got -1'),
        (
            ProbeMaskHead,
            dict(weights='nowhere.safetensors'),
            'no weights of a probe at .*nowhere.safetensors.*fit_latent_probe',
        ),
    ],
)
def test_wrong_options_say_what_came(head, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        head(**options)


def test_a_head_without_codec_says_what_to_do():
    noisy = NoisyLatents(torch.zeros(1, 12, 2, 2), torch.ones(1), torch.zeros(1, 12, 2, 2))
    with pytest.raises(ValueError, match='GenerativeMaskHead has no codec: call attach_codec first'):
        GenerativeMaskHead().latents_to_grey(noisy.latents)
    with pytest.raises(ValueError, match='BCEMaskHead has no codec: call attach_codec first'):
        BCEMaskHead().loss(noisy.velocity, noisy, torch.tensor([True]), MASK[None])
    linear = BCEMaskHead('linear')
    with pytest.raises(ValueError, match='BCEMaskHead has no linear layer: call attach_codec first'):
        linear.latents_to_grey(noisy.latents)
    with pytest.raises(ValueError, match='BCEMaskHead has no linear layer: call attach_codec first'):
        linear.loss(noisy.velocity, noisy, torch.tensor([True]), MASK[None])


def test_a_copy_of_the_model_reads_masks_by_its_own_codec():
    model = build('sana')
    copied = copy.deepcopy(model)
    copied.codec.decode = lambda latents, **_: torch.ones(len(latents), 3, 4, 4)
    latents = torch.zeros(1, 20, 4, 4)
    assert (copied.mask_head.latents_to_grey(latents) == 1).all()
    assert model.mask_head.latents_to_grey(latents).shape == (1, 1, 32, 32)
    assert not [key for key in model.state_dict() if key.startswith('mask_head')]
