"""Figures of stored records. The docstring of each is the text that stands for it where it cannot
be seen.

`python docs/_extensions/figures.py accuracy_and_speed FILE.png` draws one for another place.
"""

import json
import sys
from pathlib import Path

from drawing import STYLE, plt
from matplotlib.ticker import LogLocator, NullFormatter

ROOT = Path(__file__).resolve().parents[2]
CIFAR10 = "experiments/cifar10/results"
KERNELS = "experiments/kernel_approximation/results"
EVERY_METHOD = f"{KERNELS}/cifar10-myrtle5-relu-24images-2keys-every-method.json"
YEAR = 365.25 * 24 * 3600


def record(path):
    return json.loads((ROOT / path).read_text())


def whole_cifar10():
    """Records of 50,000 training and 10,000 test images."""
    for path in sorted((ROOT / CIFAR10).glob("cifar10-*.json")):
        found = json.loads(path.read_text())
        if (found["resolved"].get("train"), found["resolved"].get("test")) == (50_000, 10_000):
            yield found


def _log(axis, xlabel, ylabel, title=None, x=True, y=True):
    if x:
        axis.set_xscale("log")
        first, last = axis.get_xlim()
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if last < 100 * first else (1,)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    if y:
        axis.set_yscale("log")
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.set_title(title or "")


def _accuracy(axis):
    series = {}
    for found in whole_cifar10():
        recipe = found["settings"].get("recipe") or found["settings"]["architecture"]
        name = {"patches": "patch nets, NNGP"}.get(recipe, f"{recipe}, NTK")
        point = found["phases"]["total_seconds"], found["results"]["accuracy"]
        series.setdefault(name, []).append(point)
    for name, points in series.items():
        axis.plot(*zip(*sorted(points), strict=True), "o", label=name)
    exact = record("benchmarks/results/exact-time-myrtle5-Nystroem64-64-128-1024.json")
    years = exact["results"]["extrapolated_seconds"]["exact"] / YEAR
    axis.text(
        0.97,
        0.05,
        f"exact kernel of myrtle5:\n{years:.1f} years",
        ha="right",
        va="bottom",
        transform=axis.transAxes,
        style="italic",
    )
    _log(axis, "seconds for 60,000 images, two cores", "test accuracy on CIFAR-10", y=False)
    axis.legend(loc="upper right")
    axis.margins(0.1, 0.25)


def _errors_and_speed(axis):
    rows = record(EVERY_METHOD)["results"]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        axis.plot(
            [row["images_per_second"] for row in own],
            [row["errors"]["ntk"]["relative"]["mean"] for row in own],
            "o-",
            label=method,
        )
    _log(axis, "images a second, widths 128 and 64", "relative error of the NTK")
    axis.legend(loc="upper left", fontsize="small", ncols=2)
    axis.set_ylim(top=6)


def accuracy_and_speed():
    """Left: accuracy on all of CIFAR-10 against seconds. Right: error of a convolutional NTK against speed, for every method."""  # noqa: E501
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    _accuracy(left)
    _errors_and_speed(right)
    return figure


def errors_and_speed():
    """Relative error of the NTK of a Myrtle network against images a second, for five methods."""
    figure, axis = plt.subplots()
    _errors_and_speed(axis)
    return figure


def calibration():
    """NTK error of landmarks against width: calibrated, with residual features, uncalibrated, and random features."""  # noqa: E501
    rows = record(f"{KERNELS}/cifar10-myrtle5-relu-24images-3keys.json")["results"]
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4))
    for axis, measure in zip(panels, ("relative", "centred"), strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if row["method"] == method]
            errors = [row["errors"]["ntk"][measure] for row in own]
            axis.errorbar(
                [row["width"] for row in own],
                [error["mean"] for error in errors],
                [error["std"] for error in errors],
                marker="o",
                label=method,
            )
        _log(axis, "width", f"{measure} error of the NTK")
        axis.set_xticks([64, 128, 256], ["64", "128", "256"])
        axis.minorticks_off()
    panels[1].legend(fontsize="x-small")
    return figure


def dense_networks():
    """NTK error against features for dense ReLU networks on the protein table, one and three hidden layers."""  # noqa: E501
    rows = record(f"{KERNELS}/networks-protein-1000examples-2keys.json")["results"]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
    for axis, depth in zip(panels, (1, 3), strict=True):
        for place, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            own = [row for row in rows if (row["method"], row["depth"]) == (method, depth)]
            axis.plot(
                [row["n_features"]["ntk"] for row in own],
                [row["errors"]["ntk"]["relative"]["mean"] for row in own],
                "o-" if place < 6 else "s--",
                label=method,
            )
        _log(axis, "NTK features", "", f"{depth} hidden layer{'s' * (depth > 1)}")
    panels[0].set_ylabel("relative error of the NTK")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        fontsize="small",
        ncols=4,
        loc="outside lower center",
    )
    return figure


