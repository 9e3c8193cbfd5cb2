"""Metrics and visualisers of mmseg and mmdet on our models, through the runner, as their users expect."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from genseg_mm.datasets import ShapesDataset
from genseg_mm.datasets.segmentations import instances_of_map
from genseg_mm.launch import build_runner

ROOT = Path(__file__).parents[1]
LONG = dict(
    gen2seg=('gen2seg/gen2seg_unet_shapes_long_tiny.py', 'gen2seg_unet_shapes.safetensors'),
    genmask=('genmask/genmask_sana_shapes_long_tiny.py', 'genmask_sana_shapes.safetensors'),
)
COCO, IOU = dict(type='mmdet.CocoMetric', metric='segm'), dict(type='mmseg.IoUMetric')


def runner(paper: str, work_dir: Path, evaluator: list, **changes):
    """The runner of a shipped model."""
    config, weights = LONG[paper]
    cfg = Config.fromfile(ROOT / 'configs' / config)
    cfg.update(work_dir=str(work_dir), launcher='none', log_level='WARNING', test_evaluator=evaluator)
    cfg.load_from = str(ROOT / 'genseg_mm/weights' / weights)
    cfg.experiment_name = f'{paper}_{work_dir.name}'
    dataset = cfg.test_dataloader.dataset
    dataset = dataset.datasets[1] if 'datasets' in dataset else dataset
    cfg.test_dataloader.dataset = dict(dataset, num_scenes=4, max_items=16)
    cfg.test_dataloader.batch_size = 8
    cfg.merge_from_dict(changes)
    return build_runner(cfg)


CONFIGS = ROOT / 'configs'
WITHOUT_OPERATORS = """
import sys
sys.modules['mmcv._ext'] = None
from genseg_mm.config_file import read_config_file
from genseg_mm.launch.command_line import user_message
from mmengine.registry import DATASETS
cfg = read_config_file('gen2seg_unet_shapes_tiny').train_dataloader.dataset
print(DATASETS.build(cfg)[0]['inputs'].shape)
try:
    import mmcv.ops
except ModuleNotFoundError as error:
    print(user_message(error))
"""


def test_trainings_need_no_compiled_operators_but_for_models_of_mmseg():
    """mmcv without them (mmcv-lite, or built by pip in isolation) is enough, and what asks for them is told.

    Upstream's mmseg needs them for its transforms already, OneDL's for models alone.
    """
    named = {path.stem: re.findall(r"type='(mm(?:seg|det)\.\w+)", path.read_text()) for path in CONFIGS.rglob('*.py')}
    parts = ['mmseg.EncoderDecoder', 'mmseg.SegDataPreProcessor', 'mmseg.VisionTransformer']
    assert {name: found for name, found in named.items() if found} == {
        'gen2seg_vit-b': parts,
        'gen2seg_vit_shapes_tiny': parts,
    }
    done = subprocess.run([sys.executable, '-c', WITHOUT_OPERATORS], capture_output=True, text=True)
    shape, *_, message = done.stdout.strip().splitlines()
    assert shape == 'torch.Size([3, 64, 64])', done.stderr
    assert message.startswith('mmcv is installed without its compiled operators') and 'setup_env.sh' in message


@pytest.mark.slow
def test_metrics_of_both_on_gen2seg(tmp_path):
    metrics = runner('gen2seg', tmp_path, [COCO, IOU]).test()
    # One mask per point: nearly every object is found, and hardly anything else.
    assert 0.3 < metrics['coco/segm_mAP'] < 0.95
    assert metrics['coco/segm_mAP_50'] > 0.6
    assert 80 < metrics['mIoU'] <= 100


@pytest.mark.slow
def test_iou_metric_on_genmask(tmp_path):
    metrics = runner('genmask', tmp_path, [IOU]).test()
    assert 85 < metrics['mIoU'] < 100  # mean of the expressions' objects and their backgrounds


@pytest.fixture(scope='module')
def coco_folder(tmp_path_factory) -> Path:
    """Textured scenes as files, with COCO's annotations in two categories."""
    root = tmp_path_factory.mktemp('coco')
    (root / 'images').mkdir()
    scenes = ShapesDataset(num_scenes=4, task='instance', split='test', test_mode=True)
    images, annotations = [], []
    for number in range(4):
        scene = scenes.get_data_info(number)
        Image.fromarray(scene['img'][..., ::-1]).save(root / f'images/{number}.png')
        images.append(dict(id=number, file_name=f'{number}.png', height=64, width=64))
        for one in instances_of_map(scene['gt_instance_map']):
            x0, y0, x1, y1 = one['bbox']
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=1 + len(annotations) % 2,
                    bbox=[x0, y0, x1 - x0, y1 - y0],
                    area=int((x1 - x0) * (y1 - y0)),
                    iscrowd=0,
                    segmentation=one['mask'],
                )
            )
    categories = [dict(id=1, name='cup'), dict(id=2, name='plate')]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'instances.json').write_text(json.dumps(content))
    return root


