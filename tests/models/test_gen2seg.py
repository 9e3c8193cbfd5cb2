"""Gen2Seg: loss, prediction and prompting by hand; training; mmdet's CocoMetric."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import METRICS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from tiny_models import MAE_COLORER, UNET_COLORER
from torch.testing import assert_close

from genseg_mm.datasets import ShapesDataset
from genseg_mm.functional.instance_coloring import instance_coloring_loss
from genseg_mm.models.coloring_head import InstanceColoringLoss
from genseg_mm.models.gen2seg import Gen2Seg
from genseg_mm.registry import MODELS

IDENTITY = dict(type='torch.nn.Identity')
# Corners of the colour cube, so that all instances are far apart; the background is black.
PALETTE = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=torch.float)


def sample(ids: torch.Tensor | None = None, **meta: object) -> SegDataSample:
    result = SegDataSample()
    if ids is not None:
        result.gt_instance_map = PixelData(data=ids[None].long())
    result.set_metainfo(meta)
    return result


def identity_model(**settings: object) -> Gen2Seg:
    return Gen2Seg(IDENTITY, **settings).eval()


def random_batch(size: tuple[int, int] = (8, 8)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(2, 3, *size, generator=generator)
    return raw, torch.randint(0, 3, (2, *size), generator=generator)


# Loss


@pytest.mark.parametrize('formula', ['reference', 'paper'])
def test_loss_is_the_functional_on_normalised_colors(formula: str):
    raw, ids = random_batch()
    model = identity_model(
        normalize='sigmoid', bias=-1.0, loss=dict(type='genseg_mm.InstanceColoringLoss', formula=formula)
    )
    losses = model(raw, [sample(one) for one in ids], mode='loss')
    terms = instance_coloring_loss(torch.sigmoid(raw - 1) * 255, ids, formula=formula)
    assert list(losses) == ['loss_variance', 'loss_separation', 'loss_means']
    for value, expected in zip(losses.values(), terms, strict=True):
        assert_close(value, expected)


def test_batch_scale_is_the_default_and_couples_the_samples():
    raw, ids = random_batch()
    losses = identity_model()(raw, [sample(one) for one in ids], mode='loss')
    low, high = raw.min().abs(), raw.max().abs()
    terms = instance_coloring_loss((raw + low) / (high + low + 1e-5) * 255, ids)
    assert_close(sum(losses.values()), sum(terms))


def test_ignored_background_is_read_per_sample():
    raw, ids = random_batch()
    model = identity_model(normalize='sigmoid')
    samples = [sample(ids[0], ignore_background=True), sample(ids[1])]
    losses = model(raw, samples, mode='loss')
    terms = instance_coloring_loss(torch.sigmoid(raw) * 255, ids, ignore_background=torch.tensor([True, False]))
    assert_close(sum(losses.values()), sum(terms))
    plain = model(raw, [sample(one) for one in ids], mode='loss')
    assert not torch.allclose(losses['loss_variance'], plain['loss_variance'])


def test_padding_takes_no_part_in_the_loss():
    raw, ids = random_batch()
    model = identity_model(normalize='sigmoid')
    one = model(raw[:1, :, :5, :6], [sample(ids[0, :5, :6])], mode='loss')
    two = model(raw[1:], [sample(ids[1])], mode='loss')
    both = model(raw, [sample(ids[0, :5, :6]), sample(ids[1])], mode='loss')
    for name, value in both.items():
        assert_close(value, (one[name] + two[name]) / 2)
    cropped = [sample(one_map[:5, :6]) for one_map in ids]  # all padded alike
    alike = model(raw, cropped, mode='loss')
    plain = model(raw[..., :5, :6], cropped, mode='loss')
    for name, value in alike.items():
        assert_close(value, plain[name])


def test_loss_weight():
    raw, ids = random_batch()
    colors = torch.sigmoid(raw) * 255
    full, half = (InstanceColoringLoss()(colors, ids), InstanceColoringLoss(loss_weight=0.5)(colors, ids))
    for name, value in full.items():
        assert_close(half[name], value / 2)


def test_sample_without_an_instance_map():
    raw, _ = random_batch()
    with pytest.raises(ValueError, match=r'expects gt_instance_map .*\(a.png\); add .*LoadInstanceMap'):
        identity_model()(raw[:1], [sample(img_path='a.png')], mode='loss')
    with pytest.raises(ValueError, match=r'network input \(8, 8\) or less, but got \(9, 8\)'):
        identity_model()(raw[:1], [sample(torch.ones(9, 8))], mode='loss')


# Prediction


def test_color_map_by_hand():
    """Raw values 0, 1, 2, 4 in the valid area; the padding's 100 must not count."""
    raw = torch.full((1, 3, 2, 4), 100.0)
    raw[0, :, 0, :2] = torch.tensor([0.0, 1.0])
    raw[0, :, 1, :2] = torch.tensor([2.0, 4.0])
    given = sample(img_shape=(2, 2), ori_shape=(2, 2))
    expected = torch.tensor([[0, 63.75], [127.5, 255]]).expand(3, 2, 2)
    for scale in ('batch', 'image', 'none'):
        (result,) = identity_model(normalize=scale)(raw, [given], mode='predict')
        assert_close(result.pred_color_map.data, expected)
    (result,) = identity_model(normalize='none', gamma=0.5)(raw, [given], mode='predict')
    assert_close(result.pred_color_map.data, (expected / 255).sqrt() * 255)
    (result,) = identity_model(normalize='sigmoid')(raw, [given], mode='predict')
    unit = torch.sigmoid(raw[0, :, :2, :2])
    assert_close(result.pred_color_map.data, (unit - 0.5) / (unit.max() - 0.5) * 255)


