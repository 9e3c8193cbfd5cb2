"""Files of a user's disk: read in one way, damaged ones an error of one line, and written whole or not at all.

``texts`` (text, JSON, tables), ``images`` and ``image_headers``, ``arrays`` (.mat, .npz), ``pickles`` (what one may
hold), ``whole_files``, ``whole_folders`` and ``tensors`` (writing), ``background`` (writing beside the training),
``write_lock`` (one writer at a time), ``hub_files`` (what is missing of a hub's folder), ``package_folders`` (weights
that come as an installed package). Importing this room loads the standard library only.
"""

from genseg_mm.files.texts import (
    BROKEN_TEXT,
    EMPTY_TEXT,
    check_name,
    check_texts,
    csv_cell,
    decode_text,
    has_lone_surrogate,
    parse_json,
    read_bytes,
    read_columns,
    read_json,
    read_json_dict,
    read_json_lines,
    read_lines,
    read_table,
    usable_text,
)
from genseg_mm.files.whole_files import WriteError, check_new_file, check_writable, whole_file, write_text

__all__ = [
    'BROKEN_TEXT',
    'EMPTY_TEXT',
    'WriteError',
    'check_name',
    'check_new_file',
    'check_texts',
    'check_writable',
    'csv_cell',
    'decode_text',
    'has_lone_surrogate',
    'parse_json',
    'read_bytes',
    'read_columns',
    'read_json',
    'read_json_dict',
    'read_json_lines',
    'read_lines',
    'read_table',
    'usable_text',
    'whole_file',
    'write_text',
]
