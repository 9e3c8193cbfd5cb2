# FSDP2 whose shards and optimizer states wait in the memory of the host: a model that does not fit on the cards there
# are, at the cost of time. The optimizer steps on the CPU.
runner_type = 'genseg_mm.SafeFlexibleRunner'
strategy = dict(
    type='genseg_mm.FSDP2Strategy',
    offload=True,
    checkpoint='sharded',
    reduce_each_micro_batch=True,
)
