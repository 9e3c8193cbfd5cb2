"""Configs, weights and released folders behind the inferencer, and GenMask."""

from pathlib import Path

import numpy as np
import pytest
import torch
from known_scenes import CONV, GREEN_MASK, POINTS, PROMPTING, RED_MASK, SCENE, bgr, inferencer, region
from mmengine.config import Config
from mmengine.structures import PixelData
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import genmask_config
from tiny_released import make_mae_folder, make_sd_folder
from torch import nn
from torch.nn import functional as F

from genseg_mm.files.package_folders import SENTENCE_ENCODER, place_of_package
from genseg_mm.inference import build_model
from genseg_mm.inferencers import GenSegInferencer, inference_model, init_model
from genseg_mm.metafiles import metafile_models
from genseg_mm.models import GenMask

ROOT = Path(__file__).parents[2]

# Models


def config(**colorer: object) -> dict:
    model = dict(type='genseg_mm.Gen2Seg', colorer={**CONV, **colorer}, normalize='none')
    return dict(model=dict(model, prompting=PROMPTING), default_scope='genseg_mm')


def swapped_state() -> dict:
    """Weights that swap red and blue."""
    return {'colorer.weight': torch.eye(3).flip(0).reshape(3, 3, 1, 1)}


@pytest.mark.parametrize('form', ['checkpoint', 'state', 'ddp', 'safetensors'])
def test_config_and_weights(tmp_path, form: str):
    path = tmp_path / 'weights.pth'
    state = swapped_state()
    if form == 'checkpoint':
        torch.save(dict(state_dict=state, meta=dict(iter=3)), path)
    elif form == 'safetensors':
        path = tmp_path / 'weights.safetensors'
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        prefix = 'module.' if form == 'ddp' else ''
        torch.save({prefix + key: value for key, value in state.items()}, path)
    file = tmp_path / 'config.py'
    Config(config()).dump(file)
    for source in (file, str(file), config(), Config(config())):
        infer = GenSegInferencer(source, str(path), device='cpu')
        (prediction,) = infer(bgr(SCENE), points=POINTS)['predictions']
        assert np.abs(prediction['color_map'] - SCENE[..., ::-1]).max() < 1e-3
        assert np.array_equal(prediction['masks'], [RED_MASK, GREEN_MASK])
    model = init_model(file, path, device='cpu', cfg_options={'model.gamma': 2.0})
    assert (model.gamma, model.training) == (2.0, False)
    sample = inference_model(model, bgr(SCENE), points=POINTS)
    assert np.array_equal(sample.pred_instances.masks.numpy(), [RED_MASK, GREEN_MASK])
    several = inference_model(model, [bgr(SCENE)] * 2, points=[POINTS, None], batch_size=2)
    assert [len(one.pred_instances) for one in several] == [2, 0]


def test_the_scope_says_where_types_are_found():
    cfg = config()
    cfg = dict(model=dict(cfg['model'], type='Gen2Seg'), default_scope='mmseg')
    with pytest.raises(KeyError, match='Gen2Seg is not in the'):
        GenSegInferencer(cfg, 'random', device='cpu')
    with pytest.warns(UserWarning, match='no weights were given'):
        infer = GenSegInferencer(cfg, 'random', device='cpu', scope='genseg_mm')
    assert type(infer.model).__name__ == 'Gen2Seg' and infer.scope == 'genseg_mm'


def test_weights_that_do_not_fit(tmp_path):
    path = str(tmp_path / 'weights.pth')
    torch.save(swapped_state(), path)
    with pytest.raises(ValueError, match=r'weights\.pth do not fit the model: 1 missing in the file: colorer\.bias;'):
        GenSegInferencer(config(bias=True), path, device='cpu')
    message = r'1 of other shapes: colorer\.weight is \(3, 3, 1, 1\) in the file and \(3, 3, 3, 3\) in the model'
    with pytest.raises(ValueError, match=message):
        GenSegInferencer(config(kernel_size=3), path, device='cpu')
    torch.save({'a.b': torch.ones(1), **swapped_state()}, path)
    with pytest.raises(ValueError, match=r'1 only in the file: a\.b; were they trained with this config'):
        GenSegInferencer(config(), path, device='cpu')
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r'weights\.pth holds no weights'):
        GenSegInferencer(config(), path, device='cpu')
    torch.save(swapped_state(), path)
    data = Path(path).read_bytes()
    number = torch.ones(1).numpy().tobytes()
    assert data.count(number) == 3
    Path(path).write_bytes(data.replace(number, torch.full((1,), 2.0).numpy().tobytes()))
    with pytest.raises(ValueError, match=r'weights\.pth is corrupt: wrong checksum of '):
        GenSegInferencer(config(), path, device='cpu')
    Path(path).write_bytes(data[:-50])
    with pytest.raises(ValueError, match=r'weights\.pth is truncated'):
        GenSegInferencer(config(), path, device='cpu')
    with pytest.raises(FileNotFoundError, match=r'none\.pth does not exist'):
        GenSegInferencer(config(), str(tmp_path / 'none.pth'), device='cpu')
    (tmp_path / 'a.safetensors').write_bytes(b'12345678901234567890')
    with pytest.raises(ValueError, match=r'a\.safetensors is truncated, or not a file of safetensors'):
        GenSegInferencer(config(), str(tmp_path / 'a.safetensors'), device='cpu')


