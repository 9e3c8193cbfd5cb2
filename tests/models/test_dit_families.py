"""What every DiT family has to do: conditions, independence, gradients, packing and sign; one from outside."""

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from tiny_dit import dit_inputs, saved, tiny_backbone
from tiny_models import MASKED_TEXT, TRANSFORMERS, batch, genmask_config

from genseg_mm.functional.flow_matching import data_from_velocity, noisy_latents
from genseg_mm.models.dit_backbone import DiTBackbone
from genseg_mm.models.dit_families import FAMILIES, SanaFamily, register_family
from genseg_mm.models.prompt_encoders import PromptEmbeddings
from genseg_mm.registry import MODELS

# The last block's text stream leads nowhere, so its queries get a gradient of zero.
LAST_TEXT_QUERY = {
    'transformer_blocks.1.attn.add_q_proj.weight',
    'transformer_blocks.1.attn.add_q_proj.bias',
    'transformer_blocks.1.attn.norm_added_q.weight',
}
WITHOUT_GRADIENT = {
    family: LAST_TEXT_QUERY if family in ('qwen_image', 'qwen_image_edit', 'sd3') else set() for family in FAMILIES
}
FROZEN = {
    'transformer_blocks.1.attn.to_add_out.weight',
    'transformer_blocks.1.attn.to_add_out.bias',
    'transformer_blocks.1.txt_mlp.net.0.proj.weight',
    'transformer_blocks.1.txt_mlp.net.0.proj.bias',
    'transformer_blocks.1.txt_mlp.net.2.weight',
    'transformer_blocks.1.txt_mlp.net.2.bias',
}
MIXED = torch.tensor([True, False, True])


def select(prompt, chosen):
    return PromptEmbeddings(*(None if part is None else part[chosen] for part in prompt))


def test_every_family_has_a_tiny_model():
    assert set(FAMILIES) == set(TRANSFORMERS)


