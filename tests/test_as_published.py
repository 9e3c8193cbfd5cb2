"""The released settings against the published pipelines, written anew from their description, step by slow step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_released import make_mae_folder, make_sd_folder
from torch.nn import functional as F

from genseg_mm.benchmarking.jobs import effective_config, fill_network_size, read_model_config
from genseg_mm.benchmarking.suite import parse_model
from genseg_mm.datasets.transforms import NetworkResize
from genseg_mm.functional.point_prompting import masks_from_points
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.launch.command_line import user_message
from genseg_mm.models import Gen2Seg, MAEColorer, load_released
from genseg_mm.network_sizes import network_resize_of
from genseg_mm.registry import TRANSFORMS

SIZES = ((48, 64), (64, 48), (33, 90), (150, 101), (8, 8), (21, 5), (96, 96), (200, 31))
PROCESSING = 64  # of the folder with the key
PREPROCESSOR = dict(image_mean=[0.4, 0.5, 0.3], image_std=[0.3, 0.2, 0.25], size=48, do_resize=True)


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pipeline and a ViT-MAE, each with and without its settings of size."""
    root = tmp_path_factory.mktemp('released')
    found = {}
    for name, key in (('sd', None), ('sd with key', PROCESSING)):
        found[name] = make_sd_folder(root / name)
        if key is not None:
            index = found[name] / 'model_index.json'
            index.write_text(json.dumps({**json.loads(index.read_text()), 'default_processing_resolution': key}))
    for name, settings in (('mae', None), ('mae with file', PREPROCESSOR)):
        found[name] = make_mae_folder(root / name)
        if settings is not None:
            (found[name] / 'preprocessor_config.json').write_text(json.dumps(settings))
    return found


def photo(height: int, width: int) -> Image.Image:
    """Noise over soft colours: what aliasing, other filters and other sizes change."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    soft = np.stack([x / width, y / height, (x + y) / (height + width)], -1) * 200
    return Image.fromarray((soft + rng.uniform(0, 55, (height, width, 3))).astype(np.uint8))


def published_sd(folder: Path, image: Image.Image, resolution: int) -> np.ndarray:
    """The published Stable Diffusion pipeline and the script around it; diffusers' and transformers' parts."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    vae = AutoencoderKL.from_pretrained(folder, subfolder='vae')
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder='unet')
    alphas = DDIMScheduler.from_pretrained(folder, subfolder='scheduler').alphas_cumprod
    tokens = CLIPTokenizer.from_pretrained(folder / 'tokenizer')('', return_tensors='pt').input_ids
    assert tokens.shape == (1, 2)
    text = CLIPTextModel.from_pretrained(folder / 'text_encoder')(tokens)[0]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    if resolution > 0:
        longest = max(image.size)
        size = [side * resolution // longest for side in pixels.shape[-2:]]
        pixels = F.interpolate(pixels, size, mode='bilinear', antialias=True)
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (0, -width % 8, 0, -height % 8), mode='replicate') * 2 - 1
    latent = vae.encode(padded).latent_dist.mode() * vae.config.scaling_factor
    velocity = unet(latent, 999, encoder_hidden_states=text).sample
    clean = alphas[999].sqrt() * latent - (1 - alphas[999]).sqrt() * velocity
    decoded = vae.decode(clean / vae.config.scaling_factor).sample
    colors = (decoded - decoded.min()) / (decoded.max() - decoded.min()) * 255
    colors = colors[0, :, :height, :width].permute(1, 2, 0)
    picture = Image.fromarray(colors.numpy().astype(np.uint8))
    return np.asarray(picture.resize(image.size, Image.Resampling.LANCZOS))


