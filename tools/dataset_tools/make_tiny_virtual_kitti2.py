"""Writes a tiny Virtual KITTI 2: drawn streets in the published layout, for tests and first tries.

    python tools/dataset_tools/make_tiny_virtual_kitti2.py tiny_data

It has what trips readers of the real files: palette PNGs whose indices, not colours, are the instances (two indices
share a colour here), more than 16 of them, both spellings of the folder of instances, a frame without any vehicle,
variations that the paper does not use, and class maps beside the instances.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from genseg_mm.launch import ToolParser, run_tool

SPELLINGS = {'Scene02': 'instancesegmentation'}  # any other scene: instanceSegmentation
SCENES = ('Scene01', 'Scene02')
VARIATIONS = ('clone', 'fog', 'morning')  # clone: not in the paper's selection
TWINS = (5, 21)  # palette indices of one colour
JAM = 18  # vehicles in the first frame of Scene01
# variation -> blue, green, red and weight of the haze over the picture
HAZE = dict(fog=((190, 190, 190), 0.45), morning=((120, 190, 240), 0.2), rain=((110, 100, 90), 0.3))


def make_tiny_virtual_kitti2(
    data_root: str | Path,
    image_size: tuple[int, int] = (94, 310),
    num_frames: int = 3,
    scenes: Sequence[str] = SCENES,
    variations: Sequence[str] = VARIATIONS,
) -> Path:
    """Writes every scene in every variation, from both cameras; the last frame of the last scene is empty.

    Args:
        data_root: Folder to write into; made if it does not exist.
        image_size: (height, width); the real pictures have (375, 1242).
        num_frames: Frames per camera.
        scenes: 'Scene01', 'Scene02', 'Scene06', 'Scene18', 'Scene20'.
        variations: Names of the variations.

    Returns:
        ``data_root``.
    """
    data_root = Path(data_root)
    palette = np.random.default_rng(0).integers(30, 256, (256, 3), dtype=np.uint8)
    palette[0] = 0
    palette[TWINS[1]] = palette[TWINS[0]]
    for scene in scenes:
        for camera in range(2):
            for number in range(num_frames):
                empty = scene == scenes[-1] and number == num_frames - 1
                picture, indices = _draw(scene, camera, number, image_size, empty)
                for variation in variations:
                    frames = data_root / scene / variation / 'frames'
                    _write(frames, scene, camera, number, _haze(picture, variation), indices, palette)
    return data_root


def _write(
    frames: Path, scene: str, camera: int, number: int, picture: np.ndarray, indices: np.ndarray, palette: np.ndarray
) -> None:
    spelling = SPELLINGS.get(scene, 'instanceSegmentation')
    rgb, instances, classes = (
        frames / name / f'Camera_{camera}' for name in ('rgb', spelling, spelling.replace('instance', 'class'))
    )
    for folder in (rgb, instances, classes):
        folder.mkdir(parents=True, exist_ok=True)
    path = str(rgb / f'rgb_{number:05d}.jpg')
    cv2.imwrite(path, picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    image.save(instances / f'instancegt_{number:05d}.png')
    colours = np.where(indices[..., None] > 0, (255, 127, 80), (90, 200, 255)).astype(np.uint8)
    Image.fromarray(colours).save(classes / f'classgt_{number:05d}.png')


def _draw(
    scene: str, camera: int, number: int, image_size: tuple[int, int], empty: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A street, (H, W, 3) BGR uint8, and its track ids + 1, (H, W) uint8, 0 = no vehicle."""
    height, width = image_size
    street = np.random.default_rng(int(scene[-2:]))
    picture = np.empty((height, width, 3), np.uint8)
    horizon = int(0.4 * height)
    picture[:horizon] = (235, 206, 160)
    picture[horizon:] = (70, 120, 80)
    road = [(0.48, 0.4), (0.52, 0.4), (0.95, 1), (0.05, 1)]
    cv2.fillPoly(picture, [(np.array(road) * (width, height)).astype(np.int32)], (95, 95, 95))
    for x in street.uniform(0, 1, 8):  # trees and houses, which have no instance
        left, top = int((x - 0.02 * camera) * width), int(street.uniform(0.15, 0.35) * height)
        colour = street.integers(40, 140, 3).tolist()
        cv2.rectangle(picture, (left, top), (left + width // 16, horizon), colour, -1)
    indices = np.zeros((height, width), np.uint8)
    num_vehicles = 0 if empty else JAM if scene == 'Scene01' and number == 0 else 6
    # Far ones first; a vehicle keeps its track over the frames and comes nearer.
    depths = np.sort(street.uniform(0.05, 1, JAM))
    twins = [index - 1 for index in TWINS]
    others = [track for track in street.permutation(40) if track not in twins]
    tracks = [twins[0], *others[: JAM - 2], twins[1]]
    colours = street.integers(20, 236, (JAM, 3))
    sides = street.uniform(-0.42, 0.42, JAM)
    for k in np.linspace(0, JAM - 1, num_vehicles).astype(int):
        near = min(depths[k] + 0.08 * number, 1.1)
        centre = np.array([0.5 + sides[k] * (0.4 + near) - 0.02 * camera * near, 0.42 + 0.4 * near])
        size = (0.025 + 0.05 * near) * width
        _draw_vehicle(picture, indices, centre * (width, height), size, colours[k], tracks[k] + 1)
    noise = np.random.default_rng([number, camera]).integers(-4, 5, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8), indices


def _draw_vehicle(
    picture: np.ndarray, indices: np.ndarray, centre: np.ndarray, size: float, colour: np.ndarray, index: int
) -> None:
    """A body, a cabin with a window, and two wheels; all of it is the instance."""
    (x, y), half = centre.astype(int).tolist(), max(int(size / 2), 2)
    parts = (
        ((x - half, y - half // 2), (x + half, y + half // 3), colour.tolist()),
        ((x - half // 2, y - half), (x + half // 2, y - half // 2), colour.tolist()),
        ((x - half // 3, y - half * 4 // 5), (x + half // 3, y - half // 2), (60, 50, 40)),
        ((x - half * 3 // 4, y + half // 3), (x - half // 3, y + half // 2), (20, 20, 20)),
        ((x + half // 3, y + half // 3), (x + half * 3 // 4, y + half // 2), (20, 20, 20)),
    )
    for first, last, shade in parts:
        cv2.rectangle(picture, first, last, shade, -1)
        cv2.rectangle(indices, first, last, int(index), -1)


def _haze(picture: np.ndarray, variation: str) -> np.ndarray:
    colour, weight = HAZE.get(variation, ((0, 0, 0), 0.0))
    return (picture * (1 - weight) + np.array(colour) * weight).astype(np.uint8)


def main() -> None:
    parser = ToolParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('out', writes='folder', help='folder for GENSEG_DATA; the files go into its vkitti2/')
    parser.add_argument('--image-size', type=int, nargs=2, default=(94, 310), metavar=('H', 'W'))
    parser.add_argument('--frames', type=int, default=3, help='frames per camera')
    parser.add_argument('--scenes', nargs='+', default=SCENES)
    parser.add_argument('--variations', nargs='+', default=VARIATIONS)
    args = parser.parse_args()
    root = make_tiny_virtual_kitti2(
        Path(args.out) / 'vkitti2', tuple(args.image_size), args.frames, args.scenes, args.variations
    )
    print(f'wrote {root}')


if __name__ == '__main__':
    run_tool(main)
