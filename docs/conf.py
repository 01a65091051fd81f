"""The documentation site: `scripts/docs.sh`, or `python -m sphinx -W docs docs/_build/html`."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_extensions"), str(DOCS.parent)]

from ntk_sketch import __version__  # noqa: E402

project = "ntk_sketch"
author = project_copyright = "The ntk_sketch authors"
release = __version__

extensions = [
    "myst_parser",
    "mathml",
    "records",
    "executed",
    "api",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"ntk_sketch {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"


maximum_signature_line_length = 88
