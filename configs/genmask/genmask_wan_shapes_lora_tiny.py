"""GenMask on procedural scenes with adapters (LoRA) of a tiny Wan: twin of the large models' ``*_lora.py``.

Command: ``python tools/train.py configs/genmask/genmask_wan_shapes_lora_tiny.py``
Hardware: 2 CPU cores.
Expected: a tested path; no number is claimed. What is frozen is random here, so that adapters of attention alone, as
of a released model, would have nothing to say: those of the other layers are trained, too.
"""

_base_ = ['./genmask_wan_shapes_tiny.py']

model = dict(
    backbone=dict(
        lora=dict(
            r=8,
            target_modules=['to_q', 'to_k', 'to_v', 'to_out.0', 'net.0.proj', 'net.2', 'proj_out'],
        )
    )
)
optim_wrapper = dict(
    _delete_=True,
    type='genseg_mm.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
custom_hooks = [dict(type='genseg_mm.ParameterEMAHook', decay=0.99)]
