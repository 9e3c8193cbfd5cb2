"""Which models a page has."""

from pathlib import Path

import numpy as np
import pytest

from genseg_mm.app.examples import examples, suited
from genseg_mm.app.served_models import served_models
from genseg_mm.inferencers import GenSegInferencer

UNET = 'gen2seg_unet_shapes_long_tiny'
ROOT = Path(__file__).parents[2]


def test_all_that_are_shipped_by_default() -> None:
    models = served_models()
    assert {name for name, own in models.items() if own.takes_texts} == {
        'genmask_sana_objects_long_tiny', 'genmask_sana_shapes_long_tiny',
    }  # fmt: skip
    assert UNET in models and models[UNET]._inferencer is None  # opened when it is needed
    assert models[UNET].radius == 44 and models[UNET]._inferencer is not None


def test_models_by_config_and_folder(tmp_path: Path) -> None:
    config, weights = ROOT / f'configs/gen2seg/{UNET}.py', ROOT / 'genseg_mm/weights/gen2seg_unet_shapes.safetensors'
    saved = [(own, tmp_path / own) for own in (UNET, 'genmask_sana_shapes_long_tiny')]
    for name, folder in saved:
        GenSegInferencer(name).model.save_pretrained(folder)
    given = [f'mine={config}:{weights}', str(saved[0][1]), f'reader={saved[1][1]}']
    models = served_models(given)
    assert {name: own.takes_texts for name, own in models.items()} == {'mine': False, UNET: False, 'reader': True}
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:30, 10:30] = 200
    colored = models['mine'].color(picture, 64)
    assert colored.colors.shape == (3, 40, 60) and colored.network_map.shape == (3, 48, 64)


@pytest.mark.parametrize(
    ('texts', 'expected'),
    [
        (['nothing'], 'expected NAME=CONFIG:CHECKPOINT'),
        (['gen2seg_unet_shapes_tiny'], 'comes without trained weights'),
        (['configs/gen2seg/gen2seg_unet_shapes_tiny.py'], 'expected CONFIG:CHECKPOINT, but got no weights'),
        (['configs/none.py:none.pth'], 'none.py does not exist'),
        ([f'configs/gen2seg/{UNET}.py:none.pth'], 'none.pth does not exist'),
        (['sd=docs'], 'docs is not a released colorer'),
        ([UNET, UNET], f'two models are called {UNET}'),
    ],
)
def test_bad_models_are_one_line(texts: list[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises((ValueError, FileNotFoundError), match=expected):
        served_models(texts)


def test_examples_are_pictures_with_true_sentences() -> None:
    found = examples()
    assert len(found) >= 4
    for own in found:
        picture = own.picture()
        assert picture.size == (480, 640) and picture.bgr.std() > 20
    assert suited(['a_objects_b', 'a_shapes_b'], 'shapes') == 'a_shapes_b'
    assert suited(['mine'], 'shapes') == 'mine' and suited([], 'shapes') is None
