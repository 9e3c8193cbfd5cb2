"""The classifier that says whether generated objects are known again."""

import pytest
import torch
from safetensors.torch import save_file

from genseg_mm.models.picture_classifier import PictureClassifier, top_shares

COLORS = dict(blue=(-1, -1, 1), green=(-1, 1, -1), red=(1, -1, -1))


def colored(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(12) % 3
    pictures = torch.tensor(list(COLORS.values())).float()[labels][:, :, None, None].expand(-1, -1, 64, 64)
    return pictures + 0.3 * torch.randn(pictures.shape, generator=generator), labels


def test_it_learns_names_and_is_frozen_and_comes_back_from_its_file(tmp_path):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    classifier = PictureClassifier(list(COLORS), widths=(8, 8, 8, 8))
    pictures, labels = colored(generator)
    with pytest.raises(RuntimeError, match='asked before it is trained'):
        classifier.ranks(pictures, labels)
    classifier.fit((colored(generator) for _ in range(80)), 80)
    assert classifier.ranks(pictures, labels).tolist() == [0] * 12
    # Another name's picture: the right one comes second or third, never first.
    assert classifier.ranks(pictures, (labels + 1) % 3).min() >= 1
    assert not classifier.training and not any(own.requires_grad for own in classifier.parameters())

    classifier.save(tmp_path / 'names.safetensors')
    again = PictureClassifier.load(tmp_path / 'names.safetensors')
    assert again.names == tuple(COLORS) and torch.equal(again(pictures), classifier(pictures))
    larger = torch.nn.functional.interpolate(pictures, scale_factor=2)  # of another size: brought to its own
    assert again.ranks(larger, labels).tolist() == [0] * 12


def test_shares_of_first_and_of_five():
    assert top_shares(torch.tensor([0, 4, 5, 0])) == {'top 1': 50.0, 'top 5': 75.0}


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match='two or more different names'):
        PictureClassifier(['cat', 'cat'])
    save_file({'x': torch.zeros(1)}, tmp_path / 'other.safetensors')
    with pytest.raises(ValueError, match=r'other.safetensors: expected a classifier of pictures .* got another file'):
        PictureClassifier.load(tmp_path / 'other.safetensors')
    (tmp_path / 'text.safetensors').write_text('no weights')
    with pytest.raises(ValueError, match=r'text.safetensors: expected a classifier of pictures, but got'):
        PictureClassifier.load(tmp_path / 'text.safetensors')
