"""Runs the Python of pages, and shows below every block what it printed and drew.

The blocks of a page share one namespace, in order. `-D run_code=0` leaves pages as they are: the
tests run all blocks too (`tests/test_docs.py`), with the same `blocks`.
"""

import contextlib
import io
import os
import re
import warnings

from drawing import images, plt, save, style
from sphinx.errors import ExtensionError
from sphinx.util import logging

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Scripts of several processes, which their own test starts.
NOT_RUN = {"many-machines"}
logger = logging.getLogger(__name__)


def blocks(text):
    return BLOCK.findall(text)


def _figures(folder, stem):
    """Saves the figures that are open; the MyST that shows them."""
    text = ""
    for number in plt.get_fignums():
        figure, name = plt.figure(number), f"{stem}-{number}"
        titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
        save(figure, folder, name)
        text += "\n" + images(name, "; ".join(titles) or "figure")
    plt.close("all")
    return text


def run(app, name, source):
    """An event of Sphinx: a page has been read."""
    if not app.config.run_code or name in NOT_RUN or not blocks(source[0]):
        return
    logger.info("running the code of %s", name)
    namespace, count = {"__name__": "page"}, 0

    def with_output(match):
        nonlocal count
        count += 1
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(match[1], f"{name}, block {count}", "exec"), namespace)
        except Exception as error:
            raise ExtensionError(f"{name}, block {count}: {error!r}") from error
        stem = f"{name.replace('/', '-')}-{count}"
        text = match[0] + "\n" + _figures(app.srcdir / "_build" / "figures", stem)
        if printed.getvalue():
            text += f"\n```{{code-block}} text\n:class: printed\n\n{printed.getvalue()}```\n"
        return text

    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="neural_tangents")
        source[0] = BLOCK.sub(with_output, source[0])


def setup(app):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    app.add_config_value("run_code", True, "env", types=[bool, str, int])
    app.connect("source-read", run)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