def test_wrong_models(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.py is neither the file of a config nor a model .*gen2seg_unet'):
        GenSegInferencer('none.py')
    (tmp_path / 'bad.py').write_text('model = dict(')
    with pytest.raises(ValueError, match=r'bad\.py is not a valid config'):
        GenSegInferencer(tmp_path / 'bad.py')
    (tmp_path / 'empty.py').write_text('lr = 1')
    with pytest.raises(ValueError, match=r"empty\.py has no key 'model'"):
        GenSegInferencer(tmp_path / 'empty.py')
    with pytest.raises(ValueError, match='but got NoneType; the config that a checkpoint carries is not used'):
        GenSegInferencer(None, 'a.pth')
    with pytest.raises(ValueError, match='runs Gen2Seg and GenMask, but got Linear'):
        GenSegInferencer(nn.Linear(1, 1))
    with pytest.raises(ValueError, match='weights go with a config, but got a built model'):
        GenSegInferencer(inferencer().model, 'a.pth')
    with pytest.raises(ValueError, match="device must be such as cpu or cuda:0, but got 'gpu'"):
        GenSegInferencer(config(), device='gpu')
    with pytest.raises(ValueError, match='device cuda:99 is not here'):
        GenSegInferencer(config(), device='cuda:99')


def test_name_in_a_metafile_means_trained_weights():
    _root, models = metafile_models()
    configs = list((ROOT / 'configs').glob('gen*/*.py'))
    assert sorted(models) == sorted(path.stem.lower() for path in configs)
    trained = []
    for name, one in models.items():
        assert (ROOT / one['Config']).is_file() and Path(one['Config']).stem.lower() == name
        assert 'Weights' in one, f'{name}: expected weights, or null'
        if one['Weights'] is None:
            message = f'{name} is a config without trained weights .*genseg train {Path(one["Config"]).stem} '
            with pytest.raises(ValueError, match=message.replace('+', r'\+')):
                build_model.chosen_weights(name, None, None)
            continue
        trained.append(name)
        if name.startswith('genmask_sana_objects') and place_of_package(SENTENCE_ENCODER) is None:
            with pytest.raises(ImportError, match=r'`python .*prepare_objects.py --sentence-encoder` into the cache'):
                GenSegInferencer(f'genseg_mm/{name}', device='cpu')
            continue
        infer = GenSegInferencer(f'genseg_mm/{name}', device='cpu')
        state = load_file(ROOT / one['Weights'])
        own = infer.model.state_dict()
        assert all(torch.equal(own[key], value.to(own[key])) for key, value in state.items())
    assert len(trained) == 5
    assert all('shapes_long' in one or 'objects_long' in one for one in trained)


def test_name_without_weights_is_an_error_unless_they_are_to_be_random():
    with pytest.raises(ValueError, match="without trained weights .* or weights='random'"):
        GenSegInferencer('gen2seg_mae_shapes_tiny', device='cpu')
    with pytest.warns(UserWarning, match='those of an untrained model'):
        infer = GenSegInferencer('genseg_mm/gen2seg_mae_shapes_tiny', 'random', device='cpu')
    assert type(infer.model.colorer).__name__ == 'MAEColorer'
    assert infer.cfg.model.normalize == infer.model.normalize == 'sigmoid'


def released_map(infer: GenSegInferencer, image: np.ndarray, size: tuple, gamma: float) -> np.ndarray:
    """The colour map by the formulas, from the colorer alone."""
    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    pixels = torch.tensor(np.asarray(resized)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        raw = infer.model.colorer(pixels)[0]
    unit = ((raw - raw.min()) / (raw.max() - raw.min())) ** gamma
    resized = F.interpolate(unit[None] * 255, size=image.shape[:2], mode='bilinear')[0]
    return resized.permute(1, 2, 0).numpy()


def test_released_folders(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (43, 50, 3)).astype(np.uint8)
    mae = GenSegInferencer.from_pretrained(make_mae_folder(tmp_path / 'mae'), device='cpu', output='float')
    (prediction,) = mae(Image.fromarray(image), points=[[10, 20]])['predictions']
    assert np.abs(prediction['color_map'] - released_map(mae, image, (64, 64), 0.7)).max() < 0.01
    assert prediction['masks'].shape == (1, 43, 50)
    colors = torch.tensor(prediction['color_map']).permute(2, 0, 1)
    assert np.array_equal(prediction['masks'], mae.model.prompt(colors, [[10, 20]]).masks.numpy())
    folder = make_sd_folder(tmp_path / 'sd')
    stable = GenSegInferencer.from_pretrained(str(folder), device='cpu', gamma=1.5, output='float', processing_size=0)
    (prediction,) = stable(bgr(image[:40, :48]))['predictions']
    by_hand = released_map(stable, image[:40, :48], (40, 48), 1.5)
    assert np.abs(prediction['color_map'] - by_hand).max() < 0.01


# GenMask


def genmask(pipeline: tuple = ()) -> GenSegInferencer:
    torch.manual_seed(0)
    model = GenMask(**{key: value for key, value in genmask_config('sana').items() if key != 'type'})
    model.cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=list(pipeline)))))
    return GenSegInferencer(model, show_progress=False)


