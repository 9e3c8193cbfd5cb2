"""GenMask on RefCOCO and captions from a cache of what its frozen encoders give: what caching saves, on a CPU.

A tiny Wan DiT between a Wan autoencoder (base width 32) and a frozen T5 of 31 M parameters, all of random weights.
Command: ``python tools/dataset_tools/cache_encodings.py configs/genmask/refcoco_cached_tiny.py --out DIR`` (float32),
then ``GENSEG_CACHE=DIR python tools/analysis_tools/benchmark_training_step.py configs/genmask/refcoco_cached_tiny.py``,
and the same without GENSEG_CACHE.
Hardware: one CPU core, 2 minutes. Expected: the same losses, see configs/genmask/README.md for the times.
"""

_base_ = ['./refcoco_tiny.py']

cache = '{{$GENSEG_CACHE:none}}'
model = dict(
    codec=dict(
        autoencoder=dict(
            _delete_=True,
            type='diffusers.AutoencoderKLWan',
            base_dim=32,
            z_dim=16,
        )
    ),
    prompt_encoder=dict(
        encoder=dict(_delete_=True, d_model=512, d_kv=64, d_ff=1024, num_layers=12, num_heads=8),
        max_length=64,
        padding='max_length',
        trainable=False,
    ),
    backbone=dict(
        family='wan',
        transformer=dict(
            _delete_=True,
            patch_size=(1, 2, 2),
            num_attention_heads=3,
            attention_head_dim=32,
            in_channels=16,
            out_channels=16,
            text_dim=512,
            freq_dim=64,
            ffn_dim=240,
            num_layers=4,
            rope_max_seq_len=64,
        ),
    ),
)
datasets = _base_.train_dataloader.dataset.datasets
if cache != 'none':
    for dataset in datasets:
        *encoded, prompt, pack = dataset['pipeline']
        cached = dict(type='genseg_mm.CachedEncodings', folder=cache, transforms=encoded)
        dataset['pipeline'] = [prompt, cached, pack]
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(datasets=datasets))
