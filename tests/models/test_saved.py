"""Saved models: the same bits after a round trip, whatever family; nothing of a folder from outside is run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_models import (
    MAE_COLORER,
    SD_COLORER,
    TRANSFORMERS,
    UNET_COLORER,
    batch,
    build,
    dit_colorer_config,
    genmask_config,
)
from tiny_released import make_mae_folder, make_sd_folder

import genseg_mm
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.metafiles import metafile_models
from genseg_mm.models import Gen2Seg, GenMask
from genseg_mm.models.saved import folder as saved_folder
from genseg_mm.registry import MODELS

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
HEAD = dict(
    type='mmseg.EncoderDecoder',
    backbone=dict(
        type='mmseg.MixVisionTransformer', embed_dims=4, num_stages=1, num_layers=[1], num_heads=[2], patch_sizes=[7],
        strides=[4], sr_ratios=[8], out_indices=(0,), mlp_ratio=2,
    ),
    decode_head=dict(type='genseg_mm.InstanceColoringHead', in_channels=[8], in_index=[0], channels=8),
)  # fmt: skip
GEN2SEG = dict(
    unet=UNET_COLORER, mae=MAE_COLORER, sd=SD_COLORER, mmseg=HEAD,
    **{f'dit {family}': dit_colorer_config(family) for family in TRANSFORMERS},
)  # fmt: skip


def made(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind not in GEN2SEG:
        model = MODELS.build(genmask_config(kind, processing_size=(32, 48), generation=dict(num_steps=2)))
        torch.nn.init.normal_(model.backbone.output_layer.weight, std=0.2)
        return model.eval()
    return Gen2Seg(colorer=GEN2SEG[kind], bias=0.5, prompting=dict(radius=20.0), processing_size=(32, 48)).eval()


def same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    own, theirs = one.state_dict(), other.state_dict()
    assert own.keys() == theirs.keys() and type(one) is type(other)
    for key, value in own.items():
        assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key]), key


def predicted(model: torch.nn.Module) -> np.ndarray:
    data = batch(['mask'] * 2)
    with torch.no_grad():
        samples = model.test_step(data)
    return np.stack(
        [(own.seg_logits if isinstance(model, GenMask) else own.pred_color_map).data.numpy() for own in samples]
    )


@pytest.mark.parametrize('kind', [*GEN2SEG, *TRANSFORMERS])
def test_a_round_trip_gives_the_same_bits(kind, tmp_path):
    model = made(kind)
    place = tmp_path / 'saved'
    model.save_pretrained(place)
    assert {own.name for own in place.iterdir()} <= {'config.json', 'model.safetensors', 'README.md', 'parts'}
    torch.manual_seed(1)
    opened = type(model).from_pretrained(place)
    same(model, opened)
    assert np.array_equal(predicted(model), predicted(opened))
    assert opened.processing_size == (32, 48) and not opened.training
    if isinstance(model, Gen2Seg):
        assert opened.bias == 0.5 and opened.prompting == dict(radius=20.0)
    again = tmp_path / 'again'
    opened.save_pretrained(again, name='saved')
    texts = [(own / 'config.json').read_text() for own in (place, again)]
    assert texts[0] == texts[1]


def test_a_trained_model_is_opened_by_all_doors_with_its_size_precision_and_numbers(tmp_path):
    infer = GenSegInferencer('gen2seg_unet_shapes_long_tiny', device='cpu')
    place = tmp_path / 'colorer'
    infer.model.save_pretrained(place)
    points = [[20, 10], [40, 25]]
    wanted = infer(IMAGE, points=points)['predictions'][0]
    for other in (
        GenSegInferencer(place, device='cpu'),
        GenSegInferencer.from_pretrained(str(place), device='cpu'),
        GenSegInferencer(genseg_mm.from_pretrained(place)),
    ):
        found = other(IMAGE, points=points)['predictions'][0]
        assert np.array_equal(found['color_map'], wanted['color_map'])
        assert np.array_equal(found['masks'], wanted['masks'])
    card = (place / 'README.md').read_text()
    results = metafile_models()[1]['gen2seg_unet_shapes_long_tiny']['Results']
    score = results[0]['Metrics']['mIoU']
    assert f'| Instances from points | ShapesDataset, seen shapes | mIoU | {score} |' in card
    assert card.count('\n    - type: mIoU\n') == len(results) == 4
    assert 'tools/test.py configs/gen2seg/gen2seg_unet_shapes_long_tiny.py' in card and 'license: apache-2.0' in card
    digest = json.loads((place / 'config.json').read_text())['sha256']['model.safetensors']
    assert f'`{digest}`' in card
    with torch.no_grad():
        next(infer.model.parameters()).add_(0.01)
    infer.model.save_pretrained(place, force=True, license='mit')
    card = (place / 'README.md').read_text()  # the numbers were of other weights
    assert 'Nothing has been measured of these weights yet' in card and 'mIoU' not in card and 'license: mit' in card


def test_size_and_instruction_of_the_test_pipeline_and_the_precision_are_kept(tmp_path):
    model = made('unet')
    cfg = dict(
        test_dataloader=dict(
            dataset=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(40, 24)), dict(type='X')])
        ),
        optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16'),
    )
    model.cfg = Config(cfg)
    model.save_pretrained(tmp_path / 'saved')
    config = json.loads((tmp_path / 'saved/config.json').read_text())
    assert config['test_pipeline'] == [dict(type='Resize', scale=[40, 24])] and config['evaluation_dtype'] == 'bfloat16'
    wanted, found = (GenSegInferencer(own).set_image(IMAGE) for own in (model, tmp_path / 'saved'))
    assert np.array_equal(wanted, found)


def test_weights_are_sharded_and_read_back(tmp_path):
    model = made('mae')
    model.save_pretrained(tmp_path / 'saved', max_shard_size=20_000)
    names = sorted(own.name for own in (tmp_path / 'saved').glob('*.safetensors'))
    assert len(names) > 3 and names[0].startswith('model-00001-of-')
    same(model, Gen2Seg.from_pretrained(tmp_path / 'saved'))


def test_parts_of_this_machine_travel_along(tmp_path):
    """Released folders that a model starts from, and a prompt that is embedded, are in the saved folder."""
    sources = tmp_path / 'sources'
    models = dict(
        sd=dict(type='genseg_mm.SDColorer', pretrained=str(make_sd_folder(sources / 'sd'))),
        mae=dict(type='genseg_mm.MAEColorer', pretrained=str(make_mae_folder(sources / 'mae'))),
    )
    wanted = {}
    for name, colorer in models.items():
        model = Gen2Seg(colorer=colorer, preset='as_published', processing_size=(32, 48)).eval()
        with torch.no_grad():
            next(model.colorer.parameters()).mul_(1.5)  # trained since
        model.save_pretrained(tmp_path / name)
        wanted[name] = model, predicted(model)
    encoder = dict(genmask_config('sana')['prompt_encoder'], padding='max_length')
    model = Gen2Seg(colorer=dit_colorer_config('sana', prompt_encoder=encoder, prompt='a photo')).eval()
    model.save_pretrained(tmp_path / 'dit')
    wanted['dit'] = model, predicted(model)
    shutil.rmtree(sources)
    for name, (model, maps) in wanted.items():
        opened = genseg_mm.from_pretrained(tmp_path / name)
        same(model, opened)
        assert np.array_equal(predicted(opened), maps), name
        assert str(sources) not in (tmp_path / name / 'config.json').read_text()
    assert genseg_mm.from_pretrained(tmp_path / 'sd', output='float').output == 'float'
    assert genseg_mm.from_pretrained(tmp_path / 'sd', colorer=dict(parity='training')).colorer.parity == 'training'


ATTACKS = {
    'a function of a module': (dict(type='os.system', command='touch {mark}'), r'colorer.type: expected a class reg'),
    'a function of a library': (dict(type='transformers.utils.cached_file'), 'expected a class registered'),
    'a class of no library of ours': (dict(type='subprocess.Popen', args=['touch', '{mark}']), 'expected a class'),
    'code of the hub': (
        dict(
            type='transformers.AutoModel.from_pretrained', pretrained_model_name_or_path='a/b', trust_remote_code=True
        ),
        'trust_remote_code: a saved model may not set this',
    ),
    'a pickle by init_cfg': (dict(UNET_COLORER, init_cfg=dict(type='Pretrained', checkpoint='x')), 'init_cfg: a saved'),
    'a file of this machine': (dict(type='genseg_mm.MAEColorer', pretrained='/etc'), "but got '/etc'"),
    'a file above': (dict(type='genseg_mm.MAEColorer', pretrained='parts/../../x'), 'expected paths below parts/'),
    'a missing part': (dict(type='genseg_mm.MAEColorer', pretrained='parts/mae'), 'which is not there; fetch it'),
    'a text that mmdet evaluates': (
        dict(
            type='genseg_mm.MAEColorer',
            cmc=dict(type='mmdet.CameraMotionCompensation', warp_mode='open("{mark}", "w")'),
        ),
        "colorer.cmc.type: expected .* but got 'mmdet.CameraMotionCompensation'",
    ),
    'a tracker, whose tasks could be anything': (dict(type='mmdet.StrongSORT'), "but got 'mmdet.StrongSORT'"),
    'a config that mmdet runs': (
        dict(type='mmdet.KnowledgeDistillationSingleStageDetector', teacher_config='evil.py'),
        "but got 'mmdet.KnowledgeDist",
    ),
    'pickles that a network of mmseg fetches': (dict(type='mmseg.VPD'), "but got 'mmseg.VPD'"),
    'a pickle at an address': (
        dict(HEAD, decode_head=dict(loss_decode=dict(type='mmseg.CrossEntropyLoss', class_weight='http://x/y.pkl'))),
        'class_weight: a saved model may name no file or address here',
    ),
    'a pickle beside it': (
        dict(HEAD, decode_head=dict(loss_decode=dict(type='mmseg.CrossEntropyLoss', class_weight='../y.pkl'))),
        "class_weight: a saved model may name no file or address here, but got '../y.pkl'",
    ),
    'weights of an address': (dict(HEAD, pretrained='https://x/y.pth'), "but got 'https://x/y.pth'"),
    'a folder above a part': (
        dict(
            type='diffusers.UNet2DConditionModel.from_pretrained',
            pretrained_model_name_or_path='a/b',
            subfolder='../../x',
        ),
        'colorer.subfolder: a saved model may name no file',
    ),
    'a list for a type': (dict(type=['os.system']), 'but got list'),
}


@pytest.mark.parametrize('kind', ATTACKS)
def test_what_a_folder_from_outside_may_not_name_is_refused_before_it_is_built(kind, tmp_path):
    made('unet').save_pretrained(tmp_path / 'saved')
    path, mark = tmp_path / 'saved/config.json', tmp_path / 'mark'
    attack, message = ATTACKS[kind]
    config = json.loads(path.read_text())
    config['model']['colorer'] = attack
    path.write_text(json.dumps(config).replace('{mark}', str(mark)))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        genseg_mm.from_pretrained(tmp_path / 'saved')
    assert not mark.exists()


def test_pickles_among_the_parts_are_refused(tmp_path):
    made('unet').save_pretrained(tmp_path / 'saved')
    path, part = tmp_path / 'saved/config.json', tmp_path / 'saved/parts/mae'
    part.mkdir(parents=True)
    (part / 'pytorch_model.bin').touch()
    config = json.loads(path.read_text())
    config['model']['colorer'] = dict(type='genseg_mm.MAEColorer', pretrained='parts/mae')
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'pytorch_model.bin: a saved model holds safetensors and JSON, no pickles'):
        genseg_mm.from_pretrained(tmp_path / 'saved')


def test_a_folder_that_cannot_be_replaced_is_there_again(tmp_path, monkeypatch):
    model, place = made('unet'), tmp_path / 'saved'
    model.save_pretrained(place)
    before = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == '.part':  # the new one
            raise OSError(28, 'No space left on device')
        return rename(self, target)

    monkeypatch.setattr(Path, 'rename', failing)
    with pytest.raises(OSError, match='No space left'):
        model.save_pretrained(place, name='other', force=True)
    assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == before
    assert [own.name for own in tmp_path.iterdir()] == ['saved']


def test_damaged_and_foreign_folders_are_one_line(tmp_path):
    model, place = made('unet'), tmp_path / 'saved'
    model.save_pretrained(place)
    with pytest.raises(FileExistsError, match='force=True replaces it'):
        model.save_pretrained(place)
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'mine.txt').touch()
    with pytest.raises(FileExistsError, match='holds mine.txt: choose another one'):
        model.save_pretrained(other, force=True)
    with pytest.raises(ValueError, match='holds a Gen2Seg: expected a GenMask'):
        GenMask.from_pretrained(place)
    with pytest.raises(ValueError, match='weights go with a config, but got the folder'):
        GenSegInferencer(place, weights=place / 'model.safetensors')
    built = Gen2Seg(colorer=UNET_COLORER, prompting=dict(radius=torch.tensor(20.0)))
    with pytest.raises(ValueError, match=r'model.prompting.radius: expected what JSON can hold, but got Tensor'):
        built.save_pretrained(tmp_path / 'c')
    path = place / 'model.safetensors'
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match='is not the file that was saved: expected SHA-256'):
        genseg_mm.from_pretrained(place)
    path.unlink()
    with pytest.raises(FileNotFoundError, match='expected model.safetensors, which config.json names, but it is miss'):
        genseg_mm.from_pretrained(place)
    (place / 'config.json').write_text('{"model_type": "genseg_mm", "format": 2, "model": {}}')
    with pytest.raises(ValueError, match='in format 1, but got .* format 2'):
        genseg_mm.from_pretrained(place)
    assert sorted(own.name for own in tmp_path.iterdir()) == ['other', 'saved']


def test_the_hub_gets_the_folder_and_gives_it_back(tmp_path, monkeypatch):
    hub, calls = tmp_path / 'hub', []

    class Api:
        def __init__(self, token=None):
            calls.append(('token', token))

        def create_repo(self, repo_id, private, exist_ok):
            calls.append(('create', repo_id, private, exist_ok))
            return type('Repo', (), dict(repo_id=repo_id))

        def upload_folder(self, repo_id, folder_path, commit_message, create_pr):
            calls.append(('upload', repo_id, commit_message, create_pr))
            shutil.copytree(folder_path, hub / repo_id)
            return type('Commit', (), dict(commit_url=f'https://huggingface.co/{repo_id}/commit/1'))

    def hub_file(source, name):
        path = hub / source / name
        return path if path.is_file() else None

    monkeypatch.setattr(saved_folder, 'HfApi', Api)
    monkeypatch.setattr(saved_folder, 'snapshot_download', lambda source, allow_patterns: str(hub / source))
    monkeypatch.setattr('genseg_mm.models.colorers.released_folder._hub_file', hub_file)
    model = build('sana')
    address = model.push_to_hub('me/tiny', private=True, token='secret', license='mit')
    assert address == 'https://huggingface.co/me/tiny/commit/1'
    message = f'GenMask of genseg_mm {genseg_mm.__version__}'
    assert calls == [('token', 'secret'), ('create', 'me/tiny', True, True), ('upload', 'me/tiny', message, False)]
    card = Path(hub / 'me/tiny/README.md').read_text()
    assert card.startswith('---\n') and 'license: mit\n' in card.split('---')[1] and '# tiny' in card
    same(model, genseg_mm.from_pretrained('me/tiny'))
