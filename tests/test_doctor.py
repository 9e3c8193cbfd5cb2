"""``genseg doctor``: what is there is found, and what is missing is named with what to type."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from genseg_mm import doctor
from genseg_mm.config_file import find_config
from genseg_mm.doctor import DATA, MISSING, NOTE, OK

ROOT = Path(__file__).parents[1]
BLOCKED = """
import sys
from importlib import metadata
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {blocked!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Missing())
from genseg_mm.doctor import OPENMMLAB

def version(name, known=metadata.version):
    if any(name in names for module, (names, _) in OPENMMLAB.items() if module in {blocked!r}):
        raise metadata.PackageNotFoundError(name)
    return known(name)

metadata.version = version
from genseg_mm.command import main
main({words!r})
"""


def run(blocked: tuple[str, ...], words: list[str]) -> subprocess.CompletedProcess:
    code = BLOCKED.format(blocked=blocked, words=words)
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


def test_the_core_works_here():
    result = run((), ['doctor', '--json'])
    facts = json.loads(result.stdout)
    found = {own['name']: own for own in facts['findings']}
    assert (result.returncode, facts['works']) == (0, True), result.stdout
    assert found['mmcv']['found'].startswith('onedl-mmcv ') and found['mmcv']['found'].endswith('(OneDL)')
    assert found['prediction']['state'] == OK and 'mIoU 9' in found['prediction']['found']
    assert not any(own['state'] == MISSING for own in facts['findings'] if own['core'])


def test_without_mmengine_the_command_still_says_what_is_missing():
    assert run(('mmengine',), []).stdout.startswith('usage: genseg COMMAND')
    result = run(('mmengine', 'mmcv', 'mmseg', 'mmdet'), ['doctor'])
    assert result.returncode == 1 and result.stderr == ''
    lines = result.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith(' ! mmengine'))
    assert 'everything needs it' in lines[place] and 'pip install onedl-mmengine' in lines[place + 1]
    assert lines[-1] == 'the core does not work: see the lines with !'
    assert 'prediction' not in result.stdout
    tool = run(('mmengine',), ['train', 'gen2seg_unet_shapes_tiny'])
    assert tool.returncode == 2 and 'the package mmengine is not installed' in tool.stderr


def test_a_package_of_a_wrong_version(monkeypatch):
    monkeypatch.setattr(doctor, '_version', lambda names: '0.1')
    own = doctor._package('scipy', {'scipy': '>=1.15'})
    assert (own.state, own.found, own.core) == (MISSING, '0.1, but >=1.15 is needed', True)
    assert own.remedy == "pip install 'scipy>=1.15' --upgrade"


def test_what_the_package_asks_for_is_read_from_its_installation():
    wishes = doctor.requirements()
    assert wishes['torch'] == '>=2.6' and 'onedl-mmcv' not in wishes
    names = {doctor._DISTRIBUTIONS.get(name, name).lower() for name in doctor.NEEDED}
    assert names | {'jinja2'} == set(wishes)


def test_optional_packages_are_those_of_their_extras(monkeypatch):
    setup = runpy.run_path(str(ROOT / 'setup.py'), run_name='requirements')
    for module, (_, extra) in doctor.OPTIONAL.items():
        assert doctor._DISTRIBUTIONS.get(module, module) in {
            re.match(r'[\w-]+', line)[0] for line in setup['EXTRAS'][extra]
        }
    monkeypatch.setattr(doctor, '_version', lambda names: None)
    found = {own.name: own for own in doctor.optional()}
    assert (found['gradio'].state, found['gradio'].remedy) == (NOTE, "pip install 'genseg_mm[app]'")
    assert found['peft'].remedy == 'pip install peft'


def test_cards_are_named_with_what_they_compute_in():
    def torch_of(*cards: tuple[str, int], cuda: str | None = '13.0') -> SimpleNamespace:
        facts = [SimpleNamespace(name=name, major=major, minor=0, total_memory=80 * 2**30) for name, major in cards]
        device = SimpleNamespace(
            is_available=lambda: bool(cards), device_count=lambda: len(cards), get_device_properties=facts.__getitem__
        )
        mps = SimpleNamespace(is_available=lambda: False)
        return SimpleNamespace(cuda=device, version=SimpleNamespace(cuda=cuda), backends=SimpleNamespace(mps=mps))

    new, old, check = doctor._cards(torch_of(('H200', 9), ('V100', 7)))
    assert new.found == 'H200, 80 GiB, compute 9.0, bfloat16, CUDA 13.0'
    assert old.found == 'V100, 80 GiB, compute 7.0, no bfloat16, CUDA 13.0'
    assert (
        check.remedy == 'genseg analysis_tools/gpu_check.py' and (ROOT / 'tools/analysis_tools/gpu_check.py').is_file()
    )
    (none,) = doctor._cards(torch_of())
    assert (none.state, none.core, none.remedy) == (NOTE, False, '') and 'CUDA 13.0' in none.found
    (none,) = doctor._cards(torch_of(cuda=None))
    assert 'no CUDA' in none.found and 'install torch with CUDA' in none.remedy


def test_data_sets_are_found_where_configs_look(tmp_path, monkeypatch):
    def found() -> dict:
        return {own.name: own for own in doctor.data()}

    monkeypatch.setenv('GENSEG_DATA', str(tmp_path / 'data'))
    assert list(found()) == ['data root', 'not there'] and found()['not there'].found == ', '.join(DATA)
    for name, place in (
        ('benchmarks', ''), ('hypersim', 'hypersim'), ('virtual_kitti2', 'vkitti2'), ('clevrtex', 'clevrtex'),
    ):  # fmt: skip
        maker = runpy.run_path(str(ROOT / f'tools/dataset_tools/make_tiny_{name}.py'))
        maker[f'make_tiny_{name}'](tmp_path / 'data' / place)
    own = found()
    lacking = {name: one.found for name, one in own.items() if one.state != OK}
    assert lacking == {'Hypersim': 'lacks hypersim/index.csv'}
    assert own['RefCOCO'].remedy == 'genseg verify _base_/datasets/refcoco'
    shutil.rmtree(tmp_path / 'data/coco/refcoco+')
    shutil.rmtree(tmp_path / 'data/pidray')
    own = found()
    assert own['not there'].found == 'RefCOCO+, PIDRay' and own['not there'].state == NOTE
    (tmp_path / 'data/coco/refcoco/refs(unc).p').unlink()
    own = found()
    assert (own['RefCOCO'].state, own['RefCOCO'].found) == (MISSING, 'lacks coco/refcoco/refs(unc).p')
    assert own['RefCOCO'].remedy.endswith('configs/_base_/datasets/refcoco.py')


@pytest.mark.parametrize('config', sorted({config for _, config in DATA.values()}))
def test_the_configs_of_data_sets_exist(config):
    assert Path(find_config(config)).is_file()


def test_a_damaged_file_of_weights_is_named(tmp_path, monkeypatch):
    folder = tmp_path / 'genseg_mm'
    (folder / 'weights').mkdir(parents=True)
    whole = (ROOT / 'genseg_mm/weights/patch_codec_shapes.safetensors').read_bytes()
    (folder / 'weights/whole.safetensors').write_bytes(whole)
    (folder / 'weights/cut.safetensors').write_bytes(whole[:-10])
    monkeypatch.setattr(doctor.genseg_mm, '__file__', str(folder / '__init__.py'))
    bad, good = doctor.weights()
    assert (bad.name, bad.state, bad.core) == ('cut.safetensors', MISSING, True)
    assert 'cut.safetensors' in bad.found and good.state == OK
