# gen2seg, tiny: the Stable Diffusion colorer's graph (one step at t = 999, constant prompt) on 2x2 patches,
# from scratch.
model = dict(
    type='genseg_mm.Gen2Seg',
    data_preprocessor=dict(type='genseg_mm.GenSegDataPreprocessor'),
    colorer=dict(
        type='genseg_mm.UNetColorer',
        patch_size=2,
        config=dict(
            sample_size=32,
            block_out_channels=(16, 32, 48, 64),
            layers_per_block=1,
            down_block_types=('DownBlock2D',) * 3 + ('CrossAttnDownBlock2D',),
            up_block_types=('CrossAttnUpBlock2D',) + ('UpBlock2D',) * 3,
            norm_num_groups=8,
            attention_head_dim=4,
            cross_attention_dim=32,
        ),
    ),
    loss=dict(type='genseg_mm.InstanceColoringLoss', formula='reference'),
    # The reference's scale, 'batch', couples the samples of a batch; it is for pretrained weights.
    normalize='sigmoid',
    bias=-2.0,
    prompting=dict(radius=44.0, sigma=0.005),
)
