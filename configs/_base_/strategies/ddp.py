# DDP, as without any of these files: every rank holds the whole model. For a leaf of a sharded config.
runner_type = 'genseg_mm.SafeRunner'
strategy = None
