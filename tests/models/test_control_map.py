"""ControlMap: its maps by hand, and the very numbers of the metric's own controls."""

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from genseg_mm.evaluation import PointPromptMetric
from genseg_mm.models import ControlMap

CONTROLS = {'rgb': 'control_rgb', 'position': 'control_position', 'oracle': 'oracle_foreground'}


def data(num: int = 6, size: tuple[int, int] = (40, 52), small: tuple[int, int] = (20, 26)) -> list:
    """Pictures at half their size, rectangles as instances, one point in each."""
    rng = np.random.default_rng(5)
    samples = []
    for number in range(num):
        ids = np.zeros(size, np.int64)
        points = []
        for own in (1, 2, 3):
            top, left = rng.integers(0, (28, 40))
            ids[top : top + 12, left : left + 12] = own
        for own in (1, 2, 3):
            y, x = np.argwhere(ids == own)[0]
            points.append([[x, y]])
        image = torch.from_numpy(rng.integers(0, 256, (3, *small), dtype=np.uint8))
        sample = SegDataSample(gt_instance_map=PixelData(data=torch.from_numpy(ids)[None]))
        sample.set_metainfo(
            dict(
                points=np.asarray(points, np.float32),
                point_labels=np.ones((3, 1), np.int64),
                point_ids=np.array([1, 2, 3]),
                img_path=f'{number}.png',
                img_shape=small,
                ori_shape=size,
                subset=('val', 'seen')[number % 2],
            )
        )
        samples.append(dict(inputs=image, data_samples=sample))
    return samples


def numbers(model: ControlMap, samples: list, **settings: object) -> dict[str, float]:
    metric = PointPromptMetric(**settings)
    batch = pseudo_collate(samples)
    outputs = model.test_step(batch)
    metric.process(batch, [output.to_dict() for output in outputs])
    return metric.evaluate(len(samples))


@pytest.mark.parametrize('threshold', ['calibrate', 'reference', 60.0])
def test_numbers_are_those_of_the_metrics_own_controls(threshold):
    settings = dict(threshold=threshold, point_choice=('given', 'deepest', 'all'), num_all=4)
    beside = numbers(ControlMap('rgb'), data(), **settings)
    for kind, name in CONTROLS.items():
        alone = numbers(ControlMap(kind), data(), controls=False, **settings)
        keys = [key for key in alone if key.endswith('mIoU')]
        assert len(keys) == 9  # three choices on val, on seen and on what is held out
        for key in keys:
            assert alone[key] == beside[key.replace('mIoU', name)], (kind, key)
        assert 0 < alone['seen_mIoU'] < 100


def test_maps_by_hand():
    image = torch.zeros(3, 2, 4, dtype=torch.uint8)
    image[0], image[2] = 10, 30  # blue, red
    ids = torch.tensor([[[0, 1, 0], [2, 0, 0]]])

    def predict(kind: str, **fields: object) -> SegDataSample:
        sample = SegDataSample(**fields)
        sample.set_metainfo(dict(img_shape=(2, 3), ori_shape=(2, 3)))  # a column of padding
        return ControlMap(kind).test_step(dict(inputs=[image], data_samples=[sample]))[0]

    assert predict('rgb').pred_color_map.data.tolist() == [[[30.0] * 3] * 2, [[0.0] * 3] * 2, [[10.0] * 3] * 2]
    expected = [[[0, 127.5, 255]] * 2, [[0] * 3, [255] * 3], [[0] * 3] * 2]
    assert predict('position').pred_color_map.data.tolist() == expected
    oracle = predict('oracle', gt_instance_map=PixelData(data=ids))
    assert oracle.pred_color_map.data.tolist() == expected
    assert oracle.pred_foreground.data.tolist() == [[[False, True, False], [True, False, False]]]
    assert 'pred_foreground' not in predict('position')
    with pytest.raises(ValueError, match=r"kind='oracle'\) reads .*no gt_instance_map; add .*LoadInstanceMap"):
        predict('oracle')
    with pytest.raises(ValueError, match=r'original size \(2, 3\), but got \(1, 3\)'):
        predict('oracle', gt_instance_map=PixelData(data=ids[:, :1]))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="'oracle'\\), but got 'depth'"):
        ControlMap('depth')
    model = ControlMap()
    with pytest.raises(ValueError, match="nothing to train, but got 'loss'"):
        model(torch.zeros(1, 3, 2, 2), [SegDataSample()], mode='loss')
    with pytest.raises(ValueError, match='uint8 images .*but got torch.float32; leave data_preprocessor out'):
        model(torch.zeros(1, 3, 2, 2), [SegDataSample()])
    with pytest.raises(ValueError, match='needs data samples'):
        model(torch.zeros(1, 3, 2, 2))


def test_it_has_no_weights_but_ddp_takes_it():
    from mmengine.model import MMDistributedDataParallel
    from torch.testing._internal.distributed.fake_pg import FakeStore

    model = ControlMap('position')
    assert sum(own.numel() for own in model.parameters()) == 0
    # Of no threads: the end of a gloo group waited for one that waited for this one.
    torch.distributed.init_process_group('fake', store=FakeStore(), rank=0, world_size=1)
    try:
        spread = MMDistributedDataParallel(model)
        batch = pseudo_collate(data(1))
        assert spread.test_step(batch)[0].pred_color_map.data[0, 0, -1] == 255
    finally:
        torch.distributed.destroy_process_group()
