"""The shipped models: gen2seg well above perfect foreground without grouping, GenMask on every kind of expression."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from genseg_mm.datasets import ShapesDataset
from genseg_mm.evaluation import PointPromptMetric, ReferringMetric
from genseg_mm.inferencers import init_model

ROOT = Path(__file__).parents[1]
NUM_SCENES = 60


def scenes(shapes: str, grounds: str) -> list[dict]:
    dataset = ShapesDataset(
        num_scenes=NUM_SCENES,
        image_size=(64, 64),
        task='instance',
        split='test',
        shapes=shapes,
        grounds=grounds,
        subset=f'{grounds}_{shapes}',
        test_mode=True,
        pipeline=[dict(type='genseg_mm.PackGenSegInputs')],
    )
    return [dataset[index] for index in range(NUM_SCENES)]


@pytest.mark.parametrize('name', ['unet', 'mae'])
def test_masks_beat_the_oracle_without_grouping(name):
    config = Config.fromfile(ROOT / f'configs/gen2seg/gen2seg_{name}_shapes_long_tiny.py')
    weights = ROOT / f'genseg_mm/weights/gen2seg_{name}_shapes.safetensors'
    model = init_model(config, str(weights), 'cpu')
    # The radius that was chosen on 'val'; the controls get the same, their own best is below 55.
    metric = PointPromptMetric(threshold=model.prompting['radius'], sigma=0.005)
    for grounds in ('plain', 'textured'):
        for shapes in ('seen', 'unseen'):
            batch = pseudo_collate(scenes(shapes, grounds))
            with torch.no_grad():
                outputs = model.test_step(batch)
            metric.process(batch, [sample.to_dict() for sample in outputs])
    scores = metric.evaluate(4 * NUM_SCENES)
    oracle = {'seen': 54.2, 'unseen': 52.5}
    for grounds in ('plain', 'textured'):
        assert scores[f'{grounds}_seen_mIoU'] > oracle['seen'] + 10
        assert scores[f'{grounds}_unseen_mIoU'] > oracle['unseen'] + 2  # few scenes: some noise
    assert scores['collapse_share'] < 0.2
    assert scores['plain_seen_mIoU'] > scores['plain_seen_control_rgb'] + 40


def test_genmask_understands_every_kind_of_expression():
    config = Config.fromfile(ROOT / 'configs/genmask/genmask_sana_shapes_long_tiny.py')
    weights = ROOT / 'genseg_mm/weights/genmask_sana_shapes.safetensors'
    model = init_model(config, str(weights), 'cpu')
    pipeline = [dict(type='genseg_mm.TextPrompt'), dict(type='genseg_mm.PackGenSegInputs')]
    dataset = ShapesDataset(
        num_scenes=60,
        task='referring',
        split='test',
        test_mode=True,
        max_items=400,
        pipeline=pipeline,
    )
    metric = ReferringMetric(per_kind=True)
    for start in range(0, len(dataset), 100):
        batch = pseudo_collate([dataset[index] for index in range(start, start + 100)])
        with torch.no_grad():
            outputs = model.test_step(batch)
        metric.process(batch, [sample.to_dict() for sample in outputs])
    scores = metric.evaluate(len(dataset))
    assert scores['oIoU'] > 80
    for kind in ('color', 'color-shape', 'size-color-shape', 'size-shape', 'spatial', 'shape'):
        assert scores[f'oIoU/{kind}'] > 60, kind
