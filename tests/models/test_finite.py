"""NaN and infinity in predictions: every model, metric and the inferencer name the picture."""

import math

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from tiny_models import TRANSFORMERS, batch, build
from torch import nn

from genseg_mm import evaluation
from genseg_mm.finite import check_finite
from genseg_mm.inferencers import GenSegInferencer
from genseg_mm.models import Gen2Seg, InstanceColoringHead
from genseg_mm.registry import METRICS

BAD = (math.nan, math.inf, -math.inf)
SIZE = (6, 8)


class Spoilt(nn.Module):
    """The picture itself as raw map, with one bad value in the last of a batch."""

    bad = math.nan

    def forward(self, images):
        raw = images.clone()
        raw[-1, 1, 2, 3] = self.bad
        return raw


@pytest.fixture(params=BAD, ids=str)
def bad(request, monkeypatch):
    monkeypatch.setattr(Spoilt, 'bad', request.param)
    return request.param


def samples(*names: str) -> list[SegDataSample]:
    return [SegDataSample(metainfo=dict(img_path=name, img_shape=SIZE, ori_shape=SIZE)) for name in names]


def refused(what: str, name: str = r'b\.jpg'):
    return pytest.raises(ValueError, match=rf'{name}.*: expected a prediction of finite {what}, but got \d+ of \d+')


@pytest.mark.parametrize('normalize', ['batch', 'image', 'sigmoid', 'none'])
def test_gen2seg(bad, normalize):
    images = torch.rand(2, 3, *SIZE)
    for settings in ({}, dict(automatic=True)):
        model = Gen2Seg(dict(type=Spoilt), normalize=normalize, **settings).eval()
        with refused('colours'):
            model.predict(images, samples('a.jpg', 'b.jpg'))
    whole = samples('a.jpg', 'b.jpg')
    for own in whole:  # padding is no part of the prediction
        own.set_metainfo(dict(img_shape=(2, 8), ori_shape=(2, 8)))
    maps = [own.pred_color_map.data for own in model.predict(images, whole)]
    assert all(own.isfinite().all() and own.shape == (3, 2, 8) for own in maps)


def test_coloring_head(bad):
    head = InstanceColoringHead(in_channels=4, channels=8).eval()
    features = torch.rand(2, 4, *SIZE)
    metas = [own.metainfo for own in samples('a.jpg', 'b.jpg')]
    for config in (dict(mode='whole'), dict(mode='slide')):
        assert head.predict([features], metas, config).isfinite().all()
    with torch.no_grad():
        head.conv_seg.bias[0] = bad
    for config in (dict(mode='whole'), dict(mode='slide')):
        with refused('colours', r'a\.jpg'):
            head.predict([features], metas, config)


@pytest.mark.parametrize('family', ['sana', 'wan'])
def test_genmask(bad, family, monkeypatch):
    assert family in TRANSFORMERS
    model = build(family)
    data = model.data_preprocessor(batch(['mask'] * 2))
    data['data_samples'][0].set_metainfo(dict(img_path='a.jpg'))
    data['data_samples'][1].set_metainfo(dict(img_path='b.jpg'))
    own = model.backbone.forward

    def spoilt(noisy, *arguments):
        velocity = own(noisy, *arguments)
        velocity[-1, 0, 0, 0] = bad
        return velocity

    monkeypatch.setattr(model.backbone, 'forward', spoilt)
    with refused('latents'):
        model(**data, mode='predict')
    side = model.codec.downsample * 4
    with refused('latents', "picture of 'two'"):
        model.generate(['one', 'two'], (side, side), num_steps=1, guidance_scale=1)


def predictions(name: str) -> tuple[object, dict, list[str]]:
    """A metric, a sound sample of it, and what of the sample may be spoilt."""
    ids = torch.zeros(SIZE, dtype=torch.long)
    ids[2:5, 2:6] = 1
    own = dict(img_path='b.jpg', img_id=1, ori_shape=SIZE, text='it', sent_id=1)
    if name == 'ReferringMetric':
        field = dict(pred_sem_seg=dict(data=(ids > 0)[None].float()), seg_logits=dict(data=torch.rand(1, *SIZE)))
        return (evaluation.ReferringMetric(), dict(own, gt_sem_seg=dict(data=ids[None]), **field), list(field))
    colors = dict(data=torch.rand(3, *SIZE) * 255)
    if name == 'EdgeMetric':
        truth = dict(gt_boundaries=dict(data=(ids[None] > 0).to(torch.uint8)))
        return (evaluation.EdgeMetric(num_workers=0), dict(own, pred_color_map=colors, **truth), ['pred_color_map'])
    if name == 'PointPromptMetric':
        points = dict(points=torch.tensor([[[3.0, 3.0]]]), point_ids=np.array([1]))
        metric = evaluation.PointPromptMetric(controls=False, threshold=30)
        return (
            metric,
            dict(own, gt_instance_map=dict(data=ids[None]), pred_color_map=colors, **points),
            ['pred_color_map'],
        )
    assert name == 'ClassAgnosticCocoMetric', f'say here what a sample of {name} is'
    found = InstanceData(masks=torch.rand(2, *SIZE), scores=torch.rand(2))
    instance = dict(mask=[[2, 2, 6, 2, 6, 5, 2, 5]], bbox=[2, 2, 6, 5], ignore_flag=0)
    return (
        evaluation.ClassAgnosticCocoMetric(),
        dict(own, pred_instances=found, instances=[instance]),
        ['masks', 'scores'],
    )


OURS = sorted(name for name, own in METRICS.module_dict.items() if own.__module__.startswith('genseg_mm.'))


@pytest.mark.parametrize('name', OURS)
def test_every_metric(bad, name):
    metric, sample, keys = predictions(name)
    metric.process(None, [sample])
    assert len(metric.results) == 1
    for key in keys:
        _, spoilt, _ = predictions(name)
        values = spoilt['pred_instances'][key] if key in ('masks', 'scores') else spoilt[key]['data']
        values.view(-1)[1] = bad
        with pytest.raises(ValueError, match=r'b\.jpg') as error:
            metric.process(None, [spoilt])
        assert ('finite' in str(error.value) or key == 'pred_sem_seg') and '\n' not in str(error.value)
    assert len(metric.results) == 1


def test_inferencer_names_file_and_place(bad, tmp_path):
    inferencer = GenSegInferencer(Gen2Seg(dict(type=Spoilt)).eval(), device='cpu')
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    with refused('colours', 'the image'):
        inferencer(picture, points=[[3, 3]])
    with refused('colours', 'image 1 of the list'):
        inferencer([picture, picture], automatic=True, batch_size=2)


def test_what_is_finite_passes():
    for values in (
        torch.tensor([1, 2]),
        np.array([True]),
        torch.zeros(0),
        np.array([1.5]),
        PixelData(data=torch.ones(1, 2, 2)).data,
    ):
        check_finite(values, 'values', 'a.jpg')
