"""Pictures from texts: guidance, Euler steps, noise of each picture, samples of task 'image' in prediction."""

import pytest
import torch
from mmengine.structures import PixelData
from tiny_models import TRANSFORMERS, batch, build, genmask_config

from genseg_mm.functional.flow_matching import sigma_schedule
from genseg_mm.models.base import draw_noise, seeded_generator
from genseg_mm.models.dit_families import DiTFamily
from genseg_mm.models.genmask import guided_velocity_fn, latent_size, pictures_to_bytes
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.registry import MODELS

FAMILIES = sorted(TRANSFORMERS)
TEXTS = ['a large red circle', 'two blue squares', 'a cross']


def linear_backbone(calls):
    """Velocity = 3 noisy + the mean of the prompt's states + sigma."""

    def forward(noisy, sigma, prompt, image_latents=None, has_image=None):
        assert image_latents is None and has_image is None
        calls.append((len(noisy), sigma.tolist()))
        text = prompt.states.mean((1, 2)) + sigma
        return 3 * noisy + text[:, None, None, None]

    forward.family = DiTFamily()
    return forward


def test_guidance_of_a_linear_velocity_by_hand():
    calls = []
    states = torch.tensor([1.0, 2.0, 0.5, -1.0]).reshape(4, 1, 1)  # 2 prompts, then 2 negative ones
    prompt = PromptEmbeddings(states, torch.ones(4, 1, dtype=torch.bool))
    noisy, sigma = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1), torch.tensor([0.5, 1.0])
    guided = guided_velocity_fn(linear_backbone(calls), prompt, 4.0)(noisy, sigma).flatten()
    # 3 x + sigma + uncond + 4 (cond - uncond): 3 + 0.5 + 0.5 + 4 * 0.5, and -3 + 1 - 1 + 4 * 3
    assert guided.tolist() == [6.0, 9.0]
    assert calls == [(4, [0.5, 1.0, 0.5, 1.0])]  # one forward pass for both
    plain = guided_velocity_fn(linear_backbone(calls), prompt.select(states[:, 0, 0] >= 1), 1.0)
    assert plain(noisy, sigma).flatten().tolist() == [4.5, 0.0]
    assert calls[1] == (2, [0.5, 1.0])


def test_generate_is_the_euler_path_of_the_guided_velocity(monkeypatch):
    model, calls = build('sana'), []
    monkeypatch.setattr(model.backbone, 'forward', linear_backbone(calls))
    pictures = model.generate(TEXTS[:2], (32, 48), 3, 2.5, seed=7, negative_text='no', shift=2.0)
    assert calls == [(4, [sigma] * 4) for sigma in sigma_schedule(3, 2.0)[:3].tolist()]

    with torch.no_grad():
        states = model.prompt_encoder([*TEXTS[:2], 'no', 'no'], None).states.mean((1, 2))
    text = (states[2:] + 2.5 * (states[:2] - states[2:]))[:, None, None, None]
    latents = draw_noise((20, 4, 6), [seeded_generator(7, 0), seeded_generator(7, 1)])
    # Shift 2 of 1, 2/3, 1/3, 0
    for sigma, end in ((1.0, 0.8), (0.8, 0.5), (0.5, 0.0)):
        latents = latents - (sigma - end) * (3 * latents + text + sigma)
    expected = model.codec.decode(latents).clamp(-1, 1)
    torch.testing.assert_close(pictures, expected, rtol=0, atol=1e-4)
    assert pictures.abs().max() <= 1


