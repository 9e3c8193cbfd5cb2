"""The data contract of the models' input.

======================  ============================================================================
what                    form
======================  ============================================================================
pipeline image          uint8, BGR, (H, W, 3) numpy; packed as (3, H, W) tensor ``inputs``
image after this class  float32, RGB, [-1, 1], (N, 3, H, W)
referring sample        SegDataSample: ``gt_sem_seg`` (1, H, W) in {0, 1, 255 = ignore}, at original
                        size in test; meta ``text``, ``task`` 'mask' or 'image' (text-to-image)
instance sample         ``gt_instance_map`` (1, H, W) int64, 0 = background, on either kind of
                        data sample
point prompt            meta ``points`` (K, P, 2), (x, y) in pixels of the original image;
                        ``point_labels`` (K, P), 1 positive, 0 negative
cached encodings        ``inputs`` (3, 0, 0); in the data sample ``image_latents`` and, task 'mask',
                        ``mask_latents`` (C, h, w); ``prompt_states`` (l, D) and ``prompt_mask``
                        (L,) bool, l <= L, states beyond l are zero; task 'image' also
                        ``empty_prompt_*``; meta ``cached_text``, ``encoder_fingerprints``. A
                        batch has them in all samples or in none
colour map              float [0, 255], RGB, (3, H, W): ``pred_color_map``
predictions             ``pred_sem_seg`` / ``pred_instances.masks`` at original size
generated picture       ``pred_img`` (3, H, W) uint8 RGB, at the size that the network saw
======================  ============================================================================
"""

from collections.abc import Sequence

from mmengine.model import ImgDataPreprocessor

from genseg_mm.registry import MODELS


@MODELS.register_module()
class GenSegDataPreprocessor(ImgDataPreprocessor):
    """BGR uint8 images to RGB in [-1, 1], stacked to a batch.

    Args:
        mean: Subtracted from the RGB channels.
        std: Divides the RGB channels; with the default mean gives [-1, 1].
        bgr_to_rgb: Swaps the channels, as the loaders give BGR.
        pad_size_divisor: Pads height and width to multiples of it with grey (0), at the right and bottom. With 1, all
            images of a batch must have one size.
    """

    def __init__(
        self,
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5),
        bgr_to_rgb: bool = True,
        pad_size_divisor: int = 1,
        **kwargs: object,
    ) -> None:
        super().__init__(mean=mean, std=std, bgr_to_rgb=bgr_to_rgb, pad_size_divisor=pad_size_divisor, **kwargs)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Moves a batch to the device, normalises and stacks it.

        Args:
            data: ``inputs``, a list of uint8 BGR tensors (3, H, W); ``data_samples``.
            training: Unused; in the signature of every MMEngine preprocessor.

        Returns:
            ``inputs`` (N, 3, H, W) float32 and ``data_samples``, each with meta ``batch_input_shape`` (H, W).

        Raises:
            ValueError: If images of a batch differ in size and no padding is asked for.
        """
        inputs = data['inputs']
        shapes = {tuple(image.shape) for image in inputs}
        if len(shapes) > 1 and self.pad_size_divisor == 1:
            raise ValueError(
                'all images of a batch must have one size, but got '
                f'{sorted(shape[-2:] for shape in shapes)}; add a Resize with keep_ratio=False, use batch_size=1, '
                'or set pad_size_divisor'
            )
        data = super().forward(data, training)
        for sample in data.get('data_samples') or ():
            sample.set_metainfo(dict(batch_input_shape=tuple(data['inputs'].shape[-2:])))
        return data