@pytest.mark.parametrize('scale', ['batch', 'image', 'sigmoid', 'none'])
def test_prediction_does_not_depend_on_the_batch(scale: str):
    raw, _ = random_batch()
    model = identity_model(normalize=scale)
    together = model(raw * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1), None, mode='predict')
    (alone,) = model(raw[:1], None, mode='predict')
    assert torch.equal(together[0].pred_color_map.data, alone.pred_color_map.data)


def test_color_map_is_resized_to_the_original_image():
    raw = torch.tensor([0.0, 1.0]).expand(1, 3, 2, 2)
    given = sample(img_shape=(2, 2), ori_shape=(4, 4))
    (result,) = identity_model(normalize='none')(raw, [given], mode='predict')
    columns = torch.tensor([0.0, 63.75, 191.25, 255.0])  # bilinear, pixel centres
    assert_close(result.pred_color_map.data, columns.expand(3, 4, 4))


def test_point_prompts_become_instances():
    ids = torch.zeros(24, 32, dtype=torch.long)
    ids[2:10, 3:13], ids[12:20, 16:30] = 1, 2
    raw = PALETTE[ids].permute(2, 0, 1)[None]
    points = np.array([[[8.0, 6.0]], [[20.0, 15.0]], [[0.0, 0.0]]], np.float32)
    given = sample(points=points, point_labels=np.ones((3, 1)), ori_shape=(24, 32), img_shape=(24, 32))
    (result,) = identity_model(normalize='none')(raw, [given], mode='predict')
    prompted = result.pred_instances
    assert torch.equal(prompted.masks, torch.stack([ids == 1, ids == 2, ids == 0]))
    assert prompted.bboxes.tolist() == [[3, 2, 13, 10], [16, 12, 30, 20], [0, 0, 32, 24]]
    assert prompted.scores.tolist() == [1.0, 1.0, 1.0]
    assert prompted.labels.tolist() == [0, 0, 0]


def test_sample_without_instances_gives_no_masks():
    given = sample(points=np.zeros((0, 1, 2), np.float32), point_labels=np.zeros((0, 1)))
    (result,) = identity_model(normalize='none')(torch.rand(1, 3, 6, 6), [given], mode='predict')
    assert result.pred_instances.masks.shape == (0, 6, 6)
    assert result.pred_instances.bboxes.shape == (0, 4)


def test_box_prompts_and_their_settings():
    ids = torch.zeros(24, 32, dtype=torch.long)
    ids[2:10, 3:13], ids[12:20, 16:30] = 1, 2
    raw = PALETTE[ids].permute(2, 0, 1)[None]
    given = sample(boxes=np.array([[16.0, 12, 30, 20], [3, 2, 8, 10]]))
    model = identity_model(normalize='none', prompting=dict(radius=40.0))
    (result,) = model(raw, [given], mode='predict')
    halved = (ids == 1) & (torch.arange(32) < 8)
    assert torch.equal(result.pred_instances.masks, torch.stack([ids == 2, halved]))
    colors = result.pred_color_map.data
    wide = model.prompt(colors, [[5, 5], [20, 15]], boxes=[[0, 0, 32, 24]] * 2, radius=400.0)
    assert wide.masks.all()  # the model's radius is replaced
    with pytest.raises(ValueError, match='points: expected points, boxes or both'):
        model.prompt(colors)


