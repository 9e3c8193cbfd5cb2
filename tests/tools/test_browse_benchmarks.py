"""browse_dataset.py and verify_dataset.py on suites; boundaries, boxes and a metric's annotations drawn."""

import browse_dataset
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from genseg_mm.benchmarking.suite import is_suite, read_dataset_config
from genseg_mm.launch.dataset_parts import dataset_parts

SHAPES = """
_points = dict(type='genseg_mm.ShapesDataset', num_scenes=2, image_size=(32, 48), task='instance', split='test',
               test_mode=True, pipeline=[dict(type='model_resize'), dict(type='genseg_mm.PackGenSegInputs')])
own = dict(task='points', title='own', protocol='one point', dataset=_points,
           evaluator=dict(type='genseg_mm.PointPromptMetric', threshold='reference'))
two = dict(own, dataset=dict(type='mmengine.ConcatDataset', datasets=[_points, dict(_points, num_scenes=3)]))
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / 'shapes_benchmarks.py').write_text(SHAPES)
    path = tmp_path / 'suite.py'
    path.write_text(
        "_base_ = ['./shapes_benchmarks.py']\n"
        "suite = dict(name='mine', title='mine', make_data=None)\n"
        'benchmarks = dict(renamed=_base_.own, two=_base_.two)\n'
    )
    return path


def test_a_suite_gives_the_datasets_of_its_benchmarks_alone(suite, tmp_path):
    cfg = read_dataset_config(str(suite))
    assert is_suite(cfg) and not is_suite(Config.fromfile(tmp_path / 'shapes_benchmarks.py'))
    parts = dataset_parts(cfg)
    # The second's first part is the first; `own` and `two` of the base file are not listed again.
    assert [(own.name, own.same) for own in parts] == [('renamed', ['two 1/2']), ('two 2/2', [])]
    assert [len(own.build()) for own in parts] == [2, 3]
    assert [step['type'] for step in parts[0].cfg['pipeline']] == ['genseg_mm.PackGenSegInputs']
    assert [own.name for own in dataset_parts(cfg, benchmarks=['two'])] == ['two 1/2', 'two 2/2']
    base = read_dataset_config(str(tmp_path / 'shapes_benchmarks.py'))
    assert [own.name for own in dataset_parts(base, benchmarks=['own'])] == ['own']
    with pytest.raises(ValueError, match="suite.py has no benchmark 'own', but renamed, two"):
        dataset_parts(cfg, benchmarks=['own'])


def test_options_reach_a_suite_and_missing_data_are_told(suite):
    cfg = read_dataset_config(str(suite), {'benchmarks.renamed.dataset.num_scenes': 5})
    assert len(dataset_parts(cfg, benchmarks=['renamed'])[0].build()) == 5
    options = {'suite.make_data': 'tools/make.py', 'suite.data_root': 'nowhere/at/all'}
    with pytest.raises(FileNotFoundError, match='run python tools/make.py nowhere/at/all'):
        read_dataset_config(str(suite), options)


def test_the_tools_take_a_suite(suite, tmp_path, run_tool):
    options = ('--benchmark', 'renamed', '--out-dir', tmp_path / 'out', '--panel-size', 48)
    code, text, _ = run_tool('analysis_tools/browse_dataset.py', suite, *options)
    assert (code, text) == (0, f'renamed: 1 pictures: {tmp_path}/out/renamed_0001.png\n')
    # Two rows of 32 pixels; three panels of 48 and the gaps of 4 around them.
    with Image.open(tmp_path / 'out/renamed_0001.png') as picture:
        assert picture.width == 3 * 48 + 4 * 4
    code, _, errors = run_tool('analysis_tools/browse_dataset.py', suite, '--benchmark', 'none')
    assert code == 2 and "has no benchmark 'none', but renamed, two" in errors


def found(image, **own):
    empty = dict.fromkeys(('ids', 'labels', 'masks', 'boundaries'))
    return {**empty, 'img': image, 'meta': {}, **own}


def test_boundaries_of_two_annotators():
    image = np.full((4, 6, 3), 100, np.uint8)
    boundaries = np.zeros((2, 4, 6), np.uint8)
    boundaries[0, 1], boundaries[1, :, 2] = 1, 1
    row = browse_dataset.draw(found(image, boundaries=boundaries), panel_size=6)
    assert list(row) == ['image', 'ground truth', 'annotators']
    over, alone = row['ground truth'], row['annotators']
    assert over[1, 2].tolist() == [255, 0, 0]  # both
    assert over[1, 0].tolist() == over[0, 2].tolist() == [255, 115, 0]  # one of two
    assert over[0, 0].tolist() == [50, 50, 50]
    assert alone[[1, 1, 0, 0], [2, 0, 2, 0], 0].tolist() == [0, 127, 127, 255]
    # A line of one pixel is one pixel wide in a picture of half the size, and there.
    large = np.zeros((1, 8, 12), np.uint8)
    large[0, 5] = 1
    small = browse_dataset.draw(found(np.zeros((8, 12, 3), np.uint8), boundaries=large), 6)
    assert (small['annotators'][:, 0, 0] == 0).tolist() == [False, False, True, False]
    assert browse_dataset.caption(found(image, boundaries=boundaries), 3) == ('#3 · 4x6 · 2 annotators')


def test_boxes_of_an_image_that_was_resized():
    image = np.zeros((8, 8, 3), np.uint8)
    meta = dict(boxes=np.array([[2.0, 2.0, 8.0, 12.0]]), ori_shape=(16, 16))
    picture = browse_dataset.draw(found(image, meta=meta), 8)['image']
    drawn = picture.any(-1)
    # Half of it, right and bottom exclusive: columns 1 to 3, rows 1 to 5.
    assert np.argwhere(drawn).min(0).tolist() == [1, 1]
    assert np.argwhere(drawn).max(0).tolist() == [5, 3]
    assert drawn.sum() == 2 * 3 + 2 * 3
    assert picture[1, 1].tolist() == list(browse_dataset.pictures.color_of(0))


def test_annotations_that_an_item_carries_for_a_metric():
    square = [[1, 1, 3, 1, 3, 3, 1, 3]]
    instances = [dict(mask=square, ignore_flag=0), dict(mask=square, ignore_flag=1)]
    masks = browse_dataset._annotated(dict(instances=instances, ori_shape=(4, 5)))
    assert masks.shape == (1, 4, 5)
    assert np.argwhere(masks[0]).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert browse_dataset._annotated(dict(instances=instances[1:], ori_shape=(4, 5))).shape[0] == 0
    assert browse_dataset._annotated({}) is None
