"""GenMask on procedural scenes with a tiny Wan, sharded over processes (FSDP2): twin of the large models' configs.

Command: ``tools/dist_train.sh configs/genmask/genmask_wan_shapes_fsdp2_tiny.py 2``
Hardware: 2 CPU cores, gloo.
Expected: the losses of ``genmask_wan_shapes_tiny.py`` in two processes; no number is claimed.
"""

_base_ = ['./genmask_wan_shapes_tiny.py', '../_base_/strategies/fsdp2.py']
