"""Writes a tiny BSDS500: drawn scenes in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_bsds500.py tiny_data
    GENSEG_DATA=tiny_data python tools/benchmark.py configs/benchmarks/tiny.py ...

Pictures are JPEG, landscape and portrait; the ground truth is MATLAB's cell array of structs. Annotators differ by a
pixel in places, and some see parts that others do not. Folders hold a Thumbs.db each, as the published ones do.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from genseg_mm.launch import ToolParser, run_tool

NUM_SCENES = dict(train=3, val=2, test=4)
FIRST_NUMBER = dict(train=100007, val=3096, test=2018)


def make_tiny_bsds500(data_root: str | Path, image_size: tuple[int, int] = (160, 240)) -> Path:
    """Writes ``data/images/<split>/<id>.jpg`` and ``data/groundTruth/<split>/<id>.mat``.

    Args:
        data_root: Folder to write into; made if it does not exist.
        image_size: (height, width) of the landscape pictures; every third is a portrait.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    for part, (split, num_scenes) in enumerate(NUM_SCENES.items()):
        pictures = data_root / 'data' / 'images' / split
        truths = data_root / 'data' / 'groundTruth' / split
        for folder in (pictures, truths):
            folder.mkdir(parents=True, exist_ok=True)
        (pictures / 'Thumbs.db').write_bytes(b'\xd0\xcf\x11\xe0 no picture')
        for scene in range(num_scenes):
            generator = np.random.default_rng([part, scene])
            size = image_size[::-1] if scene % 3 == 1 else image_size
            picture, segmentations = _scene(generator, size, num_annotators=4 + (part + scene) % 3)
            name = str(FIRST_NUMBER[split] + 990 * scene)
            Image.fromarray(picture).save(pictures / f'{name}.jpg', quality=95)
            cells = np.empty((1, len(segmentations)), object)
            for place, segmentation in enumerate(segmentations):
                cells[0, place] = dict(Segmentation=segmentation.astype(np.uint16), Boundaries=_boundary(segmentation))
            savemat(truths / f'{name}.mat', dict(groundTruth=cells), do_compression=True)
    return data_root


def _scene(
    generator: np.random.Generator, size: tuple[int, int], num_annotators: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Picture (H, W, 3) RGB and the segmentations (H, W), numbered from 1."""
    height, width = size
    colors = generator.integers(30, 226, (6, 3))
    shapes = []  # (x, y, radius, is it a disk)
    for _ in range(4):
        radius = generator.uniform(0.1, 0.22) * min(size)
        x, y = generator.uniform(radius, width - radius), generator.uniform(radius, height - radius)
        shapes.append((x, y, radius, generator.random() < 0.5))
    horizon = generator.uniform(0.35, 0.65) * height

    picture = colors[_regions(size, horizon, shapes) - 1].astype(np.float64)
    picture += generator.normal(0, 4, (height, width, 1))
    segmentations = []
    for annotator in range(num_annotators):
        shift = np.array([0, 0] if annotator == 0 else generator.integers(-1, 2, 2))
        # Every other annotator finds the last shape not worth drawing.
        drawn = shapes[: len(shapes) - annotator % 2]
        moved = [(x + shift[0], y + shift[1], radius, disk) for x, y, radius, disk in drawn]
        segmentations.append(_regions(size, horizon + shift[1], moved))
    return picture.clip(0, 255).astype(np.uint8), segmentations


def _regions(size: tuple[int, int], horizon: float, shapes: list[tuple]) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    regions = np.where(rows < horizon, 1, 2)
    for number, (x, y, radius, disk) in enumerate(shapes, start=3):
        across, down = abs(columns - x), abs(rows - y)
        inside = np.hypot(across, down) < radius if disk else np.maximum(across, down) < radius
        regions[inside] = number
    return regions


def _boundary(segmentation: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour is in another region, uint8."""
    boundary = np.zeros(segmentation.shape, np.uint8)
    boundary[:, :-1] |= segmentation[:, 1:] != segmentation[:, :-1]
    boundary[:-1] |= segmentation[1:] != segmentation[:-1]
    return boundary


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA; the files go into its subfolder BSDS500/')
    args = parser.parse_args()
    print(f'wrote {make_tiny_bsds500(Path(args.out) / "BSDS500")}')


if __name__ == '__main__':
    run_tool(main)