def on_files(root: Path, *transforms: dict) -> dict:
    """Changes of a config that evaluate the files of ``coco_folder``."""
    pipeline = [dict(type='genseg_mm.LoadImage'), *transforms, dict(type='genseg_mm.PackGenSegInputs')]
    dataset = dict(
        type='genseg_mm.CocoInstanceDataset',
        data_root=str(root),
        ann_file='instances.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=pipeline,
    )
    sampler = dict(type='mmengine.DefaultSampler', shuffle=False)
    return dict(test_dataloader=dict(_delete_=True, batch_size=2, dataset=dataset, sampler=sampler))


def drawn(work_dir: Path) -> np.ndarray:
    """Pictures of the local backend, (N, H, W, 3)."""
    paths = sorted(work_dir.rglob('vis_data/vis_image/*.png'))
    return np.stack([np.asarray(Image.open(path).convert('RGB')).astype(int) for path in paths])


@pytest.mark.slow
def test_visualizer_and_metric_of_mmdet_on_automatic_instances(tmp_path, coco_folder):
    metrics = runner(
        'gen2seg',
        tmp_path,
        [COCO],
        **on_files(coco_folder, dict(type='genseg_mm.LoadInstanceMap')),
        **{'model.automatic': True},
        visualizer=dict(
            _delete_=True, type='mmdet.DetLocalVisualizer', vis_backends=[dict(type='mmengine.LocalVisBackend')]
        ),
        **{
            'default_hooks.visualization': dict(
                _delete_=True, type='mmdet.DetVisualizationHook', draw=True, score_thr=0.0
            )
        },
    ).test()
    assert metrics['coco/segm_mAP_50'] > 0.3
    pictures = drawn(tmp_path)
    assert len(pictures) == 4
    # Ground truth on the left, prediction on the right: both are drawn over the picture.
    plain = np.asarray(Image.open(coco_folder / 'images/0.png')).astype(int)
    for half in np.split(pictures[0], 2, axis=1):
        assert np.abs(half - plain).mean() > 2


@pytest.mark.slow
def test_visualizer_and_metric_of_mmseg_on_the_same_instances(tmp_path, coco_folder):
    transforms = [dict(type='genseg_mm.LoadInstanceMap'), dict(type='genseg_mm.PointPrompt')]
    metrics = runner(
        'gen2seg',
        tmp_path,
        [IOU, dict(type='genseg_mm.PointPromptMetric', prefix='points')],  # both call theirs mIoU
        **on_files(coco_folder, *transforms),
        visualizer=dict(
            _delete_=True,
            type='mmseg.SegLocalVisualizer',
            alpha=0.5,
            vis_backends=[dict(type='mmengine.LocalVisBackend')],
        ),
        **{'default_hooks.visualization': dict(_delete_=True, type='mmseg.SegVisualizationHook', draw=True)},
    ).test()
    assert metrics['mIoU'] > 80 and metrics['points/num_prompts'] > 8
    pictures = drawn(tmp_path)
    truth, predicted = np.split(pictures, 2, axis=2)
    # Objects are tinted with the colour of class 1, the background with that of class 0.
    reddish = [(half[..., 0] - half[..., 2]) > 0 for half in (truth, predicted)]
    both = (reddish[0] & reddish[1]).sum() / (reddish[0] | reddish[1]).sum()
    assert both > 0.7


@pytest.mark.parametrize(
    ('evaluator', 'changes', 'message'),
    [
        (
            dict(type='genseg_mm.PointPromptMetric', threshold='calibrate'),
            {},
            r"test_evaluator: .* needs a part of the evaluation set with subset='val', but got the subsets \[''\]",
        ),
        (
            dict(COCO, ann_file='{root}/instances.json'),
            {},
            r"looks for the classes \('background', 'object'\) of the dataset, but the file has cup, plate; leave",
        ),
        (
            IOU,
            dict(metainfo=dict(classes=('object',))),
            r"IoUMetric needs the names of at least two classes, .* but got \('object',\)",
        ),
    ],
    ids=['calibration', 'categories', 'classes'],
)  # fmt: skip
def test_metrics_that_do_not_fit_the_data_are_refused_before_anything_runs(
    tmp_path, coco_folder, evaluator, changes, message
):
    evaluator = json.loads(json.dumps(evaluator).replace('{root}', str(coco_folder)))
    settings = on_files(coco_folder, dict(type='genseg_mm.LoadInstanceMap'))
    settings['test_dataloader']['dataset'].update(changes)
    own = runner('gen2seg', tmp_path, [evaluator], **settings)
    with pytest.raises(ValueError, match=message):
        own.test_loop  # noqa: B018  (builds it)
