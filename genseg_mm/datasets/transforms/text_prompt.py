"""Text prompts."""

from mmcv.transforms import BaseTransform

from genseg_mm.files import check_texts
from genseg_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TextPrompt(BaseTransform):
    """Puts the sample's text into an instruction.

    Required key: text. Modified: text; the words alone stay in ``expression``.

    Args:
        template: Format string with one ``{}``, e.g. 'Segment {} in this image.'; GenMask's own template is not known.
        lower: Lower-cases and strips the words, as LISA and big_vision do.
    """

    def __init__(self, template: str = '{}', lower: bool = True) -> None:
        if template.count('{}') != 1:
            raise ValueError(f"template must hold '{{}}' exactly once, but got {template!r}")
        self.template, self.lower = template, lower

    def transform(self, results: dict) -> dict:
        """Formats the text."""
        text = results.get('text')
        if not isinstance(text, str):
            raise ValueError(
                f"TextPrompt needs a string 'text' in the sample of {results.get('img_path', '?')!r}, but got {text!r}"
            )
        check_texts([text], f'the text of {results.get("img_path", "?")!r}')
        text = text.strip().lower() if self.lower else text
        results['expression'] = text
        results['text'] = self.template.format(text)
        return results
