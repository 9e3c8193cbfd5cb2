"""Masks from a colour map, and whole photographs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from analysis_tools.benchmark_prompting import SCENES, make_scene, plain_masks
from speed.measuring import Row, discard

from genseg_mm.functional.point_prompting import masks_from_points
from genseg_mm.functional.similarity_masks import load_loops
from genseg_mm.models.map_prompting import automatic_instances


def prompts(options: Any, size: str, num: int) -> Mapping[str, Callable]:
    """Prompts of one point on a noisy map under the reference rule; OpenCV's filter of one map, where it is installed.

    The filter is what the published code spends most of a prompt in; of many prompts it runs once for each.
    """
    colors, points = make_scene(size, 25, num, *SCENES['noisy'], options.on)
    load_loops()
    variants = dict(ours=partial(discard, masks_from_points, colors, points))
    if options.on == 'cpu' and hasattr(cv2, 'ximgproc'):
        guide = np.ascontiguousarray(colors.to(torch.uint8).permute(1, 2, 0).numpy()[..., ::-1])
        levels = colors.mean(0).to(torch.uint8).numpy()

        def published() -> None:
            for _ in range(num):
                cv2.ximgproc.jointBilateralFilter(guide, levels, 9, 75, 75)

        cv2.setNumThreads(torch.get_num_threads())
        variants['OpenCV'] = published
    elif num > 1:
        variants['one by one'] = partial(discard, plain_masks, colors, points, True)
    return variants


def automatic(options: Any, size: str) -> Mapping[str, Callable]:
    """All instances of a map, without prompts."""
    colors, _ = make_scene(size, 25, 1, *SCENES['flat'], options.on)
    return dict(ours=partial(discard, automatic_instances, colors))


def photo(_options: Any, name: str) -> Mapping[str, Callable]:
    """Three points on a photograph of 12 megapixels, from the array to the masks."""
    from genseg_mm.inferencers import GenSegInferencer

    inferencer = GenSegInferencer(name, device='cpu', show_progress=False)
    image = np.random.default_rng(0).integers(90, 110, (3000, 4000, 3), dtype=np.uint8)
    image[700:1500, 900:2000] = (40, 200, 60)
    image[1500:2600, 2000:3500] = (40, 60, 200)
    points = [[1500, 1100], [2700, 2000], [100, 100]]
    return dict(ours=lambda: discard(partial(inferencer, points=points), image))


PROMPTING = (
    Row('prompt_480x640', 'one point, noisy map of 480x640', partial(prompts, size='480x640', num=1), on_gpu=True),
    Row('prompt_3000x2000', 'one point, 3000x2000', partial(prompts, size='3000x2000', num=1), 1, on_gpu=True),
    Row('prompt_4000x3000', 'one point, 4000x3000', partial(prompts, size='4000x3000', num=1), 1, on_gpu=True),
    Row('prompts_100', '100 points, noisy map of 480x640', partial(prompts, size='480x640', num=100), 1, on_gpu=True),
    Row('automatic_480x640', 'instances without prompts, 480x640', partial(automatic, size='480x640'), on_gpu=True),
    Row('automatic_4k', 'instances without prompts, 2160x3840', partial(automatic, size='2160x3840'), 1, on_gpu=True),
    Row('photo_unet', '3 points, 12 megapixels, UNet', partial(photo, name='gen2seg_unet_shapes_long_tiny'), 1),
    Row('photo_mae', '3 points, 12 megapixels, MAE', partial(photo, name='gen2seg_mae_shapes_long_tiny'), 1),
)
