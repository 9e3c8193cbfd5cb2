"""Runtime of all configs: iteration-based, a log line every 50 iterations, safe checkpoints.

TensorBoard (pip install tensorboard):
--cfg-options visualizer.vis_backends="[{'type':'TensorboardVisBackend'}]"
"""

default_scope = 'genseg_mm'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    finite_loss=dict(type='genseg_mm.FiniteLossHook'),
    checkpoint=dict(
        type='genseg_mm.SafeCheckpointHook', by_epoch=False, interval=1000, max_keep_ckpts=2
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='genseg_mm.PredictionGridHook', num_images=8),
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # tools/train.py takes gloo where there is no GPU
)

visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(type='genseg_mm.TaskLogProcessor', by_epoch=False, window_size=20)
log_level = 'INFO'

# Precision of validation, test, benchmarks and inferencer: None is that of the training (optim_wrapper); 'float32',
# 'bfloat16' or 'float16' says otherwise.
evaluation_dtype = None
# Of frozen autoencoders in tests, benchmarks and inferencer: None is that they were loaded in.
evaluation_codec_dtype = None
# Of tests, benchmarks and inferencer: networks compiled (True, or arguments of torch.compile), channels last.
evaluation_compile = False
evaluation_channels_last = False
load_from = None
resume = False
randomness = dict(seed=0)