@pytest.mark.parametrize('family', TRANSFORMERS)
class TestEveryFamily:
    def test_samples_do_not_see_each_other_in_a_mixed_batch(self, family):
        backbone = tiny_backbone(family)
        noisy, sigma, prompt, image = dit_inputs(backbone)
        with torch.no_grad():
            mixed = backbone(noisy, sigma, prompt, image, MIXED)
            for index in range(3):
                one = slice(index, index + 1)
                alone = backbone(noisy[one], sigma[one], select(prompt, one), image[one] if MIXED[index] else None)
                torch.testing.assert_close(mixed[one], alone, rtol=1e-4, atol=1e-5)
            unseen = image.clone()
            unseen[1] = 1e4  # sample 1 has no image: whatever stands there must not matter
            unseen = backbone(noisy, sigma, prompt, unseen, MIXED)
        torch.testing.assert_close(mixed, unseen, rtol=0, atol=0)
        assert mixed.dtype == torch.float32

    def test_image_text_and_sigma_all_matter(self, family):
        backbone = tiny_backbone(family)
        noisy, sigma, prompt, image = dit_inputs(backbone)
        others = dict(
            image=(noisy, sigma, prompt, image.flip(0)),
            no_image=(noisy, sigma, prompt),
            sigma=(noisy, sigma * 0.5, prompt, image),
            text=(noisy, sigma, prompt._replace(states=prompt.states.flip(0)), image),
            place_in_image=(noisy, sigma, prompt, image.roll(2, -1)),
        )
        if prompt.pooled is not None:
            pooled = prompt._replace(pooled=prompt.pooled.flip(0))
            others['pooled'] = (noisy, sigma, pooled, image)
        with torch.no_grad():
            base = backbone(noisy, sigma, prompt, image)
            for name, arguments in others.items():
                assert (backbone(*arguments) - base).abs().max() > 1e-4, name

    def test_padding_does_not_matter(self, family):
        backbone = tiny_backbone(family)
        noisy, sigma, prompt, image = dit_inputs(backbone)
        junk = prompt.states.clone()
        junk[~prompt.mask] = 100
        longer = PromptEmbeddings(
            torch.cat([junk, 100 * torch.ones_like(junk)], 1),
            torch.cat([prompt.mask, torch.zeros_like(prompt.mask)], 1),
            prompt.pooled,
        )
        with torch.no_grad():
            base = backbone(noisy, sigma, prompt, image, MIXED)
            same = backbone(noisy, sigma, prompt._replace(states=junk), image, MIXED)
            padded = backbone(noisy, sigma, longer, image, MIXED)
        torch.testing.assert_close(base, same, rtol=0, atol=1e-6)
        assert backbone.family.needs_fixed_length_text == (family not in MASKED_TEXT)
        if family in MASKED_TEXT:
            torch.testing.assert_close(base, padded, rtol=1e-4, atol=1e-5)
        else:
            assert (base - padded).abs().max() > 1e-5

    @pytest.mark.parametrize('has_image', [MIXED, torch.zeros(3).bool()], ids=['mixed', 'none'])
    def test_gradient_reaches_every_parameter(self, family, has_image):
        backbone = tiny_backbone(family).train()
        noisy, sigma, prompt, image = dit_inputs(backbone)
        backbone(noisy, sigma, prompt, image, has_image).square().mean().backward()
        parameters = dict(backbone.transformer.named_parameters())
        frozen = {name for name, own in parameters.items() if not own.requires_grad}
        assert frozen == (FROZEN if family.startswith('qwen') else set())
        # None would make distributed training wait for it.
        assert [n for n, own in parameters.items() if own.grad is None and n not in frozen] == []
        zero = {n for n, own in parameters.items() if n not in frozen and not own.grad.any()}
        assert zero == WITHOUT_GRADIENT[family]

    def test_gradient_checkpointing_gives_the_same_gradients(self, family):
        grads = []
        for checkpointing in (False, True):
            backbone = tiny_backbone(family, gradient_checkpointing=checkpointing).train()
            assert backbone.transformer.gradient_checkpointing is checkpointing
            noisy, sigma, prompt, image = dit_inputs(backbone)
            backbone(noisy, sigma, prompt, image, MIXED).square().mean().backward()
            grads.append([p.grad for p in backbone.parameters() if p.requires_grad])
        for plain, recomputed in zip(*grads, strict=True):
            torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-7)

    def test_an_oracle_velocity_gives_the_data_back_in_one_step(self, family, monkeypatch):
        backbone = tiny_backbone(family)
        noise, _, prompt, image = dit_inputs(backbone)
        data = torch.randn(noise.shape, generator=torch.Generator().manual_seed(2))
        sigma = torch.tensor([1.0, 0.9, 0.3])
        noisy = noisy_latents(data, noise, sigma)
        oracle = Oracle(family, noisy, noise - data)
        monkeypatch.setattr(backbone.transformer, 'forward', oracle)
        for has_image in (MIXED, ~MIXED, torch.ones(3).bool(), torch.zeros(3).bool()):
            velocity = backbone(noisy, sigma, prompt, image, has_image)
            estimate = data_from_velocity(noisy, velocity, sigma)
            torch.testing.assert_close(estimate, data, rtol=1e-5, atol=1e-5)
        assert oracle.calls >= 4

    def test_output_starts_at_zero_from_scratch_only(self, family, tmp_path):
        fresh = DiTBackbone(family, TRANSFORMERS[family])
        noisy, sigma, prompt, image = dit_inputs(fresh)
        assert fresh(noisy, sigma, prompt, image).abs().max() == 0
        trained = tiny_backbone(family)
        loaded = DiTBackbone(family, saved(trained.transformer, tmp_path)).eval()
        with torch.no_grad():
            torch.testing.assert_close(
                loaded(noisy, sigma, prompt, image, MIXED),
                trained(noisy, sigma, prompt, image, MIXED),
                rtol=1e-5,
                atol=1e-6,
            )

    def test_wrong_latents_and_prompts_say_what_came(self, family):
        backbone = tiny_backbone(family)
        noisy, sigma, prompt, _ = dit_inputs(backbone)
        channels = backbone.latent_channels
        with pytest.raises(ValueError, match=f'latents of {channels} channels, but got 1'):
            backbone(noisy[:, :1], sigma, prompt)
        if family != 'flux2':  # there a cell is a token
            with pytest.raises(ValueError, match=r'multiple of the patch \(2, 2\), but got \(8, 7\)'):
                backbone(noisy[..., :7], sigma, prompt)
        with pytest.raises(ValueError, match='width 32, but got 8 from .* set prompt_dims=8'):
            backbone(noisy, sigma, prompt._replace(states=prompt.states[..., :8]))

    def test_attention_runs_through_sdpa(self, family, monkeypatch):
        from torch.nn import functional

        backbone = tiny_backbone(family)
        original, calls = functional.scaled_dot_product_attention, []

        def spy(*args, **kwargs):
            calls.append(1)
            return original(*args, **kwargs)

        monkeypatch.setattr(functional, 'scaled_dot_product_attention', spy)
        noisy, sigma, prompt, image = dit_inputs(backbone)
        backbone(noisy, sigma, prompt, image)
        # Sana's self-attention is linear by design, so there it is the two cross-attentions.
        expected = dict(sana=2, wan=4, pixart=4, sd3=2, qwen_image=2, qwen_image_edit=2, z_image=3)
        assert len(calls) == expected.get(family, 2)

    def test_odd_sizes_and_single_samples_work(self, family):
        backbone = tiny_backbone(family)
        noisy, sigma, prompt, image = dit_inputs(backbone)
        rows, columns = (5, 9) if family == 'flux2' else (6, 10)
        with torch.no_grad():
            first = select(prompt, slice(1))
            one = backbone(noisy[:1, :, :rows, :columns], sigma[:1], first, image[:1, :, :rows, :columns])
            no_words = prompt._replace(mask=torch.zeros_like(prompt.mask))
            empty = backbone(noisy, sigma, no_words, image, MIXED)
        assert one.shape == (1, backbone.latent_channels, rows, columns) and one.isfinite().all()
        assert empty.isfinite().all()


