"""Every pretrained part has to be whole: all families of transformers, autoencoders, text encoders and colorers."""

import ast
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_codecs import AUTOENCODERS
from tiny_models import TRANSFORMERS
from tiny_qwen_vl import CLASSES, pretrained, save_tiny_qwen_vl
from tiny_released import make_mae_folder, make_sd_folder
from torch import nn

from genseg_mm.models import pretrained_parts
from genseg_mm.models.colorers import MAEColorer, SDColorer
from genseg_mm.models.dit_backbone import DiTBackbone
from genseg_mm.models.dit_families import FAMILIES
from genseg_mm.models.gen2seg import load_released
from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.models.prompt_encoders import QwenVLPromptEncoder, T5PromptEncoder
from genseg_mm.models.prompt_encoders.prompt_encoder import load_tokenizer
from genseg_mm.registry import MODELS

PARTS = [
    *(f'dit {family}' for family in FAMILIES),
    *(f'codec {name}' for name, own in AUTOENCODERS.items() if 'diffusers' in str(own['type'])),
    *(f'qwen {kind}' for kind in CLASSES),
    't5 T5', 't5 UMT5', 'sd unet', 'sd vae', 'sd text_encoder', 'mae -',
]  # fmt: skip


def make(part: str, folder: Path) -> tuple[Path, object]:
    """Writes a tiny folder; the place of the weights, and what builds the owner from it and gives the part."""
    kind, name = part.split(' ')
    torch.manual_seed(0)
    if kind == 'dit':
        expected = FAMILIES[name]().transformer_class
        MODELS.build({'type': f'diffusers.{expected}', **TRANSFORMERS[name]}).save_pretrained(folder)
        source = of(f'diffusers.{expected}', folder)
        return folder, lambda **own: DiTBackbone(name, {**source, **own}).transformer
    if kind == 'codec':
        MODELS.build(AUTOENCODERS[name]).save_pretrained(folder)
        source = of(AUTOENCODERS[name]['type'], folder)
        return folder, lambda **own: LatentCodec({**source, **own}).autoencoder
    if kind == 'qwen':
        save_tiny_qwen_vl(folder, name)
        source = pretrained(str(folder), name)
        return folder, lambda **own: QwenVLPromptEncoder({**source, **own}, str(folder)).encoder
    if kind == 't5':
        import transformers

        config = getattr(transformers, f'{name}Config')(
            vocab_size=384, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
        )
        getattr(transformers, f'{name}EncoderModel')(config).save_pretrained(folder)
        source = of(f'transformers.{name}EncoderModel', folder)
        return folder, lambda **own: T5PromptEncoder({**source, **own}).encoder
    if kind == 'mae':
        make_mae_folder(folder)
        return folder, lambda: MAEColorer(pretrained=str(folder)).mae
    make_sd_folder(folder)
    taken = dict(unet=lambda own: own.unet, vae=lambda own: own.codec.autoencoder, text_encoder=lambda own: own.text)
    return folder / name, lambda: taken[name](SDColorer(pretrained=str(folder)))


def of(kind: str, folder: Path) -> dict:
    return dict(type=f'{kind}.from_pretrained', pretrained_model_name_or_path=str(folder))


def weights_file(place: Path) -> Path:
    (path,) = place.glob('*.safetensors')
    return path


def values(part: nn.Module | torch.Tensor) -> list[torch.Tensor]:
    tensors = [part] if isinstance(part, torch.Tensor) else list(part.state_dict().values())
    return [own.detach().float() for own in tensors]