def test_automatic_instances_for_samples_without_prompts():
    ids = torch.zeros(24, 32, dtype=torch.long)
    ids[2:10, 3:13], ids[12:20, 16:30] = 1, 2
    raw = PALETTE[ids].permute(2, 0, 1)[None]
    prompted = sample(points=np.array([[20.0, 15.0]], np.float32))
    model = identity_model(normalize='none', automatic=True)
    one, two = model(raw.repeat(2, 1, 1, 1), [sample(), prompted], mode='predict')
    assert torch.equal(one.pred_instances.masks, torch.stack([ids == 1, ids == 2]))
    assert one.pred_instances.bboxes.tolist() == [[3, 2, 13, 10], [16, 12, 30, 20]]
    assert len(two.pred_instances) == 1
    colors = one.pred_color_map.data
    assert len(model.automatic_instances(colors, min_area=81)) == 1
    larger = identity_model(normalize='none', automatic=dict(min_area=81))
    assert len(larger.automatic_instances(colors)) == 1
    assert len(larger.automatic_instances(colors, min_area=20)) == 2
    (none,) = identity_model(normalize='none')(raw, None, mode='predict')
    assert 'pred_instances' not in none
    with pytest.raises(ValueError, match='automatic: expected settings out of .*size'):
        identity_model(automatic=dict(size=3))


def test_stretch_over_the_batch():
    """Raw values 0 ... 1 and 0 ... 4 in the valid areas; the padding's 100 must not count."""
    raw = torch.full((2, 3, 2, 4), 100.0)
    raw[0, :, :, :2] = torch.tensor([[0.0, 1.0], [0.5, 1.0]])
    raw[1, :, :, :2] = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    given = [sample(img_shape=(2, 2)) for _ in range(2)]
    model = identity_model(normalize='none', stretch='batch', gamma=0.5)
    for one, result in zip(raw, model(raw, given, mode='predict'), strict=True):
        assert_close(result.pred_color_map.data, (one[:, :, :2] / 4).sqrt() * 255)
    with pytest.raises(ValueError, match="stretch must be one of image, padded, batch, but got 'x'"):
        identity_model(stretch='x')


def test_modes_and_settings_are_checked():
    raw, _ = random_batch()
    assert identity_model()(raw) is raw
    with pytest.raises(ValueError, match="mode must be loss, predict or tensor, but got 'test'"):
        identity_model()(raw, mode='test')
    with pytest.raises(ValueError, match="normalize must be one of .*, but got 'x'"):
        identity_model(normalize='x')
    with pytest.raises(ValueError, match='gamma must be positive, but got 0'):
        identity_model(gamma=0)


# Training


def loader_batch(num: int = 4, **settings: object) -> dict:
    dataset = ShapesDataset(
        num_scenes=num, image_size=32, task='instance', pipeline=[dict(type='genseg_mm.PackGenSegInputs')], **settings
    )
    items = [dataset[i] for i in range(num)]
    return {key: [item[key] for item in items] for key in items[0]}


@pytest.mark.parametrize('colorer', [MAE_COLORER, UNET_COLORER], ids=['mae', 'unet'])
def test_training_on_shapes_lowers_the_loss_and_reaches_every_parameter(colorer: dict):
    torch.manual_seed(0)
    model = MODELS.build(dict(type='genseg_mm.Gen2Seg', colorer=colorer, normalize='sigmoid', bias=-2.0))
    model.init_weights()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), 3e-3)
    data = model.data_preprocessor(loader_batch(), training=True)
    history = []
    for _ in range(15):
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert min(history[-3:]) < 0.6 * history[0]
    assert all(p.grad is not None for p in trained.values())  # what DDP asks for
    # The constant prompt is zero, so that the attention to it has zero gradients.
    still = {name for name, p in trained.items() if torch.equal(p, before[name])}
    assert all('transformer_blocks' in name for name in still)
    model.eval()
    data = model.data_preprocessor(loader_batch(split='test', test_mode=True))
    results = model(**data, mode='predict')
    assert [r.pred_instances.masks.shape[0] for r in results] == [len(r.points) for r in results]
    assert all(r.pred_color_map.data.min() == 0 and r.pred_color_map.data.max() == 255 for r in results)


# mmdet's CocoMetric


def coco_file(maps: list[torch.Tensor], path: Path) -> None:
    from pycocotools import mask as mask_utils

    annotations = []
    for image_id, ids in enumerate(maps):
        for number in ids[ids > 0].unique().tolist():
            rle = mask_utils.encode(np.asfortranarray((ids == number).numpy().astype(np.uint8)))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=1,
                    iscrowd=0,
                    area=int((ids == number).sum()),
                    bbox=mask_utils.toBbox(rle).tolist(),
                    segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
                )
            )
    sizes = [dict(id=i, height=m.shape[0], width=m.shape[1]) for i, m in enumerate(maps)]
    content = dict(images=sizes, annotations=annotations, categories=[dict(id=1, name='object')])
    path.write_text(json.dumps(content))


