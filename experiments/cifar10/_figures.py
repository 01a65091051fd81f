"""Two pictures of a result: accuracy against `diag_reg`, and the most confident mistakes."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments._common._study import figure

ROWS, COLUMNS = 3, 8


def accuracy_figure(path: Path, results: dict[str, Any], score_name: str, title: str) -> None:
    """Test accuracy against `diag_reg`, with the training-side score that made the choice.

    Args:
        path: where the PNG goes.
        results: of the record: `diag_reg`, and of its `path`, `diag_reg`, `score` and
            `test_accuracy`.
        score_name: how the choice was made.
        title: what was run.
    """
    of, chosen = results["path"], results["diag_reg"]
    diag_reg, scores = np.array(of["diag_reg"]), np.array(of["score"], float)
    with figure(path, (6.4, 4.0)) as (_, axes):
        axis = axes[0, 0]
        axis.plot(diag_reg, of["test_accuracy"], "o-", color="tab:blue", label="test accuracy")
        if diag_reg.min() > 0:
            axis.set_xscale("log")
        else:  # 0 has a place of its own on an axis that is linear below the smallest other value
            axis.set_xscale("symlog", linthresh=min(diag_reg[diag_reg > 0], default=1.0))
        label = f"chosen by {score_name}: {chosen:.3g}"
        axis.axvline(chosen, color="0.4", linestyle=":", label=label)
        axis.set_xlabel("diag_reg (relative)")
        axis.set_ylabel("test accuracy", color="tab:blue")
        axis.set_title(title, fontsize="medium")
        twin = axis.twinx()
        twin.plot(diag_reg, scores, "s--", color="tab:orange", markersize=4)
        twin.set_yscale("log")
        what = "share left out wrong" if score_name == "accuracy" else f"{score_name} score"
        twin.set_ylabel(f"{what}, from training data", color="tab:orange")
        twin.legend(*axis.get_legend_handles_labels(), fontsize="small", loc="center left")


def mistakes_figure(
    path: Path,
    images: np.ndarray,
    outputs: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    title: str,
) -> None:
    """The test images with the largest lead of the wrong answer over the right one.

    Args:
        path: where the PNG goes.
        images: uint8 (n, h, w, c) as read.
        outputs: predictions (n, classes).
        labels: true classes (n,).
        classes: their names.
        title: what was run.
    """
    order, lead = confident_mistakes(outputs, labels, ROWS * COLUMNS)
    top = images.max(initial=1)
    with figure(path, (11, 5.2), ROWS, COLUMNS) as (plot, axes):
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, index, margin in zip(axes.flat, order, lead, strict=False):
            axis.imshow((images[index] / top).squeeze(), cmap="gray_r", vmin=0, vmax=1)
            said, true = classes[int(outputs[index].argmax())], classes[int(labels[index])]
            axis.set_title(f"{said}, not {true}\n+{margin:.2f}", fontsize=8)
        plot.suptitle(title, fontsize="medium")


def confident_mistakes(
    outputs: np.ndarray, labels: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the `count` worst mistakes, worst first, and their leads max(out) - out[label]."""
    lead = outputs.max(1) - outputs[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(outputs.argmax(1) != labels)
    order = wrong[np.argsort(-lead[wrong], kind="stable")][:count]
    return order, lead[order]
