"""Control of point prompting: disks around the prompt cut by the true foreground: perfect foreground, no grouping.

Command: ``python tools/benchmark.py configs/benchmarks/tiny.py control_oracle``
File: configs/benchmarks/control_oracle.py, in the suites tiny and gen2seg.
Hardware: one CPU core. It has no weights and is not trained.
Expected: shapes, seen 54.2 and unseen 52.5 mIoU (radius chosen on val). A score below it has not shown grouping.
"""

default_scope = 'genseg_mm'

model = dict(type='genseg_mm.ControlMap', kind='oracle')
test_dataloader = dict(batch_size=8, num_workers=2)