class Oracle:
    """Stands in for a transformer's forward: the true velocity, in the family's own packing and sign.

    Which samples a call holds is told by their noisy latents; frames and tokens of the image get nonsense.
    """

    def __init__(self, family, noisy, velocity):
        self.family, self.noisy, self.velocity, self.calls = family, noisy, velocity, 0

    def __call__(self, **inputs):
        self.calls += 1
        return (getattr(self, FAMILIES[self.family].__name__)(**inputs),)

    def of(self, latents):
        distances = torch.stack([(self.noisy - own).flatten(1).abs().amax(1) for own in latents])
        found = distances.argmin(1)
        torch.testing.assert_close(self.noisy[found], latents)
        return self.velocity[found]

    def SanaFamily(self, hidden_states, **_):
        return self.of(hidden_states[:, : self.noisy.shape[1]])

    SD3Family = PixArtFamily = SanaFamily

    def WanFamily(self, hidden_states, **_):
        velocity = self.of(hidden_states[:, :, -1])[:, :, None]
        nonsense = torch.full_like(velocity, 7.0)
        return torch.cat([nonsense, velocity], 2) if hidden_states.shape[2] == 2 else velocity

    def FluxFamily(self, hidden_states, **_):
        _num, channels, height, width = self.noisy.shape
        tokens = height * width // 4
        rows = [(y, x) for y in range(0, height, 2) for x in range(0, width, 2)]
        cells = [(dy, dx) for dy in range(2) for dx in range(2)]
        latents = self.noisy.new_empty(len(hidden_states), channels, height, width)
        for token, (y, x) in enumerate(rows):
            for index, (dy, dx) in enumerate(cells):
                latents[:, :, y + dy, x + dx] = hidden_states[:, token, index::4]
        velocity = self.of(latents)
        packed = torch.full_like(hidden_states, 7.0)
        for token, (y, x) in enumerate(rows):
            for index, (dy, dx) in enumerate(cells):
                packed[:, token, index::4] = velocity[:, :, y + dy, x + dx]
        assert hidden_states.shape[1] in (tokens, 2 * tokens)
        return packed

    QwenImageFamily = FluxFamily

    def Flux2Family(self, hidden_states, **_):
        _num, channels, height, width = self.noisy.shape
        latents = self.noisy.new_empty(len(hidden_states), channels, height, width)
        packed = torch.full_like(hidden_states, 7.0)
        places = [(y, x) for y in range(height) for x in range(width)]
        for token, (y, x) in enumerate(places):
            latents[:, :, y, x] = hidden_states[:, token]
        velocity = self.of(latents)
        for token, (y, x) in enumerate(places):
            packed[:, token] = velocity[:, :, y, x]
        return packed

    def ZImageFamily(self, x, **_):
        targets = [own[-1] if isinstance(own, list) else own for own in x]
        return list(-self.of(torch.stack(targets)[:, :, 0])[:, :, None])


