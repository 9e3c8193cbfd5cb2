"""Layouts of released repositories: every config's sources are known, parts fit together, sizes are the published."""

import re

import pytest
import torch
from mmengine.config import Config
from rehearsal import configs

from genseg_mm.hub_layouts import Source, known_layouts, layout, part_of, sources_of
from genseg_mm.hub_layouts.folders import model_on_meta, rehearsed_config

# Parameters of the releases in millions, as their cards and files have them.
PUBLISHED = {
    ('Wan-AI/Wan2.1-T2V-1.3B-Diffusers', 'transformer'): 1419,
    ('Wan-AI/Wan2.1-T2V-1.3B-Diffusers', 'text_encoder'): 5681,
    ('Wan-AI/Wan2.1-T2V-1.3B-Diffusers', 'vae'): 127,
    ('Wan-AI/Wan2.1-T2V-14B-Diffusers', 'transformer'): 14289,
    ('Wan-AI/Wan2.2-TI2V-5B-Diffusers', 'transformer'): 5000,
    ('Qwen/Qwen-Image', 'transformer'): 20430,
    ('Qwen/Qwen2.5-VL-7B-Instruct', ''): 8292,
    ('black-forest-labs/FLUX.1-dev', 'transformer'): 11901,
    ('black-forest-labs/FLUX.1-dev', 'text_encoder'): 123,
    ('black-forest-labs/FLUX.1-dev', 'text_encoder_2'): 4762,
    ('black-forest-labs/FLUX.2-klein-4B', 'transformer'): 3876,
    ('black-forest-labs/FLUX.2-klein-4B', 'text_encoder'): 4022,
    ('stabilityai/stable-diffusion-3.5-medium', 'text_encoder_2'): 695,
    ('Efficient-Large-Model/Sana_1600M_512px_diffusers', 'transformer'): 1604,
    ('Efficient-Large-Model/Sana_1600M_512px_diffusers', 'text_encoder'): 2614,
    ('PixArt-alpha/PixArt-Sigma-XL-2-512-MS', 'transformer'): 610,
    ('Tongyi-MAI/Z-Image', 'transformer'): 6155,
    ('stabilityai/stable-diffusion-2', 'unet'): 866,
    ('facebook/vit-mae-huge', ''): 657,
}


@pytest.mark.parametrize('path', configs.full_size_configs(), ids=lambda path: path.stem)
def test_every_source_of_every_full_size_config_is_known(path, monkeypatch):
    monkeypatch.setenv('GENSEG_DATA', '/somewhere')
    cfg = Config.fromfile(path)
    known = configs.repositories(cfg)
    if path.parent.name != 'benchmarks':
        assert known or 'vit-b' in path.stem
    for key in configs.MODEL_KEYS:
        for source in sources_of(cfg.get(key), key):
            assert source.repository in known and (part_of(source).kind or source.subfolder or source.path)


def test_sources_are_found_wherever_they_stand():
    model = dict(
        codec=dict(type='x.from_pretrained', pretrained_model_name_or_path='a/b', subfolder='vae'),
        parts=[dict(tokenizer='c/d', tokenizer_kwargs=dict(subfolder='tokenizer_2'))],
        weights='pretrain/x.pth',
        file='e/f',
        text='one / two',
        folder='/data/wan/vae',
    )
    assert sources_of(model, 'model') == [
        Source('model.codec.pretrained_model_name_or_path', 'a/b', 'vae'),
        Source('model.parts.0.tokenizer', 'c/d', 'tokenizer_2'),
    ]


def test_an_unknown_repository_is_named():
    with pytest.raises(ValueError, match=r'Qwen/Qwen-Imagine has no known layout \(but Qwen/Qwen-Image has\).*json'):
        layout('Qwen/Qwen-Imagine')
    with pytest.raises(ValueError, match="model.codec: Qwen/Qwen-Image has the subfolders .*'vae'.*got 'vea'"):
        part_of(Source('model.codec', 'Qwen/Qwen-Image', 'vea'))


def test_one_layer_leaves_clip_the_one_that_diffusers_reads():
    parts = [part for repository in known_layouts() for part in layout(repository).values()]
    clips = [part for part in parts if 'CLIPText' in (part.kind or '')]
    assert len(clips) >= 4
    assert {rehearsed_config(part, 1, 'tiny')['num_hidden_layers'] for part in clips} == {2}


@pytest.mark.slow
@pytest.mark.parametrize(('repository', 'subfolder'), PUBLISHED, ids=lambda name: name.rpartition('/')[2])
def test_sizes_are_the_published(repository, subfolder):
    part = layout(repository)[subfolder]
    numbers = sum(own.numel() for own in model_on_meta(part.kind, part.config).parameters())
    assert numbers == pytest.approx(1e6 * PUBLISHED[repository, subfolder], rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize('repository', known_layouts())
def test_small_widths_have_the_same_blocks(repository):
    """Every kind of tensor of the small model, numbers of layers aside, is one of the released one's."""

    def kinds(config):
        state = model_on_meta(part.kind, config).state_dict()
        return {(re.sub(r'\.\d+', '.N', name), value.ndim) for name, value in state.items()}, state

    for part in layout(repository).values():
        if part.kind is None:
            continue
        (released, _), (own, small) = kinds(part.config), kinds(rehearsed_config(part, 2, 'tiny'))
        assert own <= released
        words = part.config.get('vocab_size')  # embeddings of whole vocabularies
        assert sum(value.numel() for value in small.values() if value.shape[:1] != (words,)) < 4e7
        assert all(value.device == torch.device('meta') for value in small.values())
