"""Figures for light and for dark pages."""

import contextlib

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

INKS = {"light": "#1f2328", "dark": "#dfe3e8"}
STYLE = {
    # Of middle brightness, so that they stand out of white and of black.
    "axes.prop_cycle": plt.cycler(
        color=["#2f7ed8", "#e07b39", "#2e9e6b", "#b5529c", "#8f8a1f", "#7f8c99"]
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "figure.figsize": (6.4, 3.4),
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "legend.frameon": False,
    "lines.markersize": 5,
    "svg.hashsalt": "ntk_sketch",
    "text.color": INKS["light"],
    "axes.labelcolor": INKS["light"],
    "axes.edgecolor": INKS["light"],
    "xtick.color": INKS["light"],
    "ytick.color": INKS["light"],
}


def style():
    """Within it, figures are drawn in the site's style."""
    return mpl.rc_context(STYLE)


def _is_ink(colour):
    with contextlib.suppress(ValueError):
        return to_hex(colour) in (*INKS.values(), "#000000")
    return False


def _paint(figure, ink):
    for artist in figure.findobj():
        if isinstance(artist, Text | Line2D) and _is_ink(artist.get_color()):
            artist.set_color(ink)
        elif isinstance(artist, Patch) and _is_ink(artist.get_edgecolor()):
            artist.set_edgecolor(ink)


def save(figure, folder, name):
    """`name-light.svg` and `name-dark.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    for theme, ink in INKS.items():
        _paint(figure, ink)
        path = folder / f"{name}-{theme}.svg"
        figure.savefig(path, transparent=True, metadata={"Date": None})


def images(name, alt):
    """The two of them in MyST; a page shows one."""
    return "".join(
        f"```{{image}} /_build/figures/{name}-{theme}.svg\n:class: only-{theme}\n:alt: {alt}\n```\n"
        for theme in INKS
    )
