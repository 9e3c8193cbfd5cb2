"""The notebook runs from its first cell to its last in two minutes of a CPU, and what it measures is looked at."""

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR = ROOT / 'docs/notebooks/tour.ipynb'


def test_outputs_are_not_kept():
    cells = json.loads(TOUR.read_text(encoding='utf-8'))['cells']
    code = [cell for cell in cells if cell['cell_type'] == 'code']
    assert len(code) >= 7 and all(not cell['outputs'] and cell['execution_count'] is None for cell in code)


@pytest.mark.slow
def test_the_tour_is_walked(tmp_path, monkeypatch):
    pytest.importorskip('nbclient', reason="pip install 'genseg_mm[docs]'")
    pytest.importorskip('ipykernel', reason="pip install 'genseg_mm[docs]'")
    import nbformat
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from nbclient import NotebookClient

    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    manager = AsyncKernelManager()  # this Python, whatever kernels the machine has installed
    command = [sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}']
    manager._kernel_spec = KernelSpec(argv=command, display_name='this Python', language='python')
    book = nbformat.read(TOUR, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell('import json; print(json.dumps([scores, float(mask.sum())]))'))
    client = NotebookClient(book, timeout=600, km=manager, resources={'metadata': {'path': str(tmp_path)}})
    client.execute()
    pictures = sum('image/png' in output.get('data', {}) for cell in book.cells for output in cell.get('outputs', []))
    assert pictures == 2
    scores, pixels = json.loads(book.cells[-1].outputs[0].text)
    assert pixels > 20
    assert scores['before'] > 20 and scores['after'] > scores['before'], scores
