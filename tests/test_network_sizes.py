"""Sizes of networks by hand, and the transform that asks the model for them."""

from types import SimpleNamespace

import pytest
from mmengine.config import ConfigDict
from torch import nn

from genseg_mm.dataset_configs import fill_network_resize
from genseg_mm.datasets.transforms import NetworkResize
from genseg_mm.network_sizes import network_resize_of, network_sizes


def test_multiples_round_halves_up_or_are_padded():
    for shape, multiples, rounded, padded in (
        ((8, 24), (16, 16), (16, 32), (16, 32)),
        ((7, 23), (16, 4), (16, 24), (16, 24)),
        ((10, 10), (4, 20), (12, 20), (12, 20)),
        ((33, 35), (16, 4), (32, 36), (48, 36)),
    ):
        assert network_sizes(*shape, multiples=multiples) == (rounded, rounded)
        assert network_sizes(*shape, multiples=multiples, pad=True) == (shape, padded)


def test_the_longer_side_and_one_size_for_all():
    assert network_sizes(427, 636, longer_side=768, multiples=(8, 8), pad=True) == ((515, 768), (520, 768))
    assert network_sizes(1, 900, longer_side=64) == ((1, 64), (1, 64))  # no side vanishes
    assert network_sizes(5, 9, longer_side=0) == network_sizes(5, 9) == ((5, 9), (5, 9))
    assert network_sizes(5, 9, size=[32, 48]) == ((32, 48), (32, 48))
    with pytest.raises(ValueError, match=r'must be positive, but got \(0, 4\)'):
        network_sizes(0, 4)


class Sized(nn.Module):
    def network_resize(self) -> dict:
        return dict(size=(32, 48))


@pytest.mark.parametrize('kind', ['genseg_mm.NetworkResize', 'NetworkResize', NetworkResize], ids=str)
def test_the_model_fills_the_transform_however_a_config_names_it(kind: str | type):
    """A config in pure Python names the class itself."""
    given = dict(type=kind, longer_side=8)
    loader = ConfigDict(dataset=dict(datasets=[dict(pipeline=[dict(type=kind), given, dict(type='X')])]))
    (part,) = fill_network_resize(loader, Sized()).dataset.datasets
    assert part.pipeline == [dict(type=kind, size=(32, 48)), given, dict(type='X')]
    (part,) = fill_network_resize(loader, None).dataset.datasets
    assert part.pipeline == [given, dict(type='X')]


def test_models_of_others_say_their_size_by_backbone_or_preprocessor():
    model = nn.Module()
    assert network_resize_of(model) is None
    model.data_preprocessor = nn.Module()
    model.data_preprocessor.size_divisor = 32
    assert network_resize_of(model) == dict(multiples=(32, 32))
    model.backbone = nn.Module()
    model.backbone.img_size = 224
    assert network_resize_of(model) == dict(size=(224, 224))
    model.backbone.img_size = [96, 128]
    assert network_resize_of(model) == dict(size=(96, 128))


def test_the_former_name_of_the_method_is_told():
    colorer = SimpleNamespace(preferred_size=lambda height, width: (height, width))
    with pytest.raises(ValueError, match=r'preferred_size.* is not asked any more; expected .*network_resize'):
        network_resize_of(colorer)
