"""Sphinx reads this; `bash tools/build_docs.sh` builds the pages, a warning fails it."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]  # the package, generated_parts

import genseg_mm  # noqa: E402

project = 'genseg_mm'
author = 'genseg_mm contributors'
copyright = author
version = release = genseg_mm.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.intersphinx',
    'generated_parts',
]
exclude_patterns = ['_build', 'notebooks/*.md']

myst_enable_extensions = ['colon_fence', 'deflist', 'attrs_inline']
myst_heading_anchors = 4
# Files that are no pages are offered for download, such as a config that a page names.
myst_all_links_external = False

toc_object_entries = False  # thousands of names, which every page would carry in its list of contents
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_inherit_docstrings = False
autodoc_mock_imports = ['fastapi', 'gradio']  # of genseg_mm.app, an extra
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True

# Without a network the pages build all the same, without links to these (generated_parts).
intersphinx_mapping = {
    'python': ('https://docs.python.org/3', None),
    'torch': ('https://docs.pytorch.org/docs/stable', None),
    'mmengine': ('https://mmengine.readthedocs.io/en/latest', None),
}
intersphinx_timeout = 10

suppress_warnings = [
    'ref.python',  # a short name in a docstring that several classes have: no link
    'toc.empty_glob',
]

html_theme = 'furo'
html_title = f'genseg_mm {release}'
html_static_path = ['_static']
html_css_files = ['pages.css']
html_show_sphinx = False
html_copy_source = False
html_show_copyright = False
