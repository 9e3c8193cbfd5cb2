# gen2seg, tiny: Stable Diffusion's classes and graph (AutoencoderKL, UNet) with random weights. It checks the wiring:
# the random, frozen VAE cannot draw sharp maps.
model = dict(
    type='genseg_mm.Gen2Seg',
    data_preprocessor=dict(type='genseg_mm.GenSegDataPreprocessor'),
    colorer=dict(
        type='genseg_mm.SDColorer',
        config=dict(
            unet=dict(
                sample_size=8,
                block_out_channels=(16, 32),
                layers_per_block=1,
                down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
                up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'),
                norm_num_groups=8,
                attention_head_dim=4,
                cross_attention_dim=32,
            ),
            vae=dict(
                block_out_channels=(8, 8, 16, 16),
                down_block_types=('DownEncoderBlock2D',) * 4,
                up_block_types=('UpDecoderBlock2D',) * 4,
                layers_per_block=1,
                norm_num_groups=4,
                scaling_factor=0.18215,
            ),
        ),
    ),
    loss=dict(type='genseg_mm.InstanceColoringLoss', formula='reference'),
    normalize='batch',
    processing_size=96,
    prompting=dict(rule='reference'),
)
