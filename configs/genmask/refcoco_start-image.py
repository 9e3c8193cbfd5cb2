"""The path of masks starts from the image's latents in place of noise: rectified flow from image to mask.

Ours beside arXiv 2603.23906: the path of FlowRVS (arXiv 2510.06139), with its law (half of the masks at sigma 1, the
others uniform) and its image condition; RLFSeg (arXiv 2605.04590) is the same without, ``model.image_condition=False``.
On the tiny twin GenMask's own law is ahead of FlowRVS's (README).
Command: ``tools/dist_train.sh configs/genmask/refcoco_start-image.py 8``
Hardware: 8 GPUs of 80 GB; hours not measured. Expected number: not reproduced yet.
"""

_base_ = ['./refcoco.py']

model = dict(
    start='image',
    mask_head=dict(timesteps=dict(mask=dict(_delete_=True, type='genseg_mm.UniformTimesteps', high_prob=0.5))),
)
