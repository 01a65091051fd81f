"""Figures for light and for dark pages."""

import io

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

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


def save(figure, folder, name):
    """`name-light.svg`, and `name-dark.svg` with the other ink."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    for theme, ink in INKS.items():
        text = drawn.getvalue().replace(INKS["light"], ink)
        (folder / f"{name}-{theme}.svg").write_text(text, "utf-8")


def images(name, alt):
    """The two of them in MyST; a page shows one."""
    return "".join(
        f"```{{image}} /_build/figures/{name}-{theme}.svg\n:class: only-{theme}\n:alt: {alt}\n```\n"
        for theme in INKS
    )
