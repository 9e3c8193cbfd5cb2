"""LatentProbe: exact where the codec is linear, good on the shipped codec, safe to save and load."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_codecs import AUTOENCODERS, grey_weight, pixel_codec

from genseg_mm.datasets import ShapesDataset
from genseg_mm.functional.latent_statistics import overall_iou
from genseg_mm.models.latent_codec import LatentCodec
from genseg_mm.models.latent_probe import LatentProbe
from genseg_mm.models.mask_head import GenerativeMaskHead


def random_masks(num: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(num, size, size, generator=torch.Generator().manual_seed(seed)) > 0.6


def encoded(codec: LatentCodec, masks: torch.Tensor) -> torch.Tensor:
    return codec.encode(GenerativeMaskHead.masks_to_images(masks.long()))


def test_a_cell_becomes_its_pixels():
    probe = LatentProbe(1, 2)
    probe.linear.load_state_dict(dict(weight=torch.tensor([[1.0], [2.0], [3.0], [4.0]]), bias=torch.zeros(4)))
    logits = probe(torch.tensor([[[[1.0, 10.0]]]]))
    assert logits[0, 0].tolist() == [[1, 2, 10, 20], [3, 4, 30, 40]]
    probe.method = 'least_squares'
    assert probe.grey(torch.tensor([[[[0.25]]]]))[0, 0].tolist() == [[0.25, 0.5], [0.75, 1.0]]
    probe.method = 'logistic'
    expected = 2 * torch.sigmoid(torch.tensor([[1.0, 2], [3, 4]])) - 1
    torch.testing.assert_close(probe.grey(torch.tensor([[[[1.0]]]]))[0, 0], expected)


def test_least_squares_is_exact_on_a_linear_codec(tmp_path):
    codec = pixel_codec(tmp_path, scale=0.5)
    masks = random_masks(20, 8)
    probe = LatentProbe(12, 2).fit(encoded(codec, masks), masks, ridge=0.0)
    held_out = random_masks(5, 8, seed=1)
    logits = probe(encoded(codec, held_out))[:, 0]
    torch.testing.assert_close(logits, held_out.float() * 2 - 1, rtol=0, atol=1e-4)
    torch.testing.assert_close(probe.linear.weight, 2 * grey_weight(), rtol=0, atol=1e-4)


@pytest.mark.parametrize('method', ['least_squares', 'logistic'])
def test_reads_the_shipped_codec_as_well_as_its_decoder(method):
    codec = LatentCodec(dict(type='genseg_mm.PatchCodec'))
    masks = {}
    for split, num in (('train', 150), ('test', 40)):
        scenes = ShapesDataset(num_scenes=num, split=split, expressions='random', pipeline=[])
        maps = [scenes[index]['gt_seg_map'] for index in range(num)]
        masks[split] = torch.stack([torch.from_numpy(own) for own in maps]) > 0
    ridge = 1e-3 if method == 'least_squares' else 1e-4
    probe = LatentProbe(20, 8).fit(encoded(codec, masks['train']), masks['train'], method, ridge)
    assert probe.method == method
    latents = encoded(codec, masks['test'])
    decoded = overall_iou(codec.decode(latents).mean(1) > 0, masks['test'])
    read = overall_iou(probe(latents)[:, 0] > 0, masks['test'])
    assert decoded > 0.97 and read > decoded - 0.01
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    assert overall_iou(probe(latents + 0.2 * noise)[:, 0] > 0, masks['test']) > read - 0.03


def test_file_keeps_weights_method_and_codec(tmp_path):
    codec = pixel_codec(tmp_path)
    masks = random_masks(10, 8)
    latents = encoded(codec, masks)
    probe = LatentProbe(12, 2).fit(latents, masks, 'logistic')
    path = tmp_path / 'folder' / 'probe.safetensors'
    probe.save(path, codec)
    again = LatentProbe(weights=str(path))
    assert (again.latent_channels, again.cell_size, again.method) == (12, 2, 'logistic')
    assert torch.equal(again(latents), probe(latents))
    again.check_codec(codec)
    with pytest.raises(ValueError, match='probe.safetensors was fitted on another codec'):
        again.check_codec(pixel_codec(tmp_path, scale=2.0))
    with pytest.raises(ValueError, match='12 channels and cells of 2 pixels, but the codec has 20 and 8'):
        again.check_codec(LatentCodec(dict(type='genseg_mm.PatchCodec')))
    LatentProbe(12, 2).check_codec(codec)  # one that is trained with the model belongs to no other codec


def test_wrong_files_and_shapes_say_what_came(tmp_path):
    with pytest.raises(FileNotFoundError, match='no weights of a probe at .*nowhere.safetensors.*fit_latent_probe'):
        LatentProbe(weights='nowhere.safetensors')
    with pytest.raises(ValueError, match='latent_channels must be a positive number.*but got None'):
        LatentProbe(cell_size=2)
    path = tmp_path / 'probe.safetensors'
    path.write_bytes(b'no safetensors')
    with pytest.raises(ValueError, match='probe.safetensors is no safetensors file'):
        LatentProbe(weights=str(path))
    save_file(dict(weight=torch.zeros(4, 12), bias=torch.zeros(4)), path)
    with pytest.raises(ValueError, match=r'expected a LatentProbe .*with metadata \[\]'):
        LatentProbe(weights=str(path))
    codec = pixel_codec(tmp_path)
    LatentProbe(12, 2).save(path, codec)
    assert set(load_file(path)) == {'weight', 'bias'}
    with pytest.raises(ValueError, match='has 12 channels and cells of 2 pixels, but the config asks for'):
        LatentProbe(latent_channels=12, cell_size=4, weights=str(path))
    meta = dict(method='logistic', codec='0')
    save_file(dict(weight=torch.zeros(5, 12), bias=torch.zeros(5)), path, meta)
    with pytest.raises(ValueError, match=r'expected weight \(d d, C\).*but got \(5, 12\)'):
        LatentProbe(weights=str(path))
    probe = LatentProbe(12, 2)
    with pytest.raises(ValueError, match=r'expects latents \(N, 12, h, w\), but got \(1, 4, 2, 2\)'):
        probe(torch.zeros(1, 4, 2, 2))
    with pytest.raises(ValueError, match=r'masks \(N, 2 h, 2 w\), but got .* \(3, 4, 6\)'):
        probe.fit(torch.zeros(3, 12, 2, 2), torch.zeros(3, 4, 6))


def test_fingerprint_knows_weights_and_scale_but_not_precision():
    torch.manual_seed(0)
    codec = LatentCodec(AUTOENCODERS['kl'])
    before = codec.fingerprint()
    codec.autoencoder.to(torch.bfloat16)
    assert codec.fingerprint() == before
    other = LatentCodec(dict(AUTOENCODERS['kl'], scaling_factor=0.75))
    other.autoencoder.load_state_dict(codec.autoencoder.state_dict())
    assert other.fingerprint() != before  # another standardisation
    codec.autoencoder.decoder.conv_out.bias.data += 1
    assert codec.fingerprint() != before
