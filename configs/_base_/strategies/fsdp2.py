# FSDP2: every rank holds a shard of parameters, gradients, optimizer states and frozen encoders; one block at a time is
# whole. Rank 0 reads released weights and hands out shards, so a machine's memory holds the model once. Checkpoints are
# folders that all ranks write (tools that take a .pth take them, too). Gradients are reduced in every micro-batch:
# otherwise each card holds those of the whole model in float32 until the last one of the update, 4 bytes per
# parameter, which 12 billion on cards of 80 GB leave no room for; smaller models are faster with False.
runner_type = 'genseg_mm.SafeFlexibleRunner'
strategy = dict(
    type='genseg_mm.FSDP2Strategy',
    checkpoint='sharded',
    reduce_each_micro_batch=True,
)
