"""GenMask on procedural scenes with a tiny Flux Kontext: the image as extra tokens, guidance as an input.

Command: ``python tools/train.py configs/genmask/genmask_flux-kontext_shapes_tiny.py``
Hardware: 2 CPU cores; longer than genmask_sana_shapes_tiny, whose family learns fastest on a CPU.
Expected: a tested path; no number is claimed.
"""

_base_ = ['./genmask_flux_shapes_tiny.py']

model = dict(backbone=dict(family='flux_kontext', transformer=dict(guidance_embeds=True)))
