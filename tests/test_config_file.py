"""Finding and reading configs by path, by name and from other packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from genseg_mm import command
from genseg_mm.config_file import find_config, read_config_file, shipped_configs

ROOT = Path(__file__).parents[1]


def test_names_are_those_of_the_checkout_else_of_the_installed_package(tmp_path, monkeypatch) -> None:
    own = ROOT / 'configs/genmask/refcoco.py'
    assert Path(find_config('refcoco')).samefile(own) and Path(find_config('genmask/refcoco.py')).samefile(own)
    assert Path(find_config(str(own))).samefile(own)
    package = tmp_path / 'site/genseg_mm'
    (package / '.mim/configs/a').mkdir(parents=True)
    (package / '.mim/configs/a/mine.py').write_text('x = 1\n')
    (package.parent / 'configs').mkdir()  # of somebody else's package, which must not be taken for ours
    monkeypatch.setattr(command, '_PACKAGE', package)
    shipped_configs.cache_clear()
    try:
        assert read_config_file('mine').x == 1
        with pytest.raises(FileNotFoundError, match='config refcoco does not exist$'):
            find_config('refcoco')
        with pytest.raises(FileNotFoundError, match=r'config a/min\.py does not exist; did you mean a/mine'):
            find_config('a/min.py')
    finally:
        shipped_configs.cache_clear()


def test_configs_of_other_packages_in_a_fresh_process(tmp_path) -> None:
    bases = {
        'mmseg::_base_/models/upernet_r50.py': 'cfg.model.type == "EncoderDecoder"',
        'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': 'cfg.train_cfg.max_iters == 160000',
        'mmdet::_base_/models/mask-rcnn_r50_fpn.py': 'cfg.model.type == "MaskRCNN"',
    }
    lines = ['import genseg_mm', 'from mmengine.config import Config']
    for number, (base, truth) in enumerate(bases.items()):
        (tmp_path / f'{number}.py').write_text(f'_base_ = {base!r}\n')
        lines += [f'cfg = Config.fromfile({str(tmp_path / f"{number}.py")!r})', f'assert {truth}']
    subprocess.run([sys.executable, '-c', '\n'.join(lines)], check=True, env={'PYTHONPATH': str(ROOT)})