def test_mmdets_coco_metric_on_prompted_masks(tmp_path: Path):
    """Perfect maps give a class-agnostic AP of 1; in a map of noise nothing is found.

    Noise is not flat, so its masks score below the perfect ones. Precision is then 1 up to the
    recall of the first scene, n1 / n, and 0 beyond: floor(100 n1 / n) + 1 of COCO's 101 steps.
    """
    dataset = ShapesDataset(num_scenes=2, task='instance', split='test', test_mode=True)
    infos = [dataset[i] for i in range(2)]
    maps = [torch.from_numpy(info['gt_instance_map']).long() for info in infos]
    coco_file(maps, tmp_path / 'gt.json')
    counts = [len(info['point_ids']) for info in infos]
    half = (np.floor(100 * counts[0] / sum(counts)) + 1) / 101
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    for second, expected in ((PALETTE[maps[1]].permute(2, 0, 1), 1.0), (noise, half)):
        raw = torch.stack([PALETTE[maps[0]].permute(2, 0, 1), second])
        samples = [
            sample(**{key: info[key] for key in ('img_id', 'ori_shape', 'points', 'point_labels')}) for info in infos
        ]
        results = identity_model(normalize='none')(raw, samples, mode='predict')
        metric = METRICS.build(dict(type='mmdet.CocoMetric', ann_file=str(tmp_path / 'gt.json'), metric='segm'))
        metric.dataset_meta = dict(classes=('object',))
        metric.process({}, [result.to_dict() for result in results])
        assert metric.evaluate(2)['coco/segm_mAP'] == pytest.approx(expected, abs=1e-3)


def automatic_precision(maps: list[torch.Tensor], raw: torch.Tensor, path: Path) -> dict:
    """Class-agnostic metrics of the automatic instances of raw maps."""
    coco_file(maps, path)
    samples = [sample(img_id=i, ori_shape=tuple(m.shape)) for i, m in enumerate(maps)]
    settings = dict(split_components=False, min_area=1, min_flatness=0.0)
    model = identity_model(normalize='none', automatic=settings)
    results = model(raw, samples, mode='predict')
    metric = METRICS.build(dict(type='mmdet.CocoMetric', ann_file=str(path), metric=['segm', 'bbox']))
    metric.dataset_meta = dict(classes=('object',))
    metric.process({}, [result.to_dict() for result in results])
    return metric.evaluate(len(maps))


def test_mmdets_coco_metric_on_automatic_instances(tmp_path: Path):
    """Perfect maps give a class-agnostic AP of 1, maps with noise less, and noise alone next to 0."""
    dataset = ShapesDataset(num_scenes=3, task='instance', split='test', test_mode=True)
    maps = [torch.from_numpy(dataset[i]['gt_instance_map']).long() for i in range(3)]
    perfect = torch.stack([PALETTE[ids].permute(2, 0, 1) for ids in maps])
    result = automatic_precision(maps, perfect, tmp_path / 'gt.json')
    assert result['coco/segm_mAP'] == pytest.approx(1.0, abs=1e-3)
    assert result['coco/bbox_mAP'] == pytest.approx(1.0, abs=1e-3)
    noise = torch.randn(perfect.shape, generator=torch.Generator().manual_seed(0))
    noisy = automatic_precision(maps, perfect + 0.15 * noise, tmp_path / 'gt.json')
    assert 0.1 < noisy['coco/segm_mAP'] < 0.95
    assert automatic_precision(maps, noise, tmp_path / 'gt.json')['coco/segm_mAP'] < 0.05


@pytest.mark.parametrize('init_cfg', [None, dict(type='Constant', layer='Linear', val=0.5)])
def test_weights_are_initialised_as_by_mmengine(init_cfg):
    """Without its line for each parameter, whose mean costs a pass over all; with an ``init_cfg`` by itself."""

    def initialised(initialise) -> dict:
        torch.manual_seed(0)
        model = Gen2Seg(colorer=MAE_COLORER, init_cfg=init_cfg)
        initialise(model)
        assert model.is_init
        return model.state_dict()

    found = initialised(Gen2Seg.init_weights)
    assert_close(found, initialised(BaseModel.init_weights), rtol=0, atol=0)
    assert found['colorer.mae.decoder.decoder_pred.weight'].eq(0.5).all() == bool(init_cfg)
