"""Control of point prompting: the raw image as colour map: what colour alone tells.

Command: ``python tools/benchmark.py configs/benchmarks/tiny.py control_rgb``
File: configs/benchmarks/control_rgb.py, in the suites tiny and gen2seg.
Hardware: one CPU core. It has no weights and is not trained.
Expected: shapes, seen 16.0 and unseen 15.2 mIoU (radius chosen on val).
"""

default_scope = 'genseg_mm'

model = dict(type='genseg_mm.ControlMap', kind='rgb')
test_dataloader = dict(batch_size=8, num_workers=2)
