"""models.py lists what the metafiles have, and ends quietly where its reader leaves."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ENTRIES = [
    own
    for path in sorted(ROOT.glob('configs/*/metafile.yaml'))
    for own in yaml.safe_load(path.read_text(encoding='utf-8'))['Models']
]


def test_every_model_is_listed_with_its_weights_and_numbers(run_tool):
    code, printed, errors = run_tool('models.py', '--json')
    assert code == 0, errors
    listed = {own['name']: own for own in json.loads(printed)}
    assert listed.keys() == {own['Name'] for own in ENTRIES}
    for own in ENTRIES:
        found = listed[own['Name']]
        assert found['weights'] == own['Weights'] and len(found['measured']) == len(own.get('Results') or ())
        assert Path(found['config']).is_file() and found['what'].endswith('.')
    trained = [bool(own['weights']) for own in listed.values()]
    assert trained == sorted(trained, reverse=True)
    code, printed, _ = run_tool('models.py', 'genmask', 'objects', '--weights')
    assert 'to train' not in printed and 'genmask_sana_objects_long_tiny (GenMask)' in printed
    assert 'gen2seg' not in printed and 'oIoU' in printed


def test_a_word_that_no_name_has(run_tool):
    code, _, errors = run_tool('models.py', 'sd2', 'xyz')
    assert (code, errors.strip()) == (
        2,
        f"error: no model has 'sd2' and 'xyz' in its name: there are {len(ENTRIES)} names",
    )


def test_a_reader_that_leaves_is_no_error():
    tool = [sys.executable, str(ROOT / 'tools/models.py'), '--json']
    with subprocess.Popen(tool, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b''
    assert process.returncode == 141
