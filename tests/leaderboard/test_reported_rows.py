"""Published numbers: spot values against the papers' tables, and that every line is whole."""

import pytest

from genseg_mm.leaderboard import reported
from genseg_mm.leaderboard.reported_rows import STATUSES, names, parse_rows

OIOU = 'oIoU over every sentence'
HEADER = 'method,column,value,protocol,status,source,note'


def value(table, method, column, protocol=None):
    """The one number of a method in a column."""
    found = [
        row.value
        for row in reported(table)
        if (row.method, row.column) == (method, column) and protocol in (None, row.protocol)
    ]
    assert len(found) == 1, found
    return found[0]


SPOTS = [
    ('refcoco', 'LAVT Swin-B', 'RefCOCO val', 72.73),
    ('refcoco', 'LAVT Swin-B', 'RefCOCOg test', 62.09),
    ('refcoco', 'ReLA', 'RefCOCO+ testB', 57.7),
    ('refcoco', 'LISA-7B (ft)', 'RefCOCO testA', 79.1),
    ('refcoco', 'GLaMM', 'RefCOCO+ testA', 78.7),
    ('refcoco', 'EVF-SAM (multitask)', 'RefCOCOg val', 78.2),
    ('refcoco', 'Sa2VA-26B', 'RefCOCO+ val', 78.8),
    ('refcoco', 'X-SAM (Phi-3)', 'RefCOCOg test', 83.9),
    ('refcoco', 'SARA-9B', 'RefCOCO testB', 80.2),
    ('refcoco', 'FlowSeg', 'RefCOCOg test', 86.1),
    ('refcoco', 'Vision Banana', 'RefCOCOg val', 73.8),
    ('refcoco', 'GenMask', 'RefCOCO testA', 83.3),
    ('refcoco', 'GenMask', 'RefCOCO+ testB', 68.1),
    ('refcoco', 'GenMask', 'RefCOCOg val', 75.6),
    ('reasonseg', 'LISA-7B', 'val gIoU', 44.4),
    ('reasonseg', 'LISA-7B (ft)', 'test cIoU', 48.4),
    ('reasonseg', 'LISA-13B-LLaVA1.5 (ft)', 'val cIoU', 72.9),
    ('reasonseg', 'EVF-SAM', 'test gIoU', 38.9),
    ('reasonseg', 'SAM 3 Agent (Gemini 2.5 Pro)', 'val gIoU', 77.0),
    ('reasonseg', 'UGround-13B (ft)', 'test cIoU', 65.5),
    ('reasonseg', 'Seg-Zero-7B', 'test gIoU', 57.5),
    ('reasonseg', 'GenMask', 'val cIoU', 50.9),
    ('reasonseg', 'GenMask', 'test cIoU', 45.8),
    ('points', 'SAM', 'EgoHOS', 56.4),
    ('points', 'SimpleClick', 'COCO-M', 0.6),
    ('points', 'DINO-B', 'DRAM', 29.4),
    ('points', 'gen2seg MAE-B', 'iShape', 31.1),
    ('points', 'gen2seg MAE-H', 'PIDRay', 24.1),
    ('points', 'gen2seg SD', 'COCO-L', 57.6),
    ('points', 'gen2seg SD, trained on only 10 classes', 'iShape', 53.6),
    ('points', 'gen2seg MAE-H, trained on ClevrTex', 'DRAM', 23.5),
    ('edges', 'gen2seg SD', 'BSDS500 AP', 93.4),
    ('edges', 'SAM', 'BSDS500 AP', 79.0),
    ('genmask_ablation', 'GenMask, a = 0.1', 'RefCOCO oIoU', 77.6),
    ('genmask_ablation', 'GenMask, a = 0.05, MSE on latents', 'RefCOCOg mIoU', 77.7),
]


@pytest.mark.parametrize(('table', 'method', 'column', 'expected'), SPOTS)
def test_spot_values(table, method, column, expected):
    assert value(table, method, column) == expected


def test_how_many_numbers_there_are():
    assert {name: len(reported(name)) for name in names()} == dict(
        edges=2, genmask_ablation=13, points=66, reasonseg=98, refcoco=193
    )


@pytest.mark.parametrize('name', ['edges', 'genmask_ablation', 'points', 'reasonseg', 'refcoco'])
def test_every_row_is_whole_and_there_once(name):
    rows = reported(name)
    assert len({(row.method, row.column, row.protocol) for row in rows}) == len(rows)
    for row in rows:
        assert 0 <= row.value <= 100 and float(row.text) == row.value
        assert row.status in STATUSES
        texts = (row.method, row.column, row.protocol, row.source)
        assert all(text and text == text.strip() for text in texts)


def test_numbers_that_are_often_mixed_up_stand_apart():
    cris = {row.protocol for row in reported('refcoco') if row.method == 'CRIS R101'}
    assert cris == {'mIoU over every sentence'}
    assert value('refcoco', 'PolyFormer-L', 'RefCOCO val', OIOU) == 75.96
    assert value('refcoco', 'PolyFormer-L', 'RefCOCO val', 'mIoU over every sentence') == 76.94
    assert value('refcoco', 'X-Decoder-T', 'RefCOCOg val', OIOU) == 60.03
    one = 'oIoU over one sentence per object (select_first)'
    assert value('refcoco', 'X-Decoder-T', 'RefCOCOg val', one) == 58.84
    ablation = [row for row in reported('points') if 'trained on' in row.method]
    assert len(ablation) == 30 and all('ablation' in row.protocol for row in ablation)
    unsure = {row.method for row in reported('refcoco') if row.status == 'unconfirmed'}
    assert unsure == {'Seg-Zero-7B', 'VisionReasoner-7B', 'SAM 3'}


def test_the_derived_numbers_follow_from_the_published_ones():
    derived = {row.column: row.value for row in reported('refcoco') if row.status == 'derived'}
    assert derived == {'RefCOCO val': 81.2, 'RefCOCO+ val': 73.7}
    method = 'GenMask, a = 0.05, MSE on latents'
    for name in ('RefCOCO', 'RefCOCO+'):
        others = [value('refcoco', 'GenMask', f'{name} test{part}') for part in 'AB']
        mean = value('genmask_ablation', method, f'{name} oIoU')
        assert derived[f'{name} val'] == pytest.approx(3 * mean - sum(others), abs=1e-6)
    means = [value('refcoco', 'GenMask', f'RefCOCOg {split}') for split in ('val', 'test')]
    assert sum(means) / 2 == pytest.approx(value('genmask_ablation', method, 'RefCOCOg oIoU'), abs=0.06)


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match="one of .*'points'.*, but got 'coco'"):
        reported('coco')


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        (['method,value'], 'expected the header method,column'),
        ([HEADER, 'A,c,1,p,reported,s'], 't.csv, line 2: expected 7 fields'),
        ([HEADER, 'A,c,1,p,reported,,'], 'line 2: source is empty'),
        ([HEADER, 'A,c,1,p,reported,s,', 'A,c,x,p,reported,s,'], r"line 3: .*\[0, 100\], but got 'x'"),
        ([HEADER, 'A,c,101,p,reported,s,'], "but got '101'"),
        ([HEADER, 'A,c,nan,p,reported,s,'], "but got 'nan'"),
        ([HEADER, 'A,c,1,p,rumour,s,'], "expected a status of .* but got 'rumour'"),
        ([HEADER, 'A,c,1,p,reported,s,', 'A,c,2,p,derived,s,'], 'line 3: .* is there twice'),
    ],
)
def test_bad_lines_are_named(lines, message):
    with pytest.raises(ValueError, match=message):
        parse_rows(lines, 't.csv')
