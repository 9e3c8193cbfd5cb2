"""tools/benchmark_speed.py: ratios, the gate on them, fitted exponents, and one run of it."""

import ast
import json
import pickle
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from speed import rows
from speed.curves import CURVES, exponent
from speed.kept_memory import KINDS
from speed.measuring import OURS, Found, Row, cpu_seconds, markdown, measure, read_old, regressions, timed
from speed.rows import ROWS

TOOLS = Path(__file__).parents[2] / 'tools'
OPTIONS = SimpleNamespace(repeat=3, on='cpu', no_compile=True, peers={})


@pytest.fixture
def run(run_tool):
    return partial(run_tool, 'benchmark_speed.py')


def test_ratios_are_medians_of_interleaved_rounds():
    """Calls that give their own seconds: ours 2, 4, 6 beside a peer of 1, 1, 2 in the rounds after the first."""
    seconds = dict(ours=iter([9.0, 2.0, 4.0, 6.0]), peer=iter([9.0, 1.0, 1.0, 2.0]))
    order = []

    def call(name):
        order.append(name)
        return next(seconds[name])

    row = Row('row', 'a row', lambda _: {name: partial(call, name) for name in seconds})
    found = measure(row, OPTIONS, lambda: order.append('yard') or 0.5)
    assert found.seconds == dict(ours=4.0, peer=1.0)
    assert found.yards == dict(ours=8.0, peer=2.0)
    assert found.over == dict(peer=3.0)  # of 2, 4, 3
    assert order[:6] == ['yard', 'ours', 'yard', 'peer', 'yard', 'ours']
    calls = dict(ours=partial(next, iter([9.0, 8.0])), peer=partial(next, iter([4.0])))
    one = Row('row', 'one round', lambda _: calls, rounds=1)
    assert measure(one, OPTIONS, lambda: 0.5).over == dict(peer=2.0)  # the peer is not run twice
    assert '| `row` | a row | 4 | 8 | 3 x peer (1 s) |' in markdown(dict(row=found))


def test_short_calls_are_repeated_and_cpu_seconds_are_counted():
    counts = []
    measure(Row('row', 'short', lambda _: dict(ours=lambda: counts.append(0)), rounds=1), OPTIONS, lambda: 1.0)
    assert len(counts) > 1000
    assert timed(lambda: sum(range(3_000_000))) > 0.005
    assert timed(lambda: __import__('time').sleep(0.2)) < 0.1
    assert cpu_seconds() > 0


def found(ours, peer=None):
    return Found('a row', {OURS: 1.0}, {OURS: ours}, {} if peer is None else dict(peer=peer))


def test_the_gate_names_each_slower_row():
    old = dict(same=vars(found(10)), slower=vars(found(10)), peer=vars(found(10, 0.5)), worse=vars(found(10, 0.5)))
    new = dict(same=found(12.9), slower=found(13.1), peer=found(99, 0.6), worse=found(10, 0.7), other=found(1))
    assert regressions(old, new, 0.3) == [
        'slower: 13.1 yardsticks, was 10 (+31%, allowed +30%)',
        'worse: 0.7 times peer, was 0.5 (+40%, allowed +30%)',
    ]


def test_an_old_file_is_checked(tmp_path):
    file = tmp_path / 'old.json'
    for content in ('[]', '{"rows": {"a": {"over": {}}}}', '{"rows": {"a": {"over": {}, "yards": {"ours": "x"}}}}'):
        file.write_text(content)
        with pytest.raises(ValueError, match=r'old\.json: .*expected'):
            read_old(str(file), ['a'])
    file.write_text(json.dumps(dict(rows=dict(a=vars(found(1))))))
    with pytest.raises(ValueError, match='expected some of the rows that are measured, but got a'):
        read_old(str(file), ['b'])
    assert list(read_old(str(file), ['a', 'b'])) == ['a']


def test_exponents():
    sizes = [10, 100, 1000, 10_000]
    assert exponent(sizes, [7.0, *(3e-6 * size**1.7 for size in sizes[1:])]) == pytest.approx(1.7)
    assert len({curve.name for curve in CURVES}) == len(CURVES)
    assert all(list(curve.sizes) == sorted(curve.sizes) for curve in CURVES)


def test_a_run_its_files_and_its_gate(run, tmp_path):
    out = tmp_path / 'speed'
    code, said, _ = run('loss_10', '--no-compile', '--repeat', 1, '--out', out)
    assert code == 0, said
    content = json.loads((tmp_path / 'speed.json').read_text())
    row = content['rows']['loss_10']
    assert row['over']['plain'] < 0.5  # tens of times faster than the loop
    assert row['seconds'][OURS] < row['seconds']['plain'] and content['machine']['threads'] == 1
    assert '`loss_10`' in (tmp_path / 'speed.md').read_text()
    row['over']['plain'] /= 100
    (tmp_path / 'speed.json').write_text(json.dumps(content))
    code, said, _ = run('loss_10', '--no-compile', '--repeat', 1, '--check', f'{out}.json')
    assert code == 1 and '\nloss_10: ' in said and 'times plain, was' in said


def test_wrong_words(run, tmp_path):
    assert len({row.name for row in ROWS}) == len(ROWS)
    for words, message in (
        (['loss_11'], "unknown row 'loss_11'; there are loss_10, "),
        (['--peer', 'other=.'], "--peer: expected NAME=FOLDER with a name of gen2seg, but got 'other=.'"),
        (['--peer', f'gen2seg={tmp_path}/no'], 'no is no folder'),
        (['--largest', '0'], 'expected --tolerance above 0 and --largest in (0, 1], but got 0.3, 0.0'),
    ):
        code, _, errors = run(*words)
        assert code == 2 and message in errors, errors
    code, said, _ = run('--list')
    assert code == 0 and said.count('\n') == len(ROWS)


QUICK = ('bf16_mae', 'training_step', 'automatic_480x640', 'refcoco_loader', 'hypersim_loader')


@pytest.mark.slow
@pytest.mark.parametrize('name', [row.name for row in ROWS if row.name in QUICK])
def test_rows_run(name):
    row = next(own for own in ROWS if own.name == name)
    assert measure(row, SimpleNamespace(**vars(OPTIONS) | dict(repeat=1)), lambda: None).seconds[OURS] > 0


def test_rows_need_no_more_than_their_own_folder():
    """As the tool finds them, from tools/ alone; the tests' path has the folders below, too."""
    for path in sorted(Path(rows.__file__).parent.glob('*.py')):
        names = [own for own in ast.walk(ast.parse(path.read_text())) if isinstance(own, ast.ImportFrom)]
        for own in names:
            if own.module.startswith(('analysis_tools.', 'dataset_tools.')):
                tree = ast.parse((TOOLS / f'{own.module.replace(".", "/")}.py').read_text())
                found = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
                assert not [name for name in found if (TOOLS / 'analysis_tools' / f'{name}.py').is_file()], own.module


@pytest.mark.parametrize(
    ('name', 'most'), [('sentences', 300), ('points', 500), ('edges', 800), ('instances', 1500)], ids=list(KINDS)
)
def test_metrics_keep_little_of_an_item(name: str, most: int):
    """Bytes of an item as they are sent to the process that computes: no map, no mask of all pixels, no wide counts."""
    metric, stream = KINDS[name](60)
    sizes = []
    for number, (data_batch, sample) in enumerate(stream, 1):
        metric.process(data_batch, [sample])
        if number in (20, 60):
            sizes.append(len(pickle.dumps(metric.results)))
    each = (sizes[1] - sizes[0]) / 40
    assert 0 < each < most