@pytest.mark.parametrize('part', PARTS)
def test_a_part_is_whole_or_refused_by_key(part, tmp_path):
    place, build = make(part, tmp_path / 'part')
    path, before = weights_file(place), values(build())
    whole, content = path.read_bytes(), load_file(path)
    matrices = sorted(key for key, own in content.items() if own.ndim > 1)
    key = matrices[len(matrices) // 2]
    shape = content[key].shape
    cut = {name: own for name, own in content.items() if name != key}
    spoilt = {
        'lacks weights of 1 keys such as .*': cut,
        'has weights that .* does not have, 1 keys such as .*': {
            **content, f'{key}_more': torch.zeros(2)
        },
        '(has weights of other shapes|truncated|unreadable|size|shape).*': {
            **cut, key: torch.zeros(shape[0] + 1, *shape[1:])
        },
    }  # fmt: skip
    for message, state in spoilt.items():
        save_file(state, path, metadata={'format': 'pt'})
        with pytest.raises(ValueError, match=message) as error:
            build()
        text = str(error.value)
        assert str(place) in text and '\n' not in text
        assert key.rpartition('.')[2] in text and key.split('.')[-2] in text, text
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ValueError, match=f'{path} is truncated or damaged'):
        build()
    # Half precision only, as variant='fp16' downloads it.
    path.unlink()
    half = {name: own.half() if own.is_floating_point() else own for name, own in content.items()}
    save_file(half, path.with_name(f'{path.stem}.fp16.safetensors'), metadata={'format': 'pt'})
    for one, other in zip(values(build()), before, strict=True):
        torch.testing.assert_close(one, other, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize('part', PARTS)
def test_a_folder_says_what_it_is_and_names_its_own_files(part, tmp_path):
    place, build = make(part, tmp_path / 'part')
    config, index = place / 'config.json', place / f'{weights_file(place).name}.index.json'
    whole, shard = config.read_text(), weights_file(place).name
    settings = [None, '', '[]', '{"a":']
    if 'model_type' in json.loads(whole):
        # At random and of full size, or of another family: transformers would make it before it says what is missing.
        settings += ['{}', json.dumps({**json.loads(whole), 'model_type': 'bert'})]
    for text in settings:
        config.unlink() if text is None else config.write_text(text)
        with pytest.raises((FileNotFoundError, ValueError), match=str(place)) as error:
            build()
        assert 'config.json' in str(error.value) or 'model_type' in str(error.value)
        assert '\n' not in str(error.value)
    config.write_text(whole)
    for name in (f'../{place.name}/{shard}', '/etc/hostname', 'absent.safetensors', 5, None):
        index.write_text(json.dumps(dict(metadata={}, weight_map=name and {'a': shard, 'b': name})))
        with pytest.raises(ValueError, match=f'{index}: expected (files beside it|a weight_map)') as error:
            build()
        assert '\n' not in str(error.value)


def test_variants_are_told_apart(tmp_path):
    place, build = make('codec kl', tmp_path / 'part')
    path = weights_file(place)
    content = load_file(path)
    save_file({k: own * 2 for k, own in content.items()}, place / f'{path.stem}.twice.safetensors')
    key = next(iter(content))
    assert torch.equal(build().state_dict()[key], content[key])
    assert torch.equal(build(variant='twice').state_dict()[key], content[key] * 2)
    with pytest.raises(FileNotFoundError, match=r"no weights of variant='fp16', but of \['twice'\]"):
        build(variant='fp16')
    path.rename(place / f'{path.stem}.fp16.safetensors')
    with pytest.raises(ValueError, match=r"set variant to one of \['fp16', 'twice'\]"):
        build()
    for own in place.glob('*.safetensors'):
        own.unlink()
    with pytest.raises(FileNotFoundError, match=r'expected weights .* but got \[.config'):
        build()


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    for part in ('codec kl', 't5 T5', 'mae -'):
        place, build = make(part, tmp_path / part)
        path = weights_file(place)
        before, content = values(build()), load_file(path)
        path.unlink()
        target = place / f'{"pytorch_" if part[:5] != "codec" else "diffusion_pytorch_"}model.bin'
        torch.save(content, target)
        assert all(torch.equal(*pair) for pair in zip(values(build()), before, strict=True))
        torch.save({**content, 'more': Touch(tmp_path / 'trace')}, target)
        with pytest.raises(ValueError, match=f'{place} is unreadable') as error:
            build()
        assert '\n' not in str(error.value) and not (tmp_path / 'trace').exists()


class Touch:
    """Unpickles by writing a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_pipeline_of_half_precision_is_opened_and_written_whole(tmp_path):
    folder = make_sd_folder(tmp_path / 'sd')
    for path in list(folder.rglob('*.safetensors')):
        path.rename(path.with_name(f'{path.stem}.fp16.safetensors'))
    model = load_released(str(folder))
    model.colorer.save_pretrained(tmp_path / 'out')
    again = load_released(str(tmp_path / 'out'))
    for one, other in zip(values(again), values(model), strict=True):
        assert torch.equal(one, other)
    assert not list((tmp_path / 'out').rglob('*.fp16.*'))


def test_all_parts_are_built_at_one_place():
    """No other file of the models calls from_pretrained of a model, or builds a part past the checks."""
    root = Path(pretrained_parts.__file__).parent
    tokenizers = ('Tokenizer', 'Processor', 'LoraConfig')
    found = 0
    for path in set(root.rglob('*.py')) - {Path(pretrained_parts.__file__)}:
        for node in ast.walk(ast.parse(path.read_text())):  # the text of a model card calls nothing
            if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == 'from_pretrained':
                found += 1
                assert any(name in ast.unparse(node) for name in tokenizers), f'{path}: {ast.unparse(node)}'
    assert found > 3


def test_no_code_of_a_folder_is_run_nor_asked_about(tmp_path, monkeypatch):
    """Without a word on it, transformers asks on a terminal whether to run what ``auto_map`` names."""
    monkeypatch.setattr('builtins.input', lambda *_: 'y')
    ran = tmp_path / 'ran'
    save_file(dict(a=torch.zeros(1)), tmp_path / 'model.safetensors')
    code = f'from pathlib import Path\nPath({str(ran)!r}).touch()\n'
    for name in ('config.json', 'tokenizer_config.json'):
        classes = dict(AutoConfig='evil.Config', AutoModel='evil.Model', AutoTokenizer=['evil.Tokenizer', None])
        (tmp_path / name).write_text(json.dumps(dict(model_type='evil', auto_map=classes)))
    (tmp_path / 'evil.py').write_text(code)
    import transformers

    for read in (
        lambda: pretrained_parts.load_part(transformers.AutoModel.from_pretrained, tmp_path),
        lambda: load_tokenizer(str(tmp_path)),
    ):
        with pytest.raises(ValueError, match='unreadable: ValueError: .*contains custom code'):
            read()
    assert not ran.exists()
