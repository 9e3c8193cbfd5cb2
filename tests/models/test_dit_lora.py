"""LoRA on a DiT: what is trained, what is saved, and that saved adapters give the same function."""

import json

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from safetensors.torch import load_file
from tiny_dit import dit_inputs, saved, tiny_backbone
from tiny_models import TRANSFORMERS

from genseg_mm.models import dit_backbone
from genseg_mm.models.dit_backbone import DiTBackbone

LORA = dict(r=4, lora_alpha=8)


@pytest.fixture
def wan_source(tmp_path):
    return saved(tiny_backbone('wan').transformer, tmp_path / 'released')


def released(family, folder, **config):
    """Source of a released text-to-image model, in whose input there is no room for an image yet."""
    import diffusers

    torch.manual_seed(0)
    kind = getattr(diffusers, type(tiny_backbone(family).transformer).__name__)
    return saved(kind(**{**TRANSFORMERS[family], **config}), folder)


def train(backbone, steps=2):
    inputs = dit_inputs(backbone)
    trained = [own for own in backbone.parameters() if own.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        backbone(*inputs).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        return backbone(*inputs)


@pytest.mark.parametrize('family', TRANSFORMERS)
def test_every_family_takes_adapters_and_starts_at_its_own_function(family, tmp_path):
    source = saved(tiny_backbone(family).transformer, tmp_path)
    plain = DiTBackbone(family, source).eval()
    backbone = DiTBackbone(family, source, lora=LORA).eval()
    inputs = dit_inputs(plain)
    with torch.no_grad():
        torch.testing.assert_close(backbone(*inputs), plain(*inputs), rtol=1e-5, atol=1e-6)
    trained = [name for name, own in backbone.named_parameters() if own.requires_grad]
    assert len(trained) >= 12 and all('.lora_' in name for name in trained)
    fused = {'to_qkv_mlp_proj', 'to_out'} if family == 'flux2' else set()
    assert {name.split('.lora_')[0].rsplit('.', 1)[1] for name in trained} == {'to_q', 'to_k', 'to_v', '0'} | fused
    before = {name: own.clone() for name, own in plain.transformer.named_parameters()}
    after_training = train(backbone)
    assert (after_training - plain(*inputs)).abs().max() > 1e-3
    for name, own in backbone.transformer.named_parameters():
        if '.lora_' not in name:
            assert torch.equal(own, before[name.replace('.base_layer', '')]), name


def test_layers_without_a_gradient_get_no_adapters():
    lora = dict(r=4, target_modules=['to_q', 'to_add_out', 'txt_mlp.net.2'])
    backbone = tiny_backbone('qwen_image', lora=lora)
    backbone(*dit_inputs(backbone)).square().mean().backward()
    trained = {name: own for name, own in backbone.named_parameters() if own.requires_grad}
    assert [name for name, own in trained.items() if own.grad is None] == []
    # Of two blocks the last one's text stream leads nowhere.
    layers = {name.split('transformer_blocks.')[1].split('.lora_')[0] for name in trained}
    assert layers == {'0.attn.to_q', '0.attn.to_add_out', '0.txt_mlp.net.2', '1.attn.to_q'}


def test_training_in_bfloat16_is_warned_of(wan_source, monkeypatch):
    said = []
    monkeypatch.setattr(dit_backbone, 'print_log', lambda text, *_: said.append(text))
    source = dict(wan_source, torch_dtype='bfloat16')
    DiTBackbone('wan', source, lora=LORA)  # adapters are float32
    assert said == []
    backbone = DiTBackbone('wan', source, prompt_dims=48, lora=LORA)
    projection = backbone.transformer.condition_embedder.text_embedder
    assert projection.linear_1.weight.dtype == torch.float32  # and so are new layers
    assert projection(torch.ones(1, 48, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert len(said) == 1 and 'fresh' in said[0]
    DiTBackbone('wan', source)
    assert said[1].startswith('58 of 69 trained tensors are torch.bfloat16')


class TestCheckpoint:
    def test_it_holds_adapters_and_new_layers_only(self, tmp_path):
        source = released('sana', tmp_path, in_channels=20)
        backbone = DiTBackbone('sana', source, prompt_dims=48, lora=LORA).eval()
        expected = train(backbone)
        state = backbone.state_dict()
        whole = [name for name in state if '.lora_' not in name]
        assert sorted(whole) == [
            'transformer.caption_projection.linear_1.bias',
            'transformer.caption_projection.linear_1.weight',
            'transformer.caption_projection.linear_2.bias',
            'transformer.caption_projection.linear_2.weight',
            'transformer.patch_embed.proj.bias',
            'transformer.patch_embed.proj.weight',
        ]
        assert len(state) - len(whole) == 2 * 2 * 8  # 2 layers x 2 attentions x 4 projections
        again = DiTBackbone('sana', source, prompt_dims=48, lora=LORA).eval()
        with torch.no_grad():
            assert (again(*dit_inputs(again)) - expected).abs().max() > 1e-3
            again.load_state_dict(state)
            torch.testing.assert_close(again(*dit_inputs(again)), expected, rtol=1e-5, atol=1e-6)

    def test_from_scratch_it_holds_everything(self):
        backbone = tiny_backbone('sd3', lora=LORA)
        names = {name.replace('.base_layer', '') for name in backbone.state_dict()}
        assert set(tiny_backbone('sd3').state_dict()) <= names

    def test_a_moving_average_keeps_its_adapters(self, wan_source):
        backbone = DiTBackbone('wan', wan_source, lora=LORA).eval()
        average = ExponentialMovingAverage(backbone, momentum=0.5)
        train(backbone)
        average.update_parameters(backbone)  # the first one copies
        before = {name: value.clone() for name, value in backbone.state_dict().items()}
        train(backbone)
        average.update_parameters(backbone)
        state = average.state_dict()
        assert {f'module.{name}' for name in before} == state.keys() - {'steps'}
        for name, value in backbone.state_dict().items():
            torch.testing.assert_close(state[f'module.{name}'], (before[name] + value) / 2)
        again = DiTBackbone('wan', wan_source, lora=LORA).eval()
        again.load_state_dict({name: state[f'module.{name}'] for name in before})
        inputs = dit_inputs(again)
        with torch.no_grad():
            expected = average.module(*inputs)
            torch.testing.assert_close(again(*inputs), expected, rtol=1e-5, atol=1e-6)

    def test_missing_adapters_are_still_an_error(self, wan_source):
        backbone = DiTBackbone('wan', wan_source, lora=LORA)
        state = backbone.state_dict()
        state.pop(next(iter(state)))
        with pytest.raises(RuntimeError, match='Missing key.*lora_A'):
            backbone.load_state_dict(state)


class TestSavedAlone:
    def test_peft_reads_the_folder(self, wan_source, tmp_path):
        from peft import PeftModel

        backbone = DiTBackbone('wan', wan_source, lora=dict(LORA, target_modules=['to_q', 'to_v']))
        backbone.eval()
        expected = train(backbone)
        backbone.save_lora(tmp_path / 'lora')
        assert sorted(path.name for path in (tmp_path / 'lora').iterdir()) == [
            'adapter_config.json',
            'adapter_model.safetensors',
        ]
        config = json.loads((tmp_path / 'lora' / 'adapter_config.json').read_text())
        assert (config['r'], config['lora_alpha']) == (4, 8)
        assert sorted(config['target_modules']) == ['to_q', 'to_v']
        adapters = load_file(tmp_path / 'lora' / 'adapter_model.safetensors')
        assert adapters['base_model.model.blocks.0.attn1.to_q.lora_A.weight'].shape == (4, 32)
        plain = DiTBackbone('wan', wan_source).eval()
        PeftModel.from_pretrained(plain.transformer, str(tmp_path / 'lora'))
        with torch.no_grad():
            torch.testing.assert_close(plain(*dit_inputs(plain)), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize('with_adapters', [True, False])
    def test_load_lora_brings_adapters_and_new_layers_back(self, with_adapters, tmp_path):
        source = released('sana', tmp_path, in_channels=20)
        backbone = DiTBackbone('sana', source, prompt_dims=48, lora=LORA).eval()
        expected = train(backbone)
        backbone.save_lora(tmp_path / 'lora')
        lora = LORA if with_adapters else None
        again = DiTBackbone('sana', source, prompt_dims=48, lora=lora).eval()
        again.load_lora(tmp_path / 'lora')
        with torch.no_grad():
            torch.testing.assert_close(again(*dit_inputs(again)), expected, rtol=1e-5, atol=1e-6)
        assert again.state_dict().keys() == backbone.state_dict().keys()

    def test_wrong_folders_say_what_is_wrong(self, wan_source, tmp_path):
        backbone = DiTBackbone('wan', wan_source, lora=LORA)
        with pytest.raises(FileNotFoundError, match='has no adapter_config.json'):
            backbone.load_lora(tmp_path / 'nothing')
        backbone.save_lora(tmp_path / 'lora')
        rank = DiTBackbone('wan', wan_source, lora=dict(LORA, r=2))
        with pytest.raises(ValueError, match=r'of shape \(2, 32\), but got \(4, 32\)'):
            rank.load_lora(tmp_path / 'lora')
        alpha = DiTBackbone('wan', wan_source, lora=dict(LORA, lora_alpha=16))
        with pytest.raises(ValueError, match='expected lora_alpha=16, .*, but got 8'):
            alpha.load_lora(tmp_path / 'lora')
        fewer = DiTBackbone('wan', wan_source, lora=dict(LORA, target_modules=['to_q']))
        with pytest.raises(ValueError, match=r'lacks \[\] and has .*to_k.* \(0 and 24 in all\)'):
            fewer.load_lora(tmp_path / 'lora')
        widened = DiTBackbone('wan', wan_source, lora=LORA, prompt_dims=48)
        with pytest.raises(FileNotFoundError, match='has no new_layers.safetensors'):
            widened.load_lora(tmp_path / 'lora')
        with pytest.raises(ValueError, match='no adapters to save: build DiTBackbone with lora'):
            DiTBackbone('wan', wan_source).save_lora(tmp_path / 'none')


def test_adapters_are_float32_on_bfloat16_weights(wan_source):
    backbone = DiTBackbone('wan', dict(wan_source, torch_dtype='bfloat16'), lora=LORA).train()
    kinds = {own.dtype for own in backbone.parameters() if own.requires_grad}
    assert kinds == {torch.float32}
    assert backbone.transformer.dtype == torch.bfloat16
    assert train(backbone).dtype == torch.float32


def test_gradient_checkpointing_trains_the_adapters_too(wan_source):
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = DiTBackbone('wan', wan_source, lora=LORA, gradient_checkpointing=checkpointing).train()
        backbone(*dit_inputs(backbone)).square().mean().backward()
        grads.append({name: own.grad for name, own in backbone.named_parameters() if own.requires_grad})
    plain, recomputed = grads
    assert max(grad.abs().max() for grad in plain.values()) > 1e-4
    for name, grad in plain.items():
        torch.testing.assert_close(recomputed[name], grad, rtol=1e-4, atol=1e-7)


def test_wrong_arguments_are_refused(wan_source):
    with pytest.raises(ValueError, match=r"arguments of peft.LoraConfig, but got \['rank'\]"):
        DiTBackbone('wan', wan_source, lora=dict(rank=4))
    with pytest.raises(ValueError, match='no_such_layer'):
        DiTBackbone('wan', wan_source, lora=dict(r=4, target_modules=['no_such_layer']))
