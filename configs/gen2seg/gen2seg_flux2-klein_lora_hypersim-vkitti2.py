"""gen2seg with FLUX.2 klein (4B, base) and LoRA in place of Stable Diffusion 2, on bfloat16 weights.

Ours: arXiv 2505.15263 took Stable Diffusion 2 only; its data, loss and schedule.
Command: ``GENSEG_DATA=/data tools/dist_train.sh configs/gen2seg/gen2seg_flux2-klein_lora_hypersim-vkitti2.py 4``
Hardware: 4 GPUs of 48 GB (the frozen transformer is 7.8 GB on each); hours not measured.
Expected: not measured yet; the paper's SD row is what to beat.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/gen2seg_dit.py',
    '../_base_/datasets/hypersim_vkitti2_sd.py',
    '../_base_/datasets/coco_points_sd.py',
    '../_base_/schedules/gen2seg_30k.py',
]

released = 'black-forest-labs/FLUX.2-klein-base-4B'
model = dict(
    colorer=dict(
        codec=dict(
            type='genseg_mm.LatentCodec',
            autoencoder=dict(
                type='diffusers.AutoencoderKLFlux2.from_pretrained',
                pretrained_model_name_or_path=released,
                subfolder='vae',
            ),
        ),
        prompt_encoder=dict(  # as its pipeline: three states of Qwen3 4B side by side, 512 tokens, padding read
            type='genseg_mm.LanguageModelPromptEncoder',
            encoder=dict(
                type='transformers.Qwen3ForCausalLM.from_pretrained',
                pretrained_model_name_or_path=released,
                subfolder='text_encoder',
                dtype='bfloat16',
            ),
            tokenizer=released,
            tokenizer_kwargs=dict(subfolder='tokenizer'),
            chat=dict(enable_thinking=False),
            hidden_layer=(9, 18, 27),
            max_length=512,
            padding='max_length',
            reads_padding=True,
        ),
        backbone=dict(
            type='genseg_mm.DiTBackbone',
            family='flux2',
            transformer=dict(
                type='diffusers.Flux2Transformer2DModel.from_pretrained',
                pretrained_model_name_or_path=released,
                subfolder='transformer',
                torch_dtype='bfloat16',
            ),
            lora=dict(r=16, lora_alpha=16),
        ),
    )
)
optim_wrapper = dict(type='genseg_mm.AutocastOptimWrapper', optimizer=dict(lr=1e-4))