# All that a family of its own takes: AuraFlow, whose time runs as ours does, with the image as extra channels.
OWN_FAMILY = """
from genseg_mm.models.dit_families import DiTFamily, register_family
from genseg_mm.models.dit_families.channel_families import with_image_channels


@register_family('aura_flow')
class AuraFlowFamily(DiTFamily):
    transformer_class = 'AuraFlowTransformer2DModel'
    needs_fixed_length_text = True
    text_projection = ('context_embedder',)
    text_width_key = 'joint_attention_dim'

    def prepare(self, transformer):
        return []

    def velocity(self, transformer, inputs):
        states = inputs.prompt.states
        return transformer(with_image_channels(inputs), states, timestep=inputs.sigma, return_dict=False)[0]
"""
AURA_FLOW = dict(
    sample_size=8,
    in_channels=8,
    out_channels=4,
    num_mmdit_layers=1,
    num_single_dit_layers=1,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    caption_projection_dim=32,
    pos_embed_max_size=64,
)


def test_a_family_from_outside_the_package_trains_through_genmask(tmp_path, monkeypatch):
    (tmp_path / 'aura_flow_family.py').write_text(OWN_FAMILY)
    monkeypatch.syspath_prepend(tmp_path)
    config = genmask_config(
        'wan', backbone=dict(type='genseg_mm.DiTBackbone', family='aura_flow', transformer=AURA_FLOW)
    )
    custom_imports = dict(imports=['aura_flow_family'])
    Config(dict(model=config, custom_imports=custom_imports)).dump(tmp_path / 'config.py')
    try:
        torch.manual_seed(0)
        model = MODELS.build(Config.fromfile(tmp_path / 'config.py').model).train()
    finally:
        FAMILIES.pop('aura_flow', None)
    wrapper = OptimWrapper(torch.optim.AdamW([own for own in model.parameters() if own.requires_grad], lr=5e-3))
    history = []
    for iteration in range(20):
        MessageHub.get_current_instance().update_info('iter', iteration)
        history.append(model.train_step(batch(['mask', 'mask', 'image', 'mask']), wrapper)['loss'].item())
    assert sum(history[-5:]) < 0.9 * sum(history[:5])
    (found, picture) = model.eval().test_step(batch(['mask', 'image']))
    assert found.pred_sem_seg.data.shape == (1, 32, 32) and picture.pred_img.data.shape == (3, 32, 32)


def test_the_name_of_a_family_is_given_once():
    with pytest.raises(ValueError, match="family 'sana' is there already, SanaFamily: choose another name"):
        register_family('sana')(SanaFamily)
