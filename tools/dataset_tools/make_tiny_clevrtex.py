"""Writes a tiny ClevrTex: drawn scenes in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_clevrtex.py tiny_data
    GENSEG_DATA=tiny_data python tools/analysis_tools/browse_dataset.py configs/_base_/datasets/clevrtex_sd.py

Scenes lie in nested folders, the indices of instances are a palette PNG (whose colours are no ids), pictures come with
an alpha channel, objects hide one another, and some hide another one wholly.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from genseg_mm.launch import ToolParser, run_tool

SCENES_PER_FOLDER = 6
SHAPES = ('sphere', 'cube', 'cylinder')
MATERIALS = ('polyhaven_stripes', 'polyhaven_checks', 'polyhaven_dots')
# 14 colours: ground and up to 13 objects
PALETTE = [
    0, 0, 0, 0, 117, 220, 153, 63, 0, 76, 0, 92, 25, 25, 25, 0, 92, 49, 43, 206, 72, 255, 204, 153, 128, 128, 128,
    148, 255, 181, 143, 124, 0, 157, 204, 0, 194, 0, 136, 0, 51, 128,
]  # fmt: skip


def make_tiny_clevrtex(
    data_root: str | Path, variant: str = 'full', num_scenes: int = 20, image_size: tuple[int, int] = (240, 320)
) -> Path:
    """Writes ``clevrtex_<variant>/<n>/CLEVRTEX_<variant>_%06d{.png,_flat.png,.json}``.

    Of 20 scenes 2 are test, 2 val and 16 train.

    Args:
        data_root: Folder to write into; made if it does not exist.
        variant: 'full', 'outd' ...
        num_scenes: Number of scenes.
        image_size: (height, width) in pixels.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    for number in range(num_scenes):
        folder = data_root / f'clevrtex_{variant}' / str(number // SCENES_PER_FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        stem = f'CLEVRTEX_{variant}_{number:06d}'
        picture, ids, metadata = _scene(np.random.default_rng(number), image_size)
        opaque = np.full((*image_size, 1), 255, np.uint8)
        Image.fromarray(np.concatenate([picture, opaque], 2)).save(folder / f'{stem}.png')
        flat = Image.fromarray(ids, mode='P')
        flat.putpalette(PALETTE)
        flat.save(folder / f'{stem}_flat.png')
        metadata.update(image_filename=f'{stem}.png', image_index=number)
        (folder / f'{stem}.json').write_text(json.dumps(metadata))
    return data_root


def _scene(generator: np.random.Generator, image_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, dict]:
    """Picture (H, W, 3) RGB, ids (H, W) uint8, and the content of the json."""
    height, width = image_size
    ground, picture = _texture(generator, image_size, dark=True)
    ids = np.zeros(image_size, np.uint8)
    rows, columns = np.mgrid[:height, :width]
    objects = []
    for number in range(1, int(generator.integers(3, 11)) + 1):
        shape = str(generator.choice(SHAPES))
        radius = float(generator.choice([0.09, 0.13, 0.18])) * height
        x, y = generator.uniform(radius, width - radius), generator.uniform(radius, height - radius)
        inside = _silhouette(shape, (columns - x) / radius, (rows - y) / radius)
        material, texture = _texture(generator, image_size)
        shade = 1 - 0.45 * np.clip(np.hypot(columns - x, rows - y) / radius, 0, 1)[..., None]
        picture[inside] = (texture * shade)[inside].astype(np.uint8)
        ids[inside] = number
        objects.append(
            dict(
                shape=shape,
                size=round(radius / height * 10, 2),
                material=material,
                rotation=round(float(generator.uniform(0, 360)), 2),
                pixel_coords=[round(x, 2), round(y, 2), round(10 - number / 10, 2)],
            )
        )
    return picture, ids, dict(ground_material=ground, objects=objects)


def _silhouette(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if shape == 'sphere':
        return np.hypot(x, y) < 1
    if shape == 'cube':
        return np.maximum(abs(x), abs(y)) < 0.8
    return (abs(x) < 0.6) & (abs(y) < 0.9)


def _texture(generator: np.random.Generator, image_size: tuple[int, int], dark: bool = False) -> tuple[str, np.ndarray]:
    """Name of a material and its picture (H, W, 3) uint8."""
    kind = int(generator.integers(len(MATERIALS)))
    low, high = (40, 130) if dark else (70, 256)
    first, second = generator.integers(low, high, (2, 3))
    rows, columns = np.mgrid[: image_size[0], : image_size[1]]
    period = int(generator.integers(6, 14))
    if kind == 0:
        pattern = (columns + rows) // period % 2
    elif kind == 1:
        pattern = (columns // period + rows // period) % 2
    else:
        pattern = np.hypot(columns % period - period / 2, rows % period - period / 2) < period / 3
    return MATERIALS[kind], np.where(pattern[..., None], first, second).astype(np.uint8)


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument(
        'out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder clevrtex/'
    )
    parser.add_argument('--variant', default='full', help='full, pbg, vbg, grassbg, camo or outd')
    parser.add_argument('--num-scenes', type=int, default=20)
    args = parser.parse_args()
    out = make_tiny_clevrtex(Path(args.out) / 'clevrtex', args.variant, args.num_scenes)
    print(f'wrote {out}')


if __name__ == '__main__':
    run_tool(main)
