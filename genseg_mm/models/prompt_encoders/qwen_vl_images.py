"""Images -> the patches that Qwen-VL's vision tower takes."""

import torch
import torch.nn.functional as F
from torch import Tensor


class QwenVLImages:
    """The released image processor's formula on tensors, on the device that they are on.

    The processor itself works on one PIL image after the other on the CPU. Here the sizes come from its
    ``smart_resize``, and resize (bicubic, rounded to 8 bit), normalisation and patch order are its own.

    Args:
        processor: Folder / hub id with ``preprocessor_config.json``.
        vision_config: The model's, to check that both belong together.
        min_pixels: Smaller images are enlarged to this area. Default: the processor's.
        max_pixels: Larger images are shrunk to this area. Default: the processor's.
        **kwargs: Of the processor's ``from_pretrained``, e.g. ``subfolder='processor'``.

    Raises:
        ValueError: If patches or bounds do not fit.
    """

    def __init__(
        self,
        processor: str,
        vision_config: object,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **kwargs,
    ) -> None:
        from transformers import Qwen2VLImageProcessorPil

        loaded = Qwen2VLImageProcessorPil.from_pretrained(processor, **kwargs)
        own = (loaded.patch_size, loaded.merge_size, loaded.temporal_patch_size)
        model = (vision_config.patch_size, vision_config.spatial_merge_size, vision_config.temporal_patch_size)
        if own != model:
            raise ValueError(
                f'{processor}: expected patch, merge and temporal patch size {model} as in the model, but got {own} in '
                'preprocessor_config.json: they do not belong together'
            )
        self.patch_size, self.merge_size, self.temporal_patch_size = own
        self.min_pixels = min_pixels or int(loaded.size['shortest_edge'])
        self.max_pixels = max_pixels or int(loaded.size['longest_edge'])
        if self.min_pixels > self.max_pixels:
            raise ValueError(f'min_pixels must not exceed max_pixels, but got {self.min_pixels} and {self.max_pixels}')
        self.mean = torch.tensor(loaded.image_mean)[:, None, None]
        self.std = torch.tensor(loaded.image_std)[:, None, None]

    @property
    def pixels_per_token(self) -> int:
        """Side in pixels of what one token of the language model shows."""
        return self.patch_size * self.merge_size

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Cuts images into patches.

        Args:
            images: RGB in [-1, 1], (N, 3, H, W).

        Returns:
            Patches, (N * h * w, 3 * temporal_patch_size * patch_size^2), float32, those of one token in a row, and
            the grids (1, h, w) in patches, (N, 3) int64 on the CPU.

        Raises:
            ValueError: If the images are more than 200 times longer than wide.
        """
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        height, width = images.shape[-2:]
        if max(height, width) > 200 * min(height, width):
            raise ValueError(f'images may be 200 times longer than wide, but got {(height, width)}')
        size = smart_resize(height, width, self.pixels_per_token, self.min_pixels, self.max_pixels)
        levels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
        # PIL goes over the rows first, and rounds to 8 bit after each pass, halves up.
        for shape in ((height, size[1]), size):
            if shape != tuple(levels.shape[-2:]):
                levels = F.interpolate(levels, shape, mode='bicubic', antialias=True)
                levels = (levels + 0.5).floor().clamp(0, 255)
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        pixels = (levels / 255 - mean) / std
        num, channels = pixels.shape[:2]
        patch, merge = self.patch_size, self.merge_size
        rows, columns = size[0] // patch, size[1] // patch
        patches = pixels.reshape(num, channels, rows // merge, merge, patch, columns // merge, merge, patch)
        patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (N, h/m, w/m, m, m, 3, p, p)
        # An image is a film of equal frames.
        patches = patches.unsqueeze(6).expand(*[-1] * 6, self.temporal_patch_size, -1, -1)
        grid = torch.tensor([[1, rows, columns]]).expand(num, 3)
        return patches.reshape(num * rows * columns, -1), grid  # (N h w, 3 t p p)
