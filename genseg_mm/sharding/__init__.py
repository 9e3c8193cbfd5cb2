"""Models over several cards: FSDP2, its checkpoints."""

from genseg_mm.sharding.fsdp2_strategy import FSDP2Strategy

__all__ = ['FSDP2Strategy']
