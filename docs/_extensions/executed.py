"""Runs the Python of pages, and shows below every block what it printed and drew.

The blocks of a page share one namespace, in order. `-D run_code=0` leaves pages as they are: the
tests run all blocks too (`tests/test_docs.py`), with the same `blocks`.
"""

import concurrent.futures
import contextlib
import io
import multiprocessing
import os
import re
import warnings
from pathlib import Path

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


def page(name, text, folder):
    """The text of a page with what its blocks print and draw."""
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
        text = match[0] + "\n" + _figures(folder, f"{name.replace('/', '-')}-{count}")
        if printed.getvalue():
            text += f"\n```{{code-block}} text\n:class: printed\n\n{printed.getvalue()}```\n"
        return text

    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="neural_tangents")
        return BLOCK.sub(with_output, text)


def start(app, env, names):
    """An event of Sphinx: pages are about to be read. Runs their code beside, in two processes."""
    if not app.config.run_code:
        return
    texts = {name: env.doc2path(name).read_text("utf-8") for name in names}
    texts = {n: text for n, text in texts.items() if n not in NOT_RUN and blocks(text)}
    pool = concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    folder = Path(app.srcdir) / "_build" / "figures"
    longest = sorted(texts, key=lambda name: -len(texts[name]))
    app.pages = {name: pool.submit(page, name, texts[name], folder) for name in longest}
    pool.shutdown(wait=False)


def run(app, name, source):
    """An event of Sphinx: a page has been read."""
    if app.config.run_code and name in app.pages:
        logger.info("running the code of %s", name)
        source[0] = app.pages[name].result()


def setup(app):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    app.add_config_value("run_code", True, "env", types=[bool, str, int])
    app.connect("env-before-read-docs", start)
    app.connect("source-read", run)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
