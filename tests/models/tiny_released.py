"""Tiny random folders of the real classes, in the formats of gen2seg's released weights."""

import json
from pathlib import Path

import torch

UNET = dict(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(8, 16),
    layers_per_block=1,
    down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'),
    up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D'),
    norm_num_groups=4,
    attention_head_dim=(2, 4),
    cross_attention_dim=12,
    use_linear_projection=True,
)
VAE = dict(
    block_out_channels=(8, 8, 8, 16),
    down_block_types=('DownEncoderBlock2D',) * 4,
    up_block_types=('UpDecoderBlock2D',) * 4,
    layers_per_block=1,
    norm_num_groups=4,
    latent_channels=4,
    scaling_factor=0.18215,
)
SCHEDULER = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule='scaled_linear',
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
    timestep_spacing='trailing',
)
MAE = dict(
    image_size=64,
    patch_size=16,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=32,
    mask_ratio=0.75,
)


def make_sd_folder(folder: Path, prediction_type: str = 'v_prediction', seed: int = 0) -> Path:
    """Writes a whole Stable Diffusion pipeline; the empty prompt is told apart from its padding."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    tokenizer_folder = folder / 'tokenizer'
    write_tokenizer(tokenizer_folder)
    text = CLIPTextConfig(
        vocab_size=514,
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=0,
    )
    StableDiffusionPipeline(
        vae=AutoencoderKL(**VAE),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(str(tokenizer_folder)),
        unet=UNet2DConditionModel(**UNET),
        scheduler=DDIMScheduler(**SCHEDULER, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(str(folder))
    return folder


def write_tokenizer(folder: Path) -> None:
    """CLIP's byte tokenizer without merges: 256 byte symbols, the same ending a word, start and end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
    words = symbols + [f'{s}</w>' for s in symbols] + ['<|startoftext|>', '<|endoftext|>']
    folder.mkdir(parents=True)
    (folder / 'vocab.json').write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / 'merges.txt').write_text('#version: 0.2\n')
    settings = dict(
        tokenizer_class='CLIPTokenizer',
        model_max_length=77,
        bos_token='<|startoftext|>',
        eos_token='<|endoftext|>',
        unk_token='<|endoftext|>',
        pad_token='!',
    )
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings))


def make_mae_folder(folder: Path, seed: int = 0) -> Path:
    """Writes a ``ViTMAEForPreTraining`` whose weights and positions are all random, not just fresh."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    torch.manual_seed(seed)
    mae = ViTMAEForPreTraining(ViTMAEConfig(**MAE))
    for parameter in mae.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    mae.save_pretrained(str(folder))
    return folder


def images(height: int, width: int, num: int = 1, seed: int = 1) -> torch.Tensor:
    """Random RGB in [-1, 1], (num, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, 3, height, width, generator=generator) * 2 - 1