def test_genmask_masks_and_scores_by_hand(monkeypatch):
    infer, asked = genmask([dict(type='TextPrompt', template='Segment {}.')]), []
    infer.model.mask_head.threshold = 0.4

    def predict(inputs, data_samples):
        for sample in data_samples:
            asked.append((sample.text, tuple(inputs.shape)))
            logits = torch.full((1, *sample.ori_shape), -0.5)
            logits[0, 2:4, 3:6] = 0.8 if 'red' in sample.text else 0.2
            logits[0, 2, 3] = 1.0
            sample.seg_logits = PixelData(data=logits)
        return data_samples

    monkeypatch.setattr(infer.model, 'predict', predict)
    images = [np.zeros((33, 44, 3), np.uint8), np.zeros((30, 50, 3), np.uint8)]
    texts = [['Red ring', 'blue ring'], 'green ring']
    first, second = infer(images, texts=texts, batch_size=3)['predictions']
    assert asked == [(f'Segment {color} ring.', (3, 3, 32, 48)) for color in ('red', 'blue', 'green')]
    assert list(first) == ['masks', 'scores', 'bboxes']
    assert np.array_equal(first['masks'], [region(33, 44, 3, 2, 6, 4)] * 2)
    # Brightness = logit / 2 + threshold: 0.8 -> 0.8, 0.2 -> 0.5, 1.0 -> 0.9; six pixels.
    assert first['scores'] == pytest.approx([(5 * 0.8 + 0.9) / 6, (5 * 0.5 + 0.9) / 6])
    assert second['scores'] == pytest.approx([(5 * 0.5 + 0.9) / 6])
    assert first['bboxes'].tolist() == [[3, 2, 6, 4]] * 2


def test_genmask_of_a_text_is_the_same_alone_and_among_others():
    infer = genmask()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    (alone,) = infer(image, texts='the red ring')['predictions']
    assert 0 < alone['masks'].sum() < 64 * 64
    others = infer([image[::-1], image], texts=['a', ['b', 'the red ring']], batch_size=3)['predictions']
    assert (others[1]['masks'][1] == alone['masks'][0]).mean() > 0.999  # rounding of batches
    assert others[1]['scores'][1] == pytest.approx(alone['scores'][0], abs=1e-4)
    everywhere = infer([image, image], texts='the red ring', out_dir='')['predictions']
    assert np.array_equal(everywhere[0]['masks'], everywhere[1]['masks'])
    (none,) = infer(image, texts=[])['predictions']
    assert none['masks'].shape == (0, 64, 64)


@pytest.mark.parametrize(
    ('prompts', 'message'),
    [
        ({}, 'GenMask needs texts'),
        (dict(points=[[1, 1]]), 'GenMask takes texts, but got points'),
        (dict(texts='a', automatic=True), 'GenMask takes texts, but got automatic, which Gen2Seg takes'),
        (dict(texts=[3]), r'the image: texts: expected a string or a list of strings, but got \[3\]'),
        (dict(texts=''), "the image: texts: expected words, but got the empty text ''"),
        (dict(texts=['a', ' \t']), 'the image: texts: expected words, but got the empty text'),
        (dict(texts=['a', None]), r"expected a string or a list of strings, but got \['a', None\]"),
    ],
)
def test_genmask_prompts(prompts: dict, message: str):
    with pytest.raises(ValueError, match=message):
        genmask()(np.zeros((32, 32, 3), np.uint8), **prompts)


def test_genmask_lists():
    image, infer = np.zeros((32, 32, 3), np.uint8), genmask()
    with pytest.raises(ValueError, match='texts: expected one list .* 2 images of the list, but got 3'):
        infer([image, image], texts=['a', 'b', 'c'])
    with pytest.raises(ValueError, match='GenMask needs texts'):
        infer([image, image], texts=['a', None])
    with pytest.raises(ValueError, match='but got GenMask, which has no colour map'):
        infer.set_image(image)
