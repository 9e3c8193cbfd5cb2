# FSDP2: every rank holds a shard of parameters, gradients and optimizer states, and frozen encoders; whole is one block
# at a time. Rank 0 reads released weights and hands out shards, so a machine's memory holds the model once.
runner_type = 'genseg_mm.SafeFlexibleRunner'
strategy = dict(type='genseg_mm.FSDP2Strategy')
