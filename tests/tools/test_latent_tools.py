"""tools/fit_latent_probe.py and tools/analysis_tools/latent_premise.py, run like a user would."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genseg_mm.benchmarking.suite import read_dataset_config
from genseg_mm.launch.dataset_parts import read_codec, read_mask_pictures
from genseg_mm.models.latent_probe import LatentProbe

TOOLS = Path(__file__).parents[2] / 'tools'
SHIPPED = TOOLS.parent / 'configs/_base_/models/genmask_sana_tiny.py'
RANDOM_KL = """
codec = dict(
    type='diffusers.AutoencoderKL', block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4,
    down_block_types=('DownEncoderBlock2D',) * 3, up_block_types=('UpDecoderBlock2D',) * 3)
"""


def run(monkeypatch, capsys, tool: str, *args: object) -> str:
    """Runs the main function of a tool; what it printed."""
    spec = importlib.util.spec_from_file_location(Path(tool).stem, TOOLS / tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
    module.main()
    return capsys.readouterr().out


@pytest.fixture
def random_kl(tmp_path):
    path = tmp_path / 'kl.py'
    path.write_text(RANDOM_KL)
    return path


def iou_of(printed: str, name: str) -> float:
    line = next(line for line in printed.splitlines() if line.startswith(name))
    return float(line.split('oIoU')[1].split()[0])


def test_probe_of_the_shipped_codec(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'probe.safetensors'
    args = [SHIPPED, '--out', out, '--num-train', 150, '--num-test', 40, '--repeat', 1]
    printed = run(monkeypatch, capsys, 'fit_latent_probe.py', *args)
    assert iou_of(printed, 'VAE decoder') > 0.97
    assert abs(iou_of(printed, 'probe') - iou_of(printed, 'VAE decoder')) < 0.01
    assert 'val: 40 masks at 64x64' in printed and 'ms per mask of CPU' in printed
    probe = LatentProbe(weights=str(out))
    probe.check_codec(read_codec(str(SHIPPED)))
    assert (probe.latent_channels, probe.cell_size, probe.method) == (20, 8, 'least_squares')


def test_premise_of_the_shipped_codec(tmp_path, monkeypatch, capsys):
    args = [SHIPPED, '--out-dir', tmp_path, '--num-train', 60, '--num-test', 30]
    args += ['--max-cells', 2000, '--sigmas', 0, 0.4, 0.95]
    printed = run(monkeypatch, capsys, 'analysis_tools/latent_premise.py', *args)
    report = json.loads((tmp_path / 'premise.json').read_text())
    iou = report['separability']
    assert iou['mask latents, logistic regression'] > 0.9
    assert iou['image latents, logistic regression, all objects'] < 0.6
    rows = {row['sigma']: row for row in report['robustness']}
    assert rows[0.0]['mask_iou'] == iou['mask latents, autoencoder round trip'] > 0.97
    assert rows[0.4]['mask_iou'] > 0.85 > 0.3 > rows[0.95]['mask_iou']
    assert rows[0.0]['image_psnr'] > 25 and rows[0.4]['image_psnr'] < 17
    sharp = {kind: own['first_component'] for kind, own in report['distribution'].items()}
    assert sharp['mask']['bimodality'] > 0.8 and sharp['mask']['entropy'] < 0 < sharp['image']['entropy']
    for own in report['distribution'].values():
        assert abs(sum(own['explained']) - 1) < 1e-6
    assert (tmp_path / 'premise.md').read_text() in printed
    assert f'| 0.4 | {rows[0.4]["mask_iou"]:.3f} |' in printed
    picture = np.asarray(Image.open(tmp_path / 'premise.png'))
    assert picture.shape[0] > 500 and picture[..., :3].std() > 20


def test_premise_of_a_random_autoencoder(tmp_path, random_kl, monkeypatch, capsys):
    args = [random_kl, '--out-dir', tmp_path, '--num-train', 12, '--num-test', 6]
    args += ['--max-cells', 500, '--sigmas', 0, 0.5]
    run(monkeypatch, capsys, 'analysis_tools/latent_premise.py', *args)
    report = json.loads((tmp_path / 'premise.json').read_text())
    assert report['codec'] == 'AutoencoderKL (kl.py)'
    assert report['data'][1].endswith('6 masks at 64x64')
    # An untrained decoder gives nothing back, but masks still differ from their ground in its latents.
    iou = report['separability']
    assert iou['mask latents, logistic regression'] > iou['every pixel, that mask'] + 0.2


def test_pictures_and_masks_belong_together():
    size = (64, 96)
    data = read_mask_pictures(None, 'test', 5, size)
    assert data.images.shape == (5, 3, *size) and data.masks.shape == data.objects.shape == (5, *size)
    assert (data.masks & ~data.objects).sum() == 0 < data.masks.sum() < data.objects.sum()
    again = read_mask_pictures(None, 'test', 5, size)
    assert torch.equal(data.images, again.images)
    from genseg_mm.datasets import ShapesDataset

    scene = ShapesDataset(num_scenes=5, image_size=size, split='test', expressions='random').scene(0)
    expected = torch.from_numpy(scene.image[..., ::-1].copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(data.images[0], expected)
    assert torch.equal(data.objects[0], torch.from_numpy(scene.ids > 0))


def test_parts_without_masks_are_passed_over(tmp_path):
    part = "dict(type='genseg_mm.ShapesDataset', num_scenes=3, split='train', task={!r})"
    config = tmp_path / 'data.py'
    parts = ', '.join(part.format(task) for task in ('text_to_image', 'instance'))
    config.write_text(f"train_dataloader = dict(dataset=dict(type='genseg_mm.MixedDataset', datasets=[{parts}]))")
    data = read_mask_pictures(read_dataset_config(str(config)), 'train', 2, (32, 32))
    assert data.source == 'train 2/2: 2 masks at 32x32'
    assert 0 < data.masks.sum() < data.objects.sum()  # one instance of all
    config.write_text(f'train_dataloader = dict(dataset={part.format("text_to_image")})')
    with pytest.raises(ValueError, match="dataset with masks in split 'train', but got none in train"):
        read_mask_pictures(read_dataset_config(str(config)), 'train', 2, (32, 32))


def test_wrong_configs_say_what_came(tmp_path, random_kl):
    with pytest.raises(FileNotFoundError, match='nowhere.py does not exist'):
        read_codec('nowhere.py')
    config = tmp_path / 'empty.py'
    config.write_text('model = dict(type="genseg_mm.Gen2Seg")')
    with pytest.raises(ValueError, match=r"empty.py has no codec.*but got \['model'\]"):
        read_codec(str(config))
    first, second = (read_codec(str(random_kl), seed=seed).fingerprint() for seed in (0, 0))
    assert first == second != read_codec(str(random_kl), seed=1).fingerprint()
    bare = read_codec(str(random_kl), {'codec.latent_channels': 6})
    assert (bare.latent_channels, bare.downsample, bare.max_batch) == (6, 4, 16)
