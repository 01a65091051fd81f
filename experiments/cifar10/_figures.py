"""Two pictures of a result: accuracy against `diag_reg`, and the most confident mistakes."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

ROWS, COLUMNS = 3, 8


def accuracy_figure(
    path: Path,
    *,
    diag_reg: np.ndarray,
    test_accuracy: np.ndarray,
    scores: np.ndarray | None,
    score_name: str,
    chosen: float,
    title: str,
) -> None:
    """Test accuracy against `diag_reg`, with the training-side score that made the choice.

    Args:
        path: where the PNG goes.
        diag_reg, test_accuracy: the path of solutions.
        scores: what the choice minimised, from training data; None draws the accuracy alone.
        score_name: how the choice was made.
        chosen: the chosen `diag_reg`.
        title: what was run.
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    axis.plot(diag_reg, test_accuracy, "o-", color="tab:blue", label="test accuracy")
    if diag_reg.min() > 0:
        axis.set_xscale("log")
    else:  # 0 has a place of its own on an axis that is linear below the smallest other value
        axis.set_xscale("symlog", linthresh=min(diag_reg[diag_reg > 0], default=1.0))
    axis.axvline(chosen, color="0.4", linestyle=":", label=f"chosen by {score_name}: {chosen:.3g}")
    axis.set_xlabel("diag_reg (relative)")
    axis.set_ylabel("test accuracy", color="tab:blue")
    handles, labels = axis.get_legend_handles_labels()
    top = axis
    if scores is not None:
        top = twin = axis.twinx()
        twin.plot(diag_reg, scores, "s--", color="tab:orange", markersize=4)
        twin.set_yscale("log")
        twin.set_ylabel(f"{score_name} score, from training data", color="tab:orange")
    top.legend(handles, labels, fontsize="small", loc="center left", framealpha=1.0)
    axis.set_title(title, fontsize="medium")
    _save(figure, path)


def mistakes_figure(
    path: Path,
    *,
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
    figure, axes = plt.subplots(ROWS, COLUMNS, figsize=(11, 5.2), layout="constrained")
    top = images.max(initial=1)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, index, margin in zip(axes.flat, order, lead, strict=False):
        axis.imshow((images[index] / top).squeeze(), cmap="gray_r", vmin=0, vmax=1)
        said, true = classes[int(outputs[index].argmax())], classes[int(labels[index])]
        axis.set_title(f"{said}, not {true}\n+{margin:.2f}", fontsize=8)
    figure.suptitle(title, fontsize="medium")
    _save(figure, path)


def confident_mistakes(
    outputs: np.ndarray, labels: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the `count` worst mistakes, worst first, and their leads max(out) - out[label]."""
    lead = outputs.max(1) - outputs[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(outputs.argmax(1) != labels)
    order = wrong[np.argsort(-lead[wrong], kind="stable")][:count]
    return order, lead[order]


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
