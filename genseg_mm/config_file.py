"""Reading of config files, with errors that name the file."""

import os

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError


def read_config_file(path: str | os.PathLike) -> Config:
    """The config of a file.

    Raises:
        FileNotFoundError: If there is no such file, or one it inherits from is missing.
        ValueError: If it is no config.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'config {path} does not exist')
    try:
        return Config.fromfile(path)
    except (SyntaxError, ConfigParsingError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is not a valid config: {error}') from error
    except OSError as error:
        if 'type are supported' not in str(error):
            raise
        raise ValueError(f'{path} is not a config (.py, .yml, .yaml or .json)') from error
