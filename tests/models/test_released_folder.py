"""load_released and gen2seg_to_pretrained.py: recognising, loading, writing, and clear refusals."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import dit_colorer_config
from tiny_released import images, make_mae_folder, make_sd_folder

from genseg_mm.models import MAEColorer, SDColorer, load_released
from genseg_mm.registry import MODELS

TOOL = Path(__file__).parents[2] / 'tools/model_converters/gen2seg_to_pretrained.py'


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp('released')
    return dict(sd=make_sd_folder(root / 'sd'), mae=make_mae_folder(root / 'mae'))


@pytest.fixture
def copies(folders: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {kind: Path(shutil.copytree(path, tmp_path / kind)) for kind, path in folders.items()}


# Loading


def test_folders_are_recognised_and_get_what_their_weights_need(folders: dict[str, Path]):
    sd, mae = load_released(str(folders['sd'])), load_released(folders['mae'])
    assert (type(sd.colorer), sd.normalize, sd.gamma) == (SDColorer, 'batch', 1.0)
    assert (type(mae.colorer), mae.normalize, mae.gamma) == (MAEColorer, 'batch', 0.7)
    assert sd.colorer.graph() == ('image', 2)
    assert sd.train().colorer.graph() == ('image', 2)
    for model in (load_released(str(folders['sd'])), mae):
        assert not any(module.training for module in model.modules())


def test_overrides(folders: dict[str, Path]):
    model = load_released(
        str(folders['sd']), gamma=0.5, prompting=dict(radius=20.0), colorer=dict(parity='training', timestep=500)
    )
    assert (model.gamma, model.prompting, model.normalize) == (0.5, dict(radius=20.0), 'batch')
    assert model.colorer.graph() == ('zero', 77)
    assert model.colorer.timestep == 500


def test_home_folder_is_understood(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv('HOME', str(folders['mae'].parent))
    for kind, folder in folders.items():
        state, expected = (load_released(f).state_dict() for f in (f'~/{kind}', str(folder)))
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_maps_span_the_range_and_do_not_depend_on_the_batch(folders: dict[str, Path]):
    batch = images(64, 64, 2) * torch.tensor([1.0, 0.2]).view(2, 1, 1, 1)
    for folder in folders.values():
        model = load_released(str(folder), output='float')  # whole levels would jump at a rounding
        together = [sample.pred_color_map.data for sample in model.predict(batch)]
        alone = model.predict(batch[1:])[0].pred_color_map.data
        assert (together[1] - alone).abs().max() < 0.05
        for colors in together:
            assert (colors.min().item(), colors.max().item()) == (0.0, 255.0)


# Hub ids


@pytest.fixture
def hub(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The two folders in a cache of the hub's layout, and no network."""
    ids = {}
    for kind, folder in folders.items():
        repository = tmp_path / f'hub/models--someone--tiny-{kind}'
        shutil.copytree(folder, repository / 'snapshots' / ('0' * 40))
        (repository / 'refs').mkdir()
        (repository / 'refs/main').write_text('0' * 40)
        ids[kind] = f'someone/tiny-{kind}'
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    return ids


@pytest.mark.parametrize('kind', ['sd', 'mae'])
def test_hub_id(hub: dict[str, str], folders: dict[str, Path], kind: str):
    by_id, by_folder = load_released(hub[kind]), load_released(str(folders[kind]))
    with torch.no_grad():
        assert torch.equal(by_id(images(32, 32)), by_folder(images(32, 32)))


def test_only_the_files_needed_are_asked_for(folders, monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def one_file(source: str, name: str) -> str:
        asked.setdefault(source, []).append(name)
        return str(folders['sd'] / name)

    def snapshot(source: str, allow_patterns: list, ignore_patterns: list) -> str:
        asked.update(allow=allow_patterns, ignore=ignore_patterns)
        return str(folders['sd'])

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', one_file)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot)
    load_released('someone/some-sd')
    assert set(asked['someone/some-sd']) == {'model_index.json'}
    assert 'unet/*.safetensors' in asked['allow']
    assert not any(pattern.startswith(('*', 'safety')) for pattern in asked['allow'])
    assert {'*.bin', '*.fp16.*'} <= set(asked['ignore'])


def test_hub_id_that_cannot_be_fetched(hub: dict[str, str]):
    with pytest.raises(ValueError, match='nobody/nothing: no such folder here, and the hub'):
        load_released('nobody/nothing')


# What is not a released folder


def test_not_a_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match='no such folder, and not a hub id'):
        load_released(str(tmp_path / 'nothing'))
    checkpoint = tmp_path / 'iter_100.pth'
    with pytest.raises(FileNotFoundError, match='no such folder, and not a hub id'):
        load_released('work_dirs/iter_100.pth')
    with pytest.raises(FileNotFoundError, match='no such folder, and not a hub id'):
        load_released('work_dirs/model.safetensors')
    torch.save({}, checkpoint)
    with pytest.raises(ValueError, match=r'got the file .*iter_100.pth; a checkpoint .* config'):
        load_released(str(checkpoint))


