"""Refined descriptions in place of the questions (GenMask's two-stage reasoning segmentation)."""

from mmcv.transforms import BaseTransform

from genseg_mm.datasets.counted_warning import warn_counted
from genseg_mm.datasets.transforms.description_file import TOOL, DescriptionFile, picture_name
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class UseDescriptions(BaseTransform):
    """Replaces the text by the description that a vision-language model wrote for it.

    Belongs right after the loading, before ``TextPrompt``: descriptions are found by the text as the files have it.

    Required keys: text, and img_path or (drawn scenes) img as the data set gives it. Modified: text. Added: question,
    the text as it was.

    Args:
        file: Written by ``tools/dataset_tools/write_descriptions.py``.
        missing: What to do with a text that has no description: 'error', or 'keep' the text, with a counted warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file or ``missing`` is wrong, or (at use) a description is missing.
    """

    def __init__(self, file: str, missing: str = 'error') -> None:
        if missing not in ('error', 'keep'):
            raise ValueError(f"missing must be 'error' or 'keep', but got {missing!r}")
        self.file, self.missing, self.num_missing = file, missing, 0
        self.descriptions = DescriptionFile.read(file)

    def transform(self, results: dict) -> dict:
        """Replaces the text."""
        text = results.get('text')
        if not isinstance(text, str):
            raise ValueError(
                f"UseDescriptions needs a string 'text' in the sample of {results.get('img_path', '?')!r}, "
                f'but got {text!r}'
            )
        picture = picture_name(results)
        description = self.descriptions.get(picture, text)
        if description is None:
            message = f'{self.file} has no description of {text!r} for picture {picture!r}'
            if self.missing == 'error':
                raise ValueError(
                    f'{message}: complete it with {TOOL} {self.file}; UseDescriptions must stand before TextPrompt, '
                    "which changes the text; missing='keep' takes the text itself"
                )
            self.num_missing += 1
            warn_counted(message, self.num_missing, 'missing descriptions')
        results['question'] = text
        results['text'] = text if description is None else description
        return results