def published_mae(folder: Path, image: Image.Image, side: int, mean: list, std: list) -> np.ndarray:
    """The published MAE script: PIL's resize to the square, the folder's normalisation, per-image stretch, gamma."""
    from transformers import ViTMAEForPreTraining

    mae = ViTMAEForPreTraining.from_pretrained(folder, mask_ratio=0.0).eval()
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) / 255
    pixels = torch.tensor((pixels - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]
    if side != mae.config.image_size:
        return None  # the library's decoder has no other grid
    noise = torch.arange((side // 16) ** 2)[None].float()
    logits = mae(pixels, noise=noise).logits[0]  # (patches, 16 * 16 * 3)
    rows = [
        torch.cat(list(logits[row : row + side // 16].view(-1, 16, 16, 3)), 1)
        for row in range(0, len(logits), side // 16)
    ]
    colors = torch.cat(rows, 0)
    colors = ((colors - colors.min()) / (colors.max() - colors.min())) ** 0.7 * 255
    picture = Image.fromarray(colors.numpy().astype(np.uint8))
    return np.asarray(picture.resize(image.size, Image.Resampling.LANCZOS))


def difference(infer: GenSegInferencer, image: Image.Image, expected: np.ndarray) -> tuple:
    """Largest and mean difference in grey levels."""
    (prediction,) = infer(image, return_vis=False)['predictions']
    colors = prediction['color_map']
    assert colors.shape == expected.shape and (colors == np.floor(colors)).all()
    gap = np.abs(colors - expected)
    return gap.max(), gap.mean()


@torch.no_grad()
@pytest.mark.parametrize('kind', ['sd with key', 'mae'])
def test_parity_at_many_sizes(folders: dict[str, Path], kind: str):
    """``-s`` prints the table. A map may lie on the other side of a whole level (float32); Lanczos spreads that."""
    infer = GenSegInferencer.from_pretrained(folders[kind], device='cpu')
    spread = []
    for size in SIZES:
        image = photo(*size)
        if kind == 'mae':
            expected = published_mae(folders[kind], image, 64, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        else:
            expected = published_sd(folders[kind], image, PROCESSING)
        largest, mean = difference(infer, image, expected)
        print(f'{kind}, {size[0]} x {size[1]}: largest {largest:.0f}, mean {mean:.5f} grey levels')
        assert largest <= 2 and mean < 0.01, (size, largest, mean)
        spread.append(expected.std())
    assert np.mean(spread) > 10  # the maps are no plain pictures


@torch.no_grad()
def test_without_the_key_768_and_any_other_size_by_hand(folders: dict[str, Path]):
    image = photo(12, 50)
    model = load_released(str(folders['sd']))
    assert network_resize_of(model) == dict(longer_side=768, multiples=(8, 8), pad=True, whole=False)
    assert NetworkResize(**model.network_resize()).sizes(480, 640)[1] == (576, 768)
    infer = GenSegInferencer(model, show_progress=False)
    expected = published_sd(folders['sd'], image, 768)
    largest, mean = difference(infer, image, expected)
    assert largest <= 2 and mean < 0.01
    for size in (0, 40):  # 0: its own
        if size:
            infer = GenSegInferencer.from_pretrained(folders['sd'], processing_size=size)
        else:
            infer = GenSegInferencer(model, show_progress=False, processing_size=size)
        largest, mean = difference(infer, image, published_sd(folders['sd'], image, size))
        assert largest <= 2 and mean < 0.01
    assert np.abs(expected.astype(float) - published_sd(folders['sd'], image, 0)).mean() > 1


def test_the_folder_of_the_mae_decides(folders: dict[str, Path], tmp_path: Path):
    colorer = MAEColorer(pretrained=str(folders['mae with file']))
    assert colorer.network_resize() == dict(size=(48, 48), method='bicubic')
    assert colorer.mean.flatten().tolist() == pytest.approx(PREPROCESSOR['image_mean'])
    assert colorer.std.flatten().tolist() == pytest.approx(PREPROCESSOR['image_std'])
    by_hand = MAEColorer(pretrained=str(folders['mae with file']), mean=(0.1,) * 3)
    assert by_hand.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    # The map is the one of ImageNet's numbers on a picture that was moved accordingly.
    other = MAEColorer(pretrained=str(folders['mae']))
    images = torch.rand(1, 3, 48, 48) * 2 - 1
    unit = ((images + 1) / 2 - colorer.mean) / colorer.std
    moved = (unit * other.std + other.mean) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(colorer(images), other(moved), atol=1e-4)
    # Saved and loaded, its numbers are the same.
    colorer.save_pretrained(str(tmp_path / 'saved'))
    again = MAEColorer(pretrained=str(tmp_path / 'saved'))
    assert again.network_resize() == colorer.network_resize()
    assert torch.allclose(again.mean, colorer.mean) and torch.allclose(again.std, colorer.std)


@pytest.mark.parametrize(
    ('file', 'change', 'message'),
    [
        ('preprocessor_config.json', dict(image_mean=[1, 2]), r'image_mean must be three numbers, but got \[1, 2\]'),
        ('preprocessor_config.json', dict(image_std=[0, 1, 1]), 'image_std must be three numbers above 0'),
        ('preprocessor_config.json', dict(size='big'), "size must be the side of a square in pixels, but got 'big'"),
        ('preprocessor_config.json', dict(size=50), 'must be a multiple of the patch size 16, but got 50'),
        ('preprocessor_config.json', dict(rescale_factor=1), 'rescale_factor must be 1/255, but got 1'),
        ('model_index.json', dict(default_processing_resolution='a'), "longer side in pixels, or 0, but got 'a'"),
        ('model_index.json', dict(default_processing_resolution=-8), 'or 0, but got -8'),
    ],
)
def test_a_wrong_setting_of_a_folder_is_named(tmp_path: Path, file: str, change: dict, message: str):
    make = make_sd_folder if file == 'model_index.json' else make_mae_folder
    path = make(tmp_path / 'folder') / file
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(ValueError, match=message) as caught:
        load_released(str(path.parent))
    assert '\n' not in str(user_message(caught.value))
    assert file in str(caught.value)


def test_one_preset_for_python_benchmarks_and_configs(folders: dict[str, Path]):
    """The same settings, and the same size of the network, whoever builds the model."""
    benchmark = dict(
        task='points',
        dataset=dict(type='D', pipeline=[dict(type='model_resize'), dict(type='Pack')]),
        evaluator=dict(type='genseg_mm.PointPromptMetric'),
    )
    for kind in ('sd with key', 'mae with file'):
        by_python = load_released(str(folders[kind]))
        entry = parse_model(f'm={folders[kind]}')
        cfg = effective_config(read_model_config(entry)[0], benchmark)
        own = dict(cfg.model)
        assert own.pop('type') == 'genseg_mm.Gen2Seg'
        by_benchmark = Gen2Seg(**own)
        name = type(by_python.colorer).__name__
        colorer = dict(type=f'genseg_mm.{name}', pretrained=str(folders[kind]))
        by_config = Gen2Seg(colorer=colorer, preset='as_published')
        for model in (by_python, by_benchmark, by_config):
            assert (model.normalize, model.output) == ('batch', 'picture')
            assert model.stretch == ('padded' if kind.startswith('sd') else 'image')
            assert model.gamma == (1.0 if kind.startswith('sd') else 0.7)
            assert network_resize_of(model) == network_resize_of(by_python)
        fill_network_size(cfg, by_benchmark)
        resize = TRANSFORMS.build(dict(cfg.test_dataloader.dataset.pipeline[0]))
        assert resize.sizes(300, 200)[1] == NetworkResize(**by_python.network_resize()).sizes(300, 200)[1]
        by_suite = read_model_config(dict(entry, settings=dict(processing_size=0)))[0].model
        assert (by_suite.processing_size, by_suite.preset) == (0, 'as_published')
        changed = Gen2Seg(colorer=colorer, preset='as_published', output='float', processing_size=0)
        assert (changed.output, changed.gamma) == ('float', by_config.gamma)
        assert network_resize_of(changed)['longer_side'] == 0
    with pytest.raises(ValueError, match="preset must be one of as_published or None, but got 'x'"):
        Gen2Seg(colorer=colorer, preset='x')
    with pytest.raises(ValueError, match='for SDColorer and MAEColorer, but got the colorer Identity'):
        Gen2Seg(colorer=dict(type='torch.nn.Identity'), preset='as_published')


def test_prompts_read_the_published_picture(folders: dict[str, Path]):
    infer = GenSegInferencer.from_pretrained(folders['sd with key'], device='cpu')
    image, points = photo(90, 130), [[20.0, 30.0], [100.0, 70.0]]
    (prediction,) = infer(image, points=points)['predictions']
    with torch.no_grad():
        picture = published_sd(folders['sd with key'], image, PROCESSING)
    expected = masks_from_points(torch.from_numpy(picture.copy()).permute(2, 0, 1), points)
    assert (prediction['masks'] != expected.numpy()).mean() < 0.01
    assert expected.any()
