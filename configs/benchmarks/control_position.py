"""Control of point prompting: a fixed map of position, whose masks are disks around the prompt.

Command: ``python tools/benchmark.py configs/benchmarks/tiny.py control_position``
File: configs/benchmarks/control_position.py, in the suites tiny and gen2seg.
Hardware: one CPU core. It has no weights and is not trained.
Expected: shapes, seen 31.6 and unseen 28.7 mIoU (radius chosen on val).
"""

default_scope = 'genseg_mm'

model = dict(type='genseg_mm.ControlMap', kind='position')
test_dataloader = dict(batch_size=8, num_workers=2)
