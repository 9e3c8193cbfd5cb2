"""Pretrained parts of the Hugging Face hub: what is missing, and how to get it, in one line."""

import os
import re
import traceback
from pathlib import Path

_LIBRARIES = ('huggingface_hub', 'transformers', 'diffusers')
_SOURCES = ('pretrained_model_name_or_path', 'path_or_repo_id', 'repo_id')
HUB_ID = re.compile(r'\w[\w.-]*/[\w.-]+')


def hub_message(error: BaseException) -> str | None:
    """One line for a failed ``from_pretrained``, or None for an error of another kind.

    The libraries name neither part nor file in most of their messages; what was asked for is read from the calls that
    the error came through.

    Args:
        error: As it was caught.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    names = [frame.f_code.co_filename.replace(os.sep, '/') for frame, _ in frames]
    if not isinstance(error, (OSError, ValueError)) or not any(
        f'/{library}/' in name for name in names for library in _LIBRARIES
    ):
        return None
    asked: dict[str, str] = {}
    for frame, _ in frames:
        for key in (*_SOURCES, 'filename', 'subfolder'):
            value = frame.f_locals.get(key)
            if isinstance(value, (str, os.PathLike)) and str(value):
                asked['source' if key in _SOURCES else key] = str(value)
    if 'source' not in asked:
        return None
    return _describe(asked, ' '.join(str(error).split()))


def _describe(asked: dict[str, str], text: str) -> str:
    source = asked['source']
    inside = '/'.join(filter(None, (asked.get('subfolder'), asked.get('filename'))))
    folder = Path(os.path.expanduser(source))
    if folder.exists():
        where = str(folder / asked.get('subfolder', ''))
        return f'pretrained part {where} cannot be read: {text}'
    if not HUB_ID.fullmatch(source):
        return f'pretrained part {source}: expected a folder or a hub id (owner/name), but there is no such folder'
    command = f'hf download {source}'
    if asked.get('subfolder'):
        command += f' --include "{asked["subfolder"]}/*"'
    what = f'{source} ({inside})' if inside else source
    return (
        f'{what} is neither here nor in the cache, and the hub did not give it; where there is a network: {command} '
        f'--local-dir FOLDER, then FOLDER in place of {source} in the config, or the cache of that machine through '
        f'the environment variable HF_HUB_CACHE [{text[:200]}]'
    )
