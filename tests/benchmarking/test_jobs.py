"""The config of one measurement, its size for the network, and what a model can do."""

import os

import numpy as np
import pytest
from mmengine.config import Config
from torch import nn

from genseg_mm.benchmarking.jobs import effective_config, fill_network_size, model_sha256, tasks_of
from genseg_mm.datasets.transforms import NetworkResize

BENCHMARK = dict(
    task='referring',
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='genseg_mm.ShapesDataset',
                image_size=(64, 64),
                pipeline=[
                    dict(type='genseg_mm.LoadImage'),
                    dict(type='model_resize'),
                    dict(type='genseg_mm.TextPrompt'),
                ],
            )
        ],
    ),
    evaluator=[dict(type='mmdet.CocoMetric'), dict(type='genseg_mm.ReferringMetric')],
    model=dict(automatic=True, part=dict(b=3)),
)
RESIZE = dict(type='mmcv.Resize', scale=(32, 32), keep_ratio=False)


def model_config(pipeline: list, **more: object) -> Config:
    loader = dict(batch_size=5, num_workers=0, dataset=dict(pipeline=pipeline))
    return Config(dict(model=dict(type='M', part=dict(a=1, b=2)), test_dataloader=loader, **more))


def pipeline_of(cfg: Config) -> list:
    return [dict(one) for one in cfg.test_dataloader.dataset.datasets[0].pipeline]


def test_the_models_size_words_and_loader_go_into_the_benchmark():
    words = dict(type='TextPrompt', template='Segment {}.')
    own = model_config([dict(type='LoadImage'), RESIZE, words], data_preprocessor=dict(type='P'))
    cfg = effective_config(own, BENCHMARK, threads=2, seed=4, sample_file='x/samples.npz')
    assert pipeline_of(cfg) == [dict(type='genseg_mm.LoadImage'), RESIZE, words]
    assert cfg.model == dict(type='M', part=dict(a=1, b=3), automatic=True, data_preprocessor=dict(type='P'))
    assert cfg.test_dataloader.batch_size == 5
    assert cfg.test_dataloader.sampler == dict(type='genseg_mm.PictureSampler')
    assert cfg.test_cfg == dict(type='genseg_mm.BenchmarkLoop', one_by_one=True, threads=2)
    assert cfg.randomness == dict(seed=4)
    assert cfg.default_scope == 'genseg_mm'
    assert not cfg.env_cfg.cudnn_benchmark
    # mmdet's metric knows no file of samples, ours does.
    assert [one.get('sample_file') for one in cfg.test_evaluator] == [None, 'x/samples.npz']


def test_descriptions_of_the_model_fill_their_place():
    pipeline = [dict(type='model_descriptions'), dict(type='genseg_mm.TextPrompt')]
    benchmark = dict(BENCHMARK, dataset=dict(type='X', pipeline=pipeline))
    described = dict(type='genseg_mm.UseDescriptions', file='d.json')
    words = dict(type='TextPrompt')
    cfg = effective_config(model_config([described, words]), benchmark)
    assert cfg.test_dataloader.dataset.pipeline == [described, words]
    cfg = effective_config(model_config([words]), benchmark)
    assert cfg.test_dataloader.dataset.pipeline == [words]


def test_other_descriptions_are_another_model(tmp_path):
    file = tmp_path / 'd.json'
    cfg = model_config([dict(type='genseg_mm.UseDescriptions', file=str(file))])
    hashes = []
    for text in ('{"a": 1}', '{"a": 2}', '{"a": 1}'):
        file.write_text(text)
        os.utime(file, ns=(len(hashes), len(hashes)))
        hashes.append(model_sha256(cfg))
    assert hashes[0] == hashes[2] != hashes[1]


def test_nothing_is_changed_in_place():
    own = model_config([RESIZE])
    effective_config(own, BENCHMARK, sample_file='x')
    assert own.model == dict(type='M', part=dict(a=1, b=2))
    assert BENCHMARK['dataset']['datasets'][0]['pipeline'][1] == dict(type='model_resize')
    assert 'sample_file' not in BENCHMARK['evaluator'][1]


def test_benchmarks_own_words_stay():
    named = dict(type='genseg_mm.TextPrompt', template='Find {}')
    benchmark = dict(BENCHMARK, dataset=dict(type='X', pipeline=[named]))
    cfg = effective_config(model_config([dict(type='TextPrompt', template='Segment {}')]), benchmark)
    assert cfg.test_dataloader.dataset.pipeline == [named]


