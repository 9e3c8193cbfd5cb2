"""GenMask on RefCOCO with adapters (LoRA, rank 16) of FLUX.2 klein 4B: one card.

Ours: the paper trains all weights. Those of the released model are frozen in bfloat16, adapters are float32.
Command: ``python tools/train.py configs/genmask/refcoco_flux2-klein_lora.py``
Hardware: see the memory table of configs/genmask/README.md. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco_flux2-klein.py']

# A card holds the frozen weights: nothing is sharded.
runner_type = 'genseg_mm.SafeRunner'
strategy = None
model = dict(backbone=dict(transformer=dict(torch_dtype='bfloat16'), lora=dict(r=16, lora_alpha=16)))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