def sphere():
    """NTK error against features on the sphere in 10 dimensions, one and two hidden layers."""
    rows = record(f"{KERNELS}/sphere-10d-1000points-3keys.json")["results"]
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    for axis, hidden in zip(panels, (1, 2), strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if (row["method"], row["hidden"]) == (method, hidden)]
            axis.plot(
                [row["n_features"] for row in own], [row["mean"] for row in own], "o-", label=method
            )
        _log(axis, "NTK features", "", f"{hidden} hidden layer{'s' * (hidden > 1)}")
    panels[0].set_ylabel("relative error of the NTK")
    panels[1].legend(fontsize="small")
    return figure


def series():
    """Error of Hermite series of dual kernels against their degree, for several nonlinearities."""
    rows = record(f"{KERNELS}/dual-kernels-1000points-256d.json")
    figure, axis = plt.subplots()
    for row in rows["results"]:
        if row["norm"] == 1.0:
            axis.plot(rows["settings"]["degrees"], row["grid"], label=row["nonlinearity"])
    _log(axis, "degree", "relative error at cosines in [-1, 1]", x=False)
    axis.legend(fontsize="small")
    return figure


def rank():
    """Test accuracy against kernel error, and against the number of features that are kept."""
    study = record(f"{KERNELS}/study-width64-17methods-2keys.json")["results"]
    kept = record(f"{KERNELS}/truncation-Nystroem64-64-128-1024.json")["results"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
    left.plot(
        [row["relative"]["mean"] for row in study], [row["accuracy"]["mean"] for row in study], "o"
    )
    _log(left, "relative error of the NTK", "test accuracy", "17 variants of width 64", y=False)
    right.plot([row["kept"] for row in kept], [row["accuracy"] for row in kept], "o-")
    twin = right.twinx()
    twin.plot([row["kept"] for row in kept], [row["relative"] for row in kept], "s--", color="C1")
    twin.set_ylim(0, 0.008)
    twin.set_ylabel("kernel error (dashed)")
    twin.spines["right"].set_visible(True)
    _log(right, "directions kept of one map", "test accuracy", "one map, truncated", y=False)
    return figure


def rows_of_tables():
    """Seconds against rows of a table, from 100,000 to 10 million."""
    found = record("benchmarks/results/rows-32x512.json")["results"]
    figure, axis = plt.subplots()
    rows = sorted(map(int, found))
    axis.plot(rows, [found[str(n)]["seconds"] for n in rows], "o-", label="seconds")
    axis.plot(
        rows,
        [found[str(n)]["anonymous_bytes"] / 2**20 for n in rows],
        "s--",
        label="memory beyond the file, MiB",
    )
    _log(axis, "rows of 32 columns", "")
    axis.legend()
    return figure


def evidence():
    """Log evidence against steps of Adam, by what is fitted."""
    found = record("experiments/regression/results/evidence-airfoil-width256-60steps.json")
    figure, axis = plt.subplots()
    for name, row in found["results"].items():
        if row["evidence"]:
            axis.plot(row["evidence"], label=name)
    axis.set_yscale("symlog", linthresh=1000)
    axis.set_xlabel("steps")
    axis.set_ylabel("log evidence of the training rows")
    axis.legend()
    return figure


def scaling():
    """Seconds against images and against pixels, both nearly linear."""
    found = record("benchmarks/results/scaling-Nystroem64.json")["results"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    for axis, name, square, slope in (
        (left, "images", 1, found["slope_by_images"]),
        (right, "side", 2, found["slope_by_pixels"]),
    ):
        seconds = found[f"seconds_by_{name}"]
        axis.plot([int(n) ** square for n in seconds], list(seconds.values()), "o-")
        label = "images of 32 x 32" if name == "images" else "pixels of an image, 20 images"
        _log(axis, label, "seconds", f"slope {slope:.2f}")
    return figure


def polynomial_sketch():
    """Error of sketched powers of inner products against the degree, for two trees."""
    found = record("experiments/sketches/results/speed-cpu-16384d-1024m.json")["results"]
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    for axis, row in zip(panels, found["fourier"], strict=True):
        for name, label in (("PolynomialSketch", "PolynomialSketch"), ("Fourier", "papers' tree")):
            errors = row[name]["error"]
            axis.plot(range(1, len(errors) + 1), errors, "o-", label=label)
        axis.set_title(f"d = {row['dimension']}, m = {row['width']}")
        axis.set_xlabel("degree")
    panels[0].set_ylabel("relative error")
    panels[0].legend()
    return figure


def selection():
    """Leave-one-out score over test error on ten tables, with landmarks among the examples and without."""  # noqa: E501
    found = record("experiments/selection/results/selection-10sets-600rows-width256.json")
    figure, axis = plt.subplots()
    names = list(found["results"])
    for place, score in enumerate(("loo, all", "loo, others", "gcv, all", "gcv, others")):
        ratios = [found["results"][name][score]["ratio"] for name in names]
        axis.plot(ratios, range(len(names)), "osD^"[place], label=score)
    axis.axvline(1, linestyle=":", color="C5")
    axis.set_yticks(range(len(names)), names)
    _log(axis, "score over test error, diag_reg=1e-4", "", y=False)
    axis.legend()
    return figure


if __name__ == "__main__":
    with plt.rc_context(STYLE):
        globals()[sys.argv[1]]().savefig(sys.argv[2], dpi=130, facecolor="white")
