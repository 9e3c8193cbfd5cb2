"""InstanceColoringHead by hand, and inside a stock mmseg segmentor and runner."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn import functional as F
from torch.testing import assert_close

from genseg_mm.functional.color_maps import stretch_colors
from genseg_mm.functional.instance_coloring import instance_coloring_loss
from genseg_mm.models.coloring_head import InstanceColoringHead


def pass_through_head(**settings: object) -> InstanceColoringHead:
    """A head on one level of 3 channels that returns its input."""
    head = InstanceColoringHead(3, channels=3, num_groups=1, **settings)
    with torch.no_grad():
        for conv in (head.laterals[0], head.conv_seg):
            conv.weight.copy_(torch.eye(3)[..., None, None])
            conv.bias.zero_()
    head.fuse = torch.nn.Identity()
    return head


def sample(ids: torch.Tensor, **meta: object) -> SegDataSample:
    result = SegDataSample(gt_instance_map=PixelData(data=ids[None]))
    result.set_metainfo(dict(img_shape=tuple(ids.shape), **meta))
    return result


def test_levels_are_resized_to_the_finest_and_added():
    head = InstanceColoringHead([1, 2], in_index=[0, 2], channels=2, num_groups=1)
    with torch.no_grad():
        head.laterals[0].weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
        head.laterals[1].weight.copy_(torch.tensor([[0.0, 1.0], [10.0, 0.0]]).view(2, 2, 1, 1))
        for lateral in head.laterals:
            lateral.bias.zero_()
    seen = []
    head.fuse = torch.nn.Identity()
    head.conv_seg = torch.nn.Identity()
    head.conv_seg.register_forward_hook(lambda module, inputs, output: seen.append(output))
    fine = torch.arange(4.0).view(1, 1, 2, 2)
    coarse = torch.tensor([5.0, 7.0]).view(1, 2, 1, 1)
    head([fine, torch.zeros(1, 9, 1, 1), coarse])
    assert seen[0][0, 0].tolist() == [[7.0, 8.0], [9.0, 10.0]]  # fine + second channel of coarse
    assert seen[0][0, 1].tolist() == [[50.0, 50.0], [50.0, 50.0]]


@pytest.mark.parametrize('align_corners', [False, True])
def test_every_resize_aligns_corners_or_not(align_corners: bool):
    head = pass_through_head(normalize='none', align_corners=align_corners)
    colors = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    meta = dict(img_shape=(8, 12), ori_shape=(8, 12))
    (found,) = head.predict([colors], [meta])
    resized = F.interpolate(head([colors]), (8, 12), mode='bilinear', align_corners=align_corners)
    torch.testing.assert_close(found, stretch_colors(resized[0]))


@pytest.mark.parametrize('scale', ['sigmoid', 'batch'])
def test_loss_is_at_the_resolution_of_the_input(scale: str):
    raw = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    head = pass_through_head(normalize=scale, loss_decode=dict(type='genseg_mm.InstanceColoringLoss', formula='paper'))
    losses = head.loss([raw], [sample(one) for one in ids])
    large = torch.nn.functional.interpolate(raw, scale_factor=2, mode='bilinear')
    if scale == 'sigmoid':
        colors = large.sigmoid() * 255
    else:
        low, high = large.min().abs(), large.max().abs()
        colors = (large + low) / (high + low + 1e-5) * 255
    terms = instance_coloring_loss(colors, ids, formula='paper')
    assert_close(torch.stack(list(losses.values())), torch.stack(list(terms)))


def test_padding_takes_no_part_in_the_loss():
    raw = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, 3, (6, 5), generator=torch.Generator().manual_seed(1))
    head = pass_through_head()
    padded = head.loss([raw], [sample(ids, padding_size=(0, 3, 0, 2))])
    plain = head.loss([raw[..., :6, :5]], [sample(ids)])
    for name, value in plain.items():
        assert_close(padded[name], value)


def test_prediction_by_hand():
    raw = torch.tensor([[0.0, 1.0], [3.0, 50.0]]).expand(1, 3, 2, 2)
    whole = pass_through_head(normalize='none').predict([raw], [dict(img_shape=(2, 2))], {})
    assert_close(whole[0, 0], torch.tensor([[0, 5.1], [15.3, 255]]))
    meta = dict(img_shape=(1, 2), pad_shape=(2, 2), img_padding_size=(0, 0, 0, 1))
    padded = pass_through_head(normalize='batch').predict([raw], [meta], dict(mode='whole'))
    assert_close(padded[0, 0], torch.tensor([[0.0, 255.0], [0.0, 0.0]]))


def test_sliding_windows_are_not_stretched():
    raw = torch.randn(1, 3, 2, 2)
    meta = dict(img_shape=torch.Size([2, 2]), pad_shape=(9, 9))
    colors = pass_through_head().predict([raw], [meta], dict(mode='slide'))
    assert_close(colors, raw.sigmoid() * 255)
    with pytest.raises(ValueError, match="normalize 'sigmoid' or 'none', but got 'image'"):
        pass_through_head(normalize='image').predict([raw], [meta], dict(mode='slide'))


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r'must name the same levels, but got \[8, 16\] and -1'):
        InstanceColoringHead([8, 16])
    with pytest.raises(ValueError, match="normalize must be one of .*, but got 'x'"):
        InstanceColoringHead(8, normalize='x')


# Inside mmseg


def segmentor_config(work_dir: Path, backbone: dict, in_channels: list[int], test_cfg: dict) -> Config:
    """What a mmseg user writes: their own segmentor, our head, our data."""
    pipeline = [dict(type='genseg_mm.PackGenSegInputs')]
    shapes = dict(type='genseg_mm.ShapesDataset', task='instance', image_size=(48, 64), num_scenes=8)
    test_data = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(shapes, split='test', num_scenes=3, test_mode=True, pipeline=pipeline),
    )
    return Config(
        dict(
            default_scope='mmseg',
            work_dir=str(work_dir),
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(
                    type='SegDataPreProcessor',
                    mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375],
                    bgr_to_rgb=True,
                    pad_val=0,
                    seg_pad_val=255,
                    size=(64, 64),
                    test_cfg=dict(size_divisor=32),
                ),
                backbone=backbone,
                decode_head=dict(
                    type='genseg_mm.InstanceColoringHead',
                    in_channels=in_channels,
                    in_index=list(range(len(in_channels))),
                    channels=16,
                    bias=-2.0,
                ),
                train_cfg={},
                test_cfg=test_cfg,
            ),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(shapes, pipeline=pipeline),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=20, val_interval=20),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=4e-3)),
            val_dataloader=test_data,
            val_cfg=dict(type='ValLoop'),
            val_evaluator=dict(type='genseg_mm.PointPromptMetric', threshold=40.0),
            default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False)),
            randomness=dict(seed=0),
            log_level='WARNING',
            experiment_name='head',
        )
    )


RESNET = dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=8, norm_cfg=dict(type='BN'), num_stages=4)
MIT = dict(type='MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])


@pytest.mark.parametrize(
    ('backbone', 'in_channels', 'test_cfg'),
    [
        (RESNET, [8, 16, 32, 64], dict(mode='whole')),
        (MIT, [8, 8, 16, 16], dict(mode='slide', crop_size=(32, 32), stride=(32, 32))),
    ],
    ids=['resnet', 'mit'],
)
def test_stock_segmentor_trains_in_mmsegs_runner(
    tmp_path: Path, backbone: dict, in_channels: list[int], test_cfg: dict
):
    import mmseg.models  # noqa: F401  (what mmseg's tools do)

    losses = []
    with DefaultScope.overwrite_default_scope('mmseg'):
        runner = Runner.from_cfg(segmentor_config(tmp_path, backbone, in_channels, test_cfg))
        step = runner.model.train_step

        def recorded(*args: object, **kwargs: object) -> dict:
            logged = step(*args, **kwargs)
            losses.append({name: float(value.detach()) for name, value in logged.items()})
            return logged

        runner.model.train_step = recorded
        runner.train()
        metrics = runner.val_loop.run()
    assert set(losses[0]) == {'loss', 'decode.loss_variance', 'decode.loss_separation', 'decode.loss_means'}
    terms = sum(value for name, value in losses[0].items() if name != 'loss')
    assert losses[0]['loss'] == pytest.approx(terms, rel=1e-5)
    total = [entry['loss'] for entry in losses]
    assert sum(total[-3:]) < 0.75 * sum(total[:3])
    assert metrics['seen_oracle_foreground'] > metrics['seen_control_position'] > 0
    assert 0 < metrics['seen_mIoU'] <= 100
    assert metrics['num_prompts'] > 3
    data = runner.val_dataloader.dataset[0]
    (result,) = runner.model.test_step({key: [value] for key, value in data.items()})
    assert result.seg_logits.data.shape == (3, 48, 64)  # padding to 64 x 64 is gone
    if test_cfg['mode'] == 'whole':
        assert (result.seg_logits.data.min(), result.seg_logits.data.max()) == (0, 255)