def test_folders_of_something_else(tmp_path: Path):
    with pytest.raises(ValueError, match='not a released colorer: .* but got no file'):
        load_released(str(tmp_path))
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(ValueError, match=r'expected a Stable Diffusion .* but got notes\.txt'):
        load_released(str(tmp_path))
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='bert')))
    with pytest.raises(ValueError, match="but got a config.json of model_type 'bert'"):
        load_released(str(tmp_path))
    (tmp_path / 'config.json').write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(ValueError, match='but got a config.json of model_type None'):
        load_released(str(tmp_path))
    (tmp_path / 'config.json').write_text('{"model_type"')
    with pytest.raises(ValueError, match='config.json is not a whole JSON file'):
        load_released(str(tmp_path))


@pytest.mark.parametrize('part', ['unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler'])
def test_missing_subfolder(copies: dict[str, Path], part: str):
    shutil.rmtree(copies['sd'] / part)
    with pytest.raises(FileNotFoundError, match=f'not a whole .*, but got no {part}$'):
        load_released(str(copies['sd']))


@pytest.mark.parametrize(
    'name',
    [
        'unet/diffusion_pytorch_model.safetensors',
        'vae/diffusion_pytorch_model.safetensors',
        'text_encoder/model.safetensors',
        'unet/config.json',
        'text_encoder/config.json',
        'scheduler/scheduler_config.json',
        'tokenizer/tokenizer.json',
    ],
)
def test_truncated_and_missing_files_of_a_pipeline(copies: dict[str, Path], name: str):
    file = copies['sd'] / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=f'{name.split("/", maxsplit=1)[0]}.* is '):
        load_released(str(copies['sd']))
    file.unlink()
    for other in ('vocab.json', 'merges.txt'):
        (file.parent / other).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=name.split('/', maxsplit=1)[0]):
        load_released(str(copies['sd']))


def test_damaged_index_and_unknown_schedule(copies: dict[str, Path]):
    file = copies['sd'] / 'scheduler/scheduler_config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'beta_schedule': 'odd'}))
    with pytest.raises(ValueError, match='scheduler of SDColorer is unreadable: .* odd is not'):
        load_released(str(copies['sd']))
    (copies['sd'] / 'model_index.json').write_text('[1]')
    with pytest.raises(ValueError, match='model_index.json: expected a dict, but got \\['):
        load_released(str(copies['sd']))


def test_truncated_and_missing_files_of_a_mae(copies: dict[str, Path]):
    file = copies['mae'] / 'model.safetensors'
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r'mae/model\.safetensors is truncated or damaged'):
        load_released(str(copies['mae']))
    file.unlink()
    with pytest.raises(FileNotFoundError, match='no weights: expected model.safetensors'):
        load_released(str(copies['mae']))


def test_weights_that_lack_a_tensor(copies: dict[str, Path]):
    from safetensors.torch import save_file

    file = copies['sd'] / 'unet/diffusion_pytorch_model.safetensors'
    state = load_file(file)
    del state['conv_out.bias']
    save_file(state, file, {'format': 'pt'})
    with pytest.raises(ValueError, match='lacks weights of 1 keys such as conv_out.bias'):
        load_released(str(copies['sd']))


# The converter


