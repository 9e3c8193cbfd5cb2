"""Pictures from texts and refined texts through the inferencer and the demo."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scenes import inferencer as colour_inferencer
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image
from tiny_models import build, genmask_config

from genseg_mm import launch
from genseg_mm.datasets import CocoCaptionsDataset
from genseg_mm.inference import generation
from genseg_mm.inference.generation import caption_dataset, trained_size
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models.base import seeded_generator
from genseg_mm.models.genmask import pictures_to_bytes

TEXTS = ['A red circle', 'Two blue squares']
CAPTION_PIPELINE = [
    dict(type='genseg_mm.LoadImage'),
    dict(type='mmcv.CenterCrop', crop_size=48),
    dict(type='genseg_mm.TextPrompt', template='A picture: {}'),
]


@MODELS.register_module()
class SizeWriter:
    """Describes a text by itself and the place of the brightest pixel of its picture."""

    def __init__(self, word: str = 'at') -> None:
        self.word, self.calls = word, []

    def __call__(self, images: list[np.ndarray], texts: list[str]) -> list[str]:
        self.calls.append(len(texts))
        places = [np.unravel_index(image.sum(2).argmax(), image.shape[:2]) for image in images]
        return [f'{text} {self.word} {x},{y}' for text, (y, x) in zip(texts, places, strict=True)]


def config(**changes) -> Config:
    captions = dict(type='genseg_mm.CocoCaptionsDataset', pipeline=CAPTION_PIPELINE)
    datasets = [dict(type='genseg_mm.RefCOCODataset', pipeline=[]), captions]
    return Config(
        dict(
            model=genmask_config('sana'),
            train_dataloader=dict(dataset=dict(type='genseg_mm.MixedDataset', datasets=datasets)),
            **changes,
        )
    )


def inferencer(**changes) -> GenSegInferencer:
    model = build('sana', generation=changes.pop('generation', None))
    model.cfg = config(**changes)
    return GenSegInferencer(model, show_progress=False)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)


# Pictures


def test_pictures_are_those_of_the_model_by_text_seed_and_number(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path.parent))
    infer = inferencer()
    result = infer(
        texts=TEXTS,
        task='generate',
        num_images=2,
        num_steps=2,
        seed=3,
        batch_size=3,
        out_dir=f'~/{tmp_path.name}',
        return_vis=True,
    )
    predictions = result['predictions']
    assert [(one['text'], one['seed'], one['number']) for one in predictions] == [
        (text, 3, number) for text in TEXTS for number in (0, 1)
    ]
    for index, one in enumerate(predictions):
        expected = infer.model.generate(
            [f'A picture: {one["text"].lower()}'],  # the prompt of the caption data
            (48, 48),  # and its size
            num_steps=2,
            generators=[seeded_generator(3, one['number'])],
        )
        expected = pictures_to_bytes(expected)[0].permute(1, 2, 0).numpy()
        assert np.abs(one['image'].astype(int) - expected).max() <= 1
        assert one['image'].dtype == np.uint8
        saved = np.asarray(Image.open(tmp_path / f'preds/{index:08d}.png'))
        assert np.array_equal(saved, one['image'])
        content = json.loads((tmp_path / f'preds/{index:08d}.json').read_text())
        assert content == dict(
            text=one['text'], seed=3, number=one['number'], settings=dict(num_steps=2, image_size=[48, 48])
        )
        drawn = np.asarray(Image.open(tmp_path / f'vis/{index:08d}.png'))
        assert np.array_equal(drawn, result['visualization'][index])
    again = infer(texts=TEXTS[1], task='generate', num_steps=2, seed=3)['predictions']
    assert np.abs(again[0]['image'].astype(int) - predictions[2]['image']).max() <= 1
    other = infer(texts=TEXTS[1], task='generate', num_steps=2, seed=4)['predictions']
    assert np.abs(other[0]['image'].astype(int) - predictions[2]['image']).mean() > 5


def test_settings_of_the_call_go_before_those_of_the_model(monkeypatch):
    infer, calls = inferencer(generation=dict(num_steps=5, guidance_scale=2.0)), []

    def generate(texts, generators, **settings):
        calls.append(dict(texts=texts, **settings))
        return torch.zeros(len(texts), 3, *settings['image_size'])

    monkeypatch.setattr(infer.model, 'generate', generate)
    result = infer.generate(TEXTS[0], num_steps=3, negative_text='Blur', return_vis=False)
    assert result['visualization'] is None
    assert result['predictions'][0]['image'].tolist() == np.full((48, 48, 3), 128).tolist()
    infer.generate(TEXTS, image_size=(16, 32), num_steps=None)
    assert calls == [
        dict(
            texts=['A picture: a red circle'],
            num_steps=3,
            guidance_scale=2.0,
            negative_text='A picture: blur',
            image_size=(48, 48),
        ),
        dict(
            texts=['A picture: a red circle', 'A picture: two blue squares'],
            num_steps=5,
            guidance_scale=2.0,
            image_size=(16, 32),
        ),
    ]
    shown, bars = [], []
    monkeypatch.setattr(generation, 'check_display', lambda: None)
    monkeypatch.setattr(generation, 'show_picture', lambda picture, *how: shown.append(how))
    progress = generation.Progress
    monkeypatch.setattr(generation, 'Progress', lambda disable: bars.append(not disable) or progress(disable=True))
    infer.show_progress = True
    infer.generate(TEXTS, batch_size=1, show=True, wait_time=0.5)
    infer.generate(TEXTS, batch_size=1, progress_bar=False)
    infer.generate(TEXTS)
    assert shown == [(text, 0.5) for text in TEXTS]
    assert bars == [True, False, False]


def test_size_and_prompt_come_from_the_caption_data():
    cfg = config()
    assert caption_dataset(cfg)['type'] == 'genseg_mm.CocoCaptionsDataset'
    assert trained_size(cfg) == (48, 48)
    for transform, size in (
        (dict(type='mmseg.RandomCrop', crop_size=(64, 64)), (64, 64)),
        (dict(type='mmseg.RandomCrop', crop_size=(64, 32)), None),  # mmcv's would be (32, 64)
        (dict(type='mmcv.Resize', scale=(96, 64)), (64, 96)),
        (dict(type='mmcv.Resize', scale=(96, 64), keep_ratio=True), None),
    ):
        cfg.train_dataloader.dataset.datasets[1].pipeline = [transform]
        assert trained_size(cfg) == size
    shapes = dict(type='genseg_mm.ShapesDataset', task='text_to_image', image_size=(48, 64))
    wrapped = dict(type='RepeatDataset', dataset=shapes)
    assert trained_size(Config(dict(train_dataloader=dict(dataset=wrapped)))) == (48, 64)
    own = type('OwnCaptions', (CocoCaptionsDataset,), {})  # a user's, of which nothing else is known
    assert caption_dataset(Config(dict(train_dataloader=dict(dataset=dict(type=own)))))['type'] is own
    assert caption_dataset(Config()) == {} and trained_size(Config()) is None


def test_bad_requests_say_what_came():
    infer = inferencer()
    for texts in ('', ' \n', ['a', '']):
        with pytest.raises(ValueError, match='generation: texts: expected words, but got the empty'):
            infer(texts=texts, task='generate')
    for texts in (None, [], [3], 3):
        with pytest.raises(ValueError, match='generation needs texts, a list of at least one string, but got'):
            infer(texts=texts, task='generate')
    for wrong, message in (
        (dict(num_images=0), 'num_images must be a whole number of at least 1, but got 0'),
        (dict(batch_size=1.5), 'batch_size must be a whole number of at least 1, but got 1.5'),
        (dict(seed=-1), 'seed must be a whole number of at least 0, but got -1'),
        (dict(steps=3), r"generate knows .*, but got \['steps'\]"),
        (dict(num_steps=0), 'num_steps must be a whole number of at least 1, but got 0'),
        (dict(guidance_scale='x'), "guidance_scale must be a number of at least 0, but got 'x'"),
        (dict(negative_text=5), 'negative_text must be a text, but got 5'),
        (dict(image_size=16 * 10**5), 'expected at most 100000000 pixels .* but got 1600000x1600000'),
        (dict(image_size=0), r'multiples of 16 and 16 pixels for this model, but got \(0, 0\)'),
        (dict(image_size=40), r'multiples of 16 and 16 pixels for this model, but got \(40, 40\)'),
        (dict(inputs=picture(0)), "task='generate' takes texts, but got inputs, prompts or options"),
        (dict(points=[[1, 2]]), "task='generate' takes texts, but got inputs, prompts or options"),
        (dict(task='paint'), "task must be 'segment' or 'generate', but got 'paint'"),
    ):
        with pytest.raises(ValueError, match=message):
            infer(**{**dict(texts=TEXTS, task='generate'), **wrong})
    with pytest.raises(ValueError, match="task='generate' needs GenMask, but got Gen2Seg"):
        colour_inferencer()(texts=TEXTS, task='generate')
    infer = GenSegInferencer(build('sana'))
    with pytest.raises(ValueError, match=r'states no size of pictures: expected image_size='):
        infer(texts=TEXTS, task='generate')


# Two-stage reasoning


def test_refined_texts_are_the_prompts_and_are_given_back(tmp_path):
    infer = inferencer(description_writer=dict(type='SizeWriter', word='near'))
    images = [picture(0), picture(1)]
    for image, (x, y) in zip(images, ((5, 3), (20, 30)), strict=True):
        image[y, x] = 255
        image[image.sum(2) == 765] = 254
        image[y, x] = 255
    texts = [['what to stop at?', 'the way'], ['it']]
    result = infer(images, texts=texts, describe=True, out_dir=tmp_path, batch_size=2)
    described = [['what to stop at? near 5,3', 'the way near 5,3'], ['it near 20,30']]
    assert [one['descriptions'] for one in result['predictions']] == described
    assert infer.description_writer.calls == [2, 1]  # built once, called once for each image
    plain = infer(images, texts=described)
    for one, other in zip(result['predictions'], plain['predictions'], strict=True):
        assert np.array_equal(one['masks'], other['masks'])
        assert 'descriptions' not in other
    saved = json.loads((tmp_path / 'preds/00000000.json').read_text())
    assert saved['descriptions'] == described[0]
    assert saved['prompts'] == dict(texts=texts[0])
    (sample,) = infer(images[1:], texts=texts[1:], describe=True, return_datasamples=True)['predictions']
    assert sample.descriptions == described[1]


def test_description_writer_may_be_given_and_must_be_somewhere():
    infer = inferencer()
    with pytest.raises(ValueError, match="needs a config with the key 'description_writer'"):
        infer(picture(0), texts='it', describe=True)
    infer.description_writer = lambda images, texts: ['the dog' for _ in texts]
    (one,) = infer(picture(0), texts='it', describe=True)['predictions']
    assert one['descriptions'] == ['the dog']
    (other,) = infer(picture(0), texts='the dog')['predictions']
    assert np.array_equal(one['masks'], other['masks'])
    with pytest.raises(ValueError, match='describe is for the texts of GenMask, but got Gen2Seg'):
        colour_inferencer()(picture(0), describe=True)


# The demo

_spec = importlib.util.spec_from_file_location('generation_demo', Path(__file__).parents[2] / 'tools' / 'image_demo.py')
image_demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(image_demo)


@pytest.fixture
def folder(tmp_path) -> Path:
    config(description_writer=dict(type='SizeWriter')).dump(tmp_path / 'config.py')
    torch.save(build('sana').state_dict(), tmp_path / 'weights.pth')
    Image.fromarray(picture(0)).save(tmp_path / 'a.png')
    return tmp_path


def run(monkeypatch, folder: Path, *options: str) -> None:
    own = ['--weights', str(folder / 'weights.pth'), '--device', 'cpu', '--out-dir', str(folder / 'out')]
    monkeypatch.setattr(sys, 'argv', ['image_demo.py', *options, *own])
    launch.run_tool(image_demo.main)


def test_demo_makes_pictures(monkeypatch, capsys, folder):
    options = ['--num-steps', '2', '--guidance-scale', '1.5', '--seed', '7', '--num-images', '2']
    options += ['--image-size', '32', '64']
    run(monkeypatch, folder, str(folder / 'config.py'), '--task', 'generate', '--texts', *TEXTS, *options)
    out = folder / 'out'
    assert f'pictures: 4, written to: {out}/vis, {out}/preds' in capsys.readouterr().out
    content = json.loads((out / 'preds/00000003.json').read_text())
    assert content == dict(
        text=TEXTS[1], seed=7, number=1, settings=dict(num_steps=2, guidance_scale=1.5, image_size=[32, 64])
    )
    expected = build('sana').generate(
        ['A picture: two blue squares'], (32, 64), 2, 1.5, generators=[seeded_generator(7, 1)]
    )
    saved = np.asarray(Image.open(out / 'preds/00000003.png')).astype(int)
    assert np.abs(saved - pictures_to_bytes(expected)[0].permute(1, 2, 0).numpy()).max() <= 1


def test_demo_describes(monkeypatch, capsys, folder):
    run(monkeypatch, folder, str(folder / 'a.png'), str(folder / 'config.py'), '--texts', 'it', '--describe')
    assert 'images: 1, masks: 1' in capsys.readouterr().out
    (description,) = json.loads((folder / 'out/preds/a.json').read_text())['descriptions']
    y, x = np.unravel_index(picture(0).sum(2).argmax(), (32, 32))
    assert description == f'it at {x},{y}'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['a.png', 'config.py', '--task', 'generate', '--texts', 'x'], 'expected no inputs, but got'),
        (['config.py', '--texts', 'x'], 'expected inputs and a model, but got one of them'),
        (['a.png', 'config.py', '--texts', 'x', '--num-steps', '3'], '--num-steps is for --task generate'),
        (['a.png', 'config.py', '--texts', 'x', '--seed', '0'], '--seed is for --task generate'),
        (['a.png', 'gen2seg_unet_shapes_lng_tiny', '--automatic'], 'did you mean gen2seg_unet_shapes_long_tiny'),
        (['config.py', '--task', 'generate'], 'generation needs texts, a list of at least one string, but got None'),
        (['config.py', '--task', 'generate', '--texts', 'x', '--points', '1,2'], '--points is for --task segment'),
    ],
)  # fmt: skip
def test_demo_mistakes(monkeypatch, capsys, folder, options, message):
    options = [str(folder / one) if one in ('a.png', 'config.py') else one for one in options]
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, folder, *options)
    assert left.value.code == 2
    assert message in capsys.readouterr().err