def test_several_sizes_in_one_test_set_are_refused():
    parts = [dict(pipeline=[RESIZE]), dict(pipeline=[dict(RESIZE, scale=(8, 8))])]
    own = Config(dict(model=dict(type='M'), test_dataloader=dict(dataset=dict(datasets=parts))))
    with pytest.raises(ValueError, match='different Resizes'):
        effective_config(own, BENCHMARK)


class Model(nn.Module):
    def __init__(self, **resize: object) -> None:
        super().__init__()
        self.resize = resize

    def network_resize(self) -> dict:
        return self.resize


@pytest.mark.parametrize(
    ('model', 'expected'),
    [
        (Model(size=(224, 224)), [dict(type='genseg_mm.NetworkResize', size=(224, 224))]),
        (Model(multiples=(8, 4)), [dict(type='genseg_mm.NetworkResize', multiples=(8, 4))]),
        (nn.Linear(1, 1), []),
        (None, []),
    ],
)
def test_without_a_resize_the_network_says_its_size(model, expected):
    cfg = effective_config(model_config([]), BENCHMARK)
    fill_network_size(cfg, model)
    assert [dict(one) for one in pipeline_of(cfg)[1:-1]] == expected
    with_own = effective_config(model_config([RESIZE]), BENCHMARK)
    fill_network_size(with_own, model)
    assert pipeline_of(with_own)[1] == RESIZE


@pytest.mark.parametrize(
    ('settings', 'shape', 'expected'),
    [
        (dict(size=(4, 6)), (10, 10), (4, 6)),
        (dict(multiples=(8, 8)), (12, 27), (16, 24)),  # 12 is half way, upwards; 27 is nearer to 24
        (dict(multiples=(8, 8)), (3, 8), (8, 8)),
        (dict(longer_side=64, multiples=(2, 2)), (4000, 6000), (42, 64)),
        (dict(longer_side=64), (8, 20), (25, 64)),
        (dict(longer_side=0), (8, 20), (8, 20)),
    ],
)
def test_network_resize(settings, shape, expected):
    image = np.full((*shape, 3), 7, np.uint8)
    results = NetworkResize(**settings)(dict(img=image, img_shape=shape, ori_shape=shape))
    assert results['img'].shape[:2] == results['img_shape'] == expected
    assert results['ori_shape'] == shape
    assert (results['img'] == 7).all()


def test_network_resize_takes_one_setting():
    for settings, message in (
        (dict(size=(4, 4), multiples=(2, 2)), 'either size, or longer_side and multiples'),
        (dict(size=(0, 4)), 'of at least 1, but got size=.0, 4.'),
        (dict(longer_side=-1), 'longer_side must be a whole number of pixels, or 0, but got -1'),
        (dict(longer_side=8, method='area'), "method must be one of .* but got 'area'"),
    ):
        with pytest.raises(ValueError, match=message):
            NetworkResize(**settings)
    with pytest.raises(ValueError, match='the size that the model asks for, which only the tools'):
        NetworkResize()(dict(img=np.zeros((4, 4, 3), np.uint8)))


@pytest.mark.parametrize(
    ('model', 'tasks'),
    [
        (dict(type='genseg_mm.GenMask'), ('referring',)),
        (dict(type='genseg_mm.Gen2Seg'), ('points', 'edges', 'instances')),
        (dict(type='genseg_mm.ControlMap', kind='rgb'), ('points', 'edges')),
        (dict(type='genseg_mm.ControlMap', kind='oracle'), ('points',)),
        (
            dict(type='mmseg.EncoderDecoder', decode_head=dict(type='genseg_mm.InstanceColoringHead')),
            ('points', 'edges'),
        ),
    ],
)
def test_tasks_by_type(model, tasks):
    assert tasks_of(dict(name='m', tasks=None), model) == tasks
    assert tasks_of(dict(name='m', tasks=('edges',)), model) == ('edges',)


def test_a_subclass_keeps_what_its_class_can_do():
    from genseg_mm.models import Gen2Seg

    class Mine(Gen2Seg):
        pass

    assert tasks_of(dict(name='m', tasks=None), dict(type=Mine)) == ('points', 'edges', 'instances')


def test_tasks_of_an_unknown_type_have_to_be_named():
    with pytest.raises(ValueError, match='m: what can a MaskRCNN do. name it with --tasks'):
        tasks_of(dict(name='m', tasks=None), dict(type='mmdet.MaskRCNN'))