def convert(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of the tool, run in this process."""
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    try:
        runpy.run_path(str(TOOL), run_name='__main__')
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.fixture
def trained(folders: dict[str, Path], tmp_path: Path) -> dict[str, tuple[Path, Path]]:
    """Config and checkpoint of either kind, as if trained."""
    result = {}
    for kind, name in (('sd', 'SDColorer'), ('mae', 'MAEColorer')):
        config, checkpoint = tmp_path / f'{kind}_config.py', tmp_path / f'{kind}.pth'
        config.write_text(
            "model = dict(type='genseg_mm.Gen2Seg', normalize='batch', "
            f"colorer=dict(type='genseg_mm.{name}', pretrained={str(folders[kind])!r}))"
        )
        model = load_released(str(folders[kind]))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.125)
        torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
        result[kind] = config, checkpoint
    return result


def test_converted_checkpoint_loads_bit_by_bit(
    trained: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for kind, (config, checkpoint) in trained.items():
        out = tmp_path / 'new' / kind
        assert convert(monkeypatch, config, checkpoint, out) == 0
        state = load_released(str(out)).state_dict()
        expected = torch.load(checkpoint, weights_only=True)['state_dict']
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
        assert [path.name for path in out.parent.iterdir() if path.name.startswith('.')] == []
    printed = capsys.readouterr().out
    given = "stretch='image', output='float', colorer={'parity': None}"
    assert f"load_released('{tmp_path}/new/sd', {given}) loads it" in printed
    assert f"load_released('{tmp_path}/new/mae', gamma=1.0, output='float') loads it" in printed
    options = ['--cfg-options', 'model.automatic.min_area=5']
    assert convert(monkeypatch, *trained['mae'], tmp_path / 'other', *options) == 0
    assert "output='float', automatic={'min_area': 5}) loads it" in capsys.readouterr().out
    options = ['--cfg-options', 'model.preset=as_published', 'model.processing_size=0']
    assert convert(monkeypatch, *trained['mae'], tmp_path / 'preset', *options) == 0
    assert f"load_released('{tmp_path}/preset', processing_size=0) loads it" in capsys.readouterr().out


def test_converter_overwrites_only_a_released_folder_and_only_with_force(
    trained: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    config, checkpoint = trained['mae']
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'thesis.tex').write_text('precious')
    assert convert(monkeypatch, config, checkpoint, out) == 2
    assert convert(monkeypatch, config, checkpoint, out, '--force') == 2
    assert (out / 'thesis.tex').read_text() == 'precious'
    errors = capsys.readouterr().err
    assert 'is not empty; choose another folder' in errors
    assert 'is not a released colorer' in errors
    (out / 'thesis.tex').unlink()
    assert convert(monkeypatch, config, checkpoint, out) == 0
    first = (out / 'model.safetensors').read_bytes()
    (out / 'model.safetensors').write_bytes(b'old')
    assert convert(monkeypatch, config, checkpoint, out) == 2
    assert (out / 'model.safetensors').read_bytes() == b'old'
    assert convert(monkeypatch, config, checkpoint, out, '--force') == 0
    assert (out / 'model.safetensors').read_bytes() == first


def test_converter_refuses_wrong_input(
    trained: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def error_of(*arguments: object) -> str:
        assert convert(monkeypatch, *arguments, tmp_path / 'out') == 2
        assert not (tmp_path / 'out').exists()
        return capsys.readouterr().err

    (mae, mae_checkpoint), (_, sd_checkpoint) = trained['mae'], trained['sd']
    assert 'config nothing.py does not exist' in error_of('nothing.py', mae_checkpoint)
    assert 'is not a config' in error_of(mae_checkpoint, mae)
    assert 'do not fit the model' in error_of(mae, sd_checkpoint)
    assert 'does not exist' in error_of(mae, tmp_path / 'nothing.pth')
    mae_checkpoint.write_bytes(mae_checkpoint.read_bytes()[:1000])
    assert 'truncated' in error_of(mae, mae_checkpoint)
    other = tmp_path / 'other.py'
    other.write_text("model = dict(type='genseg_mm.PatchCodec')")
    assert 'must build a Gen2Seg, but got PatchCodec' in error_of(other, sd_checkpoint)
    colorer = dict(type='torch.nn.Identity')
    other.write_text(f"model = dict(type='genseg_mm.Gen2Seg', colorer={colorer})")
    assert 'only SDColorer, MAEColorer and DiTColorer have a released format' in error_of(other, sd_checkpoint)


def test_a_dit_colorer_is_converted_to_what_its_config_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    source, out = tmp_path / 'release', tmp_path / 'out'
    fresh = dit_colorer_config('sana')
    MODELS.build(fresh).save_pretrained(source)
    transformer = dict(
        type='diffusers.SanaTransformer2DModel.from_pretrained',
        pretrained_model_name_or_path=str(source),
        subfolder='transformer',
    )
    prompt = dict(prompt_embedding=str(source / 'prompt.safetensors'))
    for lora in (None, dict(r=2)):
        colorer = dit_colorer_config('sana', transformer, **prompt)
        colorer['backbone'] = dict(colorer['backbone'], lora=lora)
        config, checkpoint = tmp_path / 'config.py', tmp_path / 'trained.pth'
        config.write_text(f"model = dict(type='genseg_mm.Gen2Seg', colorer={colorer})")
        model = MODELS.build(dict(type='genseg_mm.Gen2Seg', colorer=colorer))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.125)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        torch.save(dict(state_dict=state, meta={}), checkpoint)
        assert convert(monkeypatch, config, checkpoint, out, *(['--force'] if lora else [])) == 0
        printed = capsys.readouterr().out
        assert f'model.colorer.prompt_embedding={out}/prompt.safetensors' in printed
        colorer['prompt_embedding'] = str(out / 'prompt.safetensors')
        if lora is None:
            assert f'transformer.pretrained_model_name_or_path={out} ' in printed
            transformer_of_ours = dict(transformer, pretrained_model_name_or_path=str(out))
            colorer['backbone'] = dict(colorer['backbone'], transformer=transformer_of_ours)
        again = MODELS.build(dict(type='genseg_mm.Gen2Seg', colorer=colorer))
        if lora is not None:
            assert f"model.colorer.backbone.load_lora('{out}/lora')" in printed
            again.colorer.backbone.load_lora(out / 'lora')
        assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
