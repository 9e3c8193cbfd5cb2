"""A strategy without a runner, and models for it whose values come from a released folder."""

import torch.distributed as dist
from tiny_dit import saved, tiny_backbone
from tiny_models import genmask_config

from genseg_mm.sharding import FSDP2Strategy


def strategy(folder, **arguments) -> FSDP2Strategy:
    return FSDP2Strategy(
        work_dir=str(folder),
        env_kwargs=dict(launcher='pytorch' if dist.is_initialized() else 'none', randomness=dict(seed=0)),
        **arguments,
    )


def released(folder, family='wan', **transformer) -> dict:
    """Config of a GenMask whose transformer is a released folder's, with a frozen encoder."""
    source = saved(tiny_backbone(family).transformer, folder)
    config = genmask_config(family)
    config['backbone'] = {**config['backbone'], 'transformer': {**source, **transformer}}
    return config
