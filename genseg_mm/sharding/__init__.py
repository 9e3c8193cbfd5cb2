"""Models over several cards: FSDP2, its checkpoints."""