@pytest.mark.parametrize('family', FAMILIES)
class TestFamilies:
    def test_an_oracle_velocity_gives_the_picture_back(self, family, monkeypatch):
        model = build(family)
        pictures = model.data_preprocessor(batch(['image'] * 2))['inputs']
        clean = model.codec.encode(pictures)

        def oracle(noisy, sigma, prompt, image_latents=None, has_image=None):
            data = clean.repeat(len(noisy) // 2, 1, 1, 1)
            return (noisy - data) / sigma[:, None, None, None]

        monkeypatch.setattr(model.backbone, 'forward', oracle)
        expected = model.codec.decode(clean).clamp(-1, 1)
        for num_steps, scale in ((1, 1.0), (4, 1.0), (4, 5.0)):
            given = model.generate(TEXTS[:2], (32, 32), num_steps, scale)
            torch.testing.assert_close(given, expected, rtol=0, atol=1e-3)

    def test_scale_one_is_the_conditional_velocity_alone(self, family):
        model = build(family)
        plain = model.generate(TEXTS, (32, 32), 2, 1.0)
        # A negative prompt equal to the prompt leaves nothing to guide by, whatever the scale.
        for text, picture, index in zip(TEXTS, plain, range(3), strict=True):
            generators = [seeded_generator(0, index)]
            same = model.generate([text], (32, 32), 2, 7.0, negative_text=text, generators=generators)
            torch.testing.assert_close(same[0], picture, rtol=0, atol=1e-3)
        assert (model.generate(TEXTS, (32, 32), 2, 7.0) - plain).abs().max() > 1e-2

    def test_a_picture_does_not_depend_on_its_batch(self, family):
        model = build(family)
        together = model.generate(TEXTS, (32, 48), 2, seed=4)
        for index, text in enumerate(TEXTS):
            generators = [seeded_generator(4, index)]
            alone = model.generate([text], (32, 48), 2, generators=generators)
            torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-3)
        again, other = (model.generate(TEXTS, (32, 48), 2, seed=seed) for seed in (4, 5))
        assert torch.equal(again, together)
        assert (other - together).abs().mean() > 0.05
        equal_texts = model.generate(['a cross'] * 2, (32, 32), 2)
        assert (equal_texts[0] - equal_texts[1]).abs().mean() > 0.05  # each has its own noise

    def test_prediction_makes_pictures_of_image_samples_only(self, family):
        generation = dict(num_steps=2, guidance_scale=3.0, image_size=(64, 64))
        model = build(family, generation=generation)
        mixed = model(**model.data_preprocessor(batch(['mask', 'image', 'mask'])), mode='predict')
        assert ['pred_img' in sample for sample in mixed] == [False, True, False]
        assert ['pred_sem_seg' in sample for sample in mixed] == [True, False, True]
        masks = model(**model.data_preprocessor(batch(['mask'] * 3)), mode='predict')
        for index in (0, 2):
            torch.testing.assert_close(mixed[index].seg_logits.data, masks[index].seg_logits.data, rtol=0, atol=1e-3)
        # The size of the input, not that of the settings; noise of (model's seed, sample_idx).
        expected = model.generate([mixed[1].text], (32, 32), 2, 3.0, generators=[seeded_generator(0, 1)])
        assert isinstance(mixed[1].pred_img, PixelData)
        assert torch.equal(mixed[1].pred_img.data, pictures_to_bytes(expected)[0])


def test_pictures_of_a_padded_batch_have_their_own_size():
    model = build('sana')
    data = batch(['image', 'image'])
    data['data_samples'][1].set_metainfo(dict(img_shape=(24, 16)))
    first, second = model(**model.data_preprocessor(data), mode='predict')
    assert first.pred_img.data.shape == (3, 32, 32)
    assert second.pred_img.data.shape == (3, 24, 16)


def test_bytes_and_sizes_by_hand():
    assert pictures_to_bytes(torch.tensor([-1.0, 0.0, 1.0, 0.5])).tolist() == [0, 128, 255, 191]
    assert latent_size([64, 96], 8, (2, 1)) == (8, 12)


def test_bad_inputs_say_what_came():
    model = build('sana')
    for texts in ('a cross', [], [None], None):
        with pytest.raises(ValueError, match='needs texts, a list of at least one string, but'):
            model.generate(texts, (32, 32))
    for size in ((32,), (32, 40), (0, 32), 32, (32.0, 32), None):
        with pytest.raises(ValueError, match=r'\(height, width\), multiples of 16 and 16 pixels'):
            model.generate(TEXTS, size)
    for scale in (-1, float('nan'), float('inf')):
        with pytest.raises(ValueError, match=f'guidance_scale must be a number of at least 0, but got {scale}'):
            model.generate(TEXTS, (32, 32), guidance_scale=scale)
    with pytest.raises(ValueError, match='num_steps must be a whole number of at least 1, but got'):
        model.generate(TEXTS, (32, 32), num_steps=0)
    with pytest.raises(ValueError, match='one per text, 3, but got 1'):
        model.generate(TEXTS, (32, 32), generators=[seeded_generator(0)])
    data = model.data_preprocessor(batch(['mask', 'image']))
    with pytest.raises(ValueError, match="expected samples of task 'mask', but got 'image'"):
        model(**data, mode='tensor')
    with pytest.raises(ValueError, match=r"generation knows .*, but got \['steps'\]"):
        MODELS.build(genmask_config('sana', generation=dict(steps=3)))
