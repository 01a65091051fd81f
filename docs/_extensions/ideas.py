"""Pictures without measurements: the walk of a batch, and what methods do, for one ReLU layer,
whose kernel has a closed form.

The kernel of unit vectors with angle θ is `E[σ(w·u) σ(w·v)] = (sin θ + (π - θ) cos θ) / 2π`.
"""

import math

import numpy as np
from drawing import plt
from matplotlib.patches import FancyBboxPatch
from numpy.polynomial.legendre import leggauss, legval

ANGLES = np.linspace(0, np.pi, 121)


def kernel(cosine):
    theta = np.arccos(np.clip(cosine, -1, 1))
    return (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / (2 * np.pi)


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _axes(count=1, **settings):
    figure, axes = plt.subplots(1, count, figsize=(4.2 * count, 2.9), **settings)
    for axis in np.ravel(axes):
        axis.plot(ANGLES, kernel(np.cos(ANGLES)), color="C5", linewidth=3, alpha=0.6, label="exact")
        axis.set_xlabel("angle")
        axis.set_xticks([0, np.pi / 2, np.pi], ["0", "π/2", "π"])
    return figure, axes


def _landmarks(axis, angles, label):
    x, z = circle(ANGLES), circle(angles)
    values, gram = kernel(x @ z.T), kernel(z @ z.T)
    estimate = values @ np.linalg.pinv(gram, hermitian=True) @ values[0]
    axis.plot(ANGLES, estimate, label=label)
    nearest = np.argmin(np.abs(ANGLES[:, None] - angles), axis=0)
    axis.plot(angles, estimate[nearest], "o", color="C0", markersize=4)
    axis.legend()


def idea_nystroem():
    """Kernel of a ReLU layer against the angle, exact and from four landmarks."""
    figure, axis = _axes()
    _landmarks(axis, np.array([0.6, 1.3, 2.1, 2.9]), "4 landmarks")
    return figure


def idea_exact():
    """Kernel of a ReLU layer against the angle, exact and from landmarks at every point."""
    figure, axis = _axes()
    _landmarks(axis, ANGLES[::5], "landmarks everywhere")
    return figure


def _random(rng, dimension=2, count=64):
    x = np.zeros((len(ANGLES), dimension))
    x[:, :2] = circle(ANGLES)
    z = np.maximum(x @ rng.normal(size=(dimension, count)), 0) / np.sqrt(count)
    return z @ z[0]


def idea_random_features():
    """Kernel of a ReLU layer against the angle, exact and as means over random projections."""
    figure, axis = _axes()
    for seed in range(3):
        axis.plot(
            ANGLES,
            _random(np.random.default_rng(seed)),
            linewidth=1,
            color="C0",
            label="64 projections" if seed == 0 else None,
        )
    axis.legend()
    return figure


def idea_leverage_score():
    """Root mean squared error of the kernel against the angle, for two densities of directions."""
    figure, axis = plt.subplots(figsize=(4.2, 2.9))
    exact, errors = kernel(np.cos(ANGLES)), {"Gaussian": [], "leverage scores": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        errors["Gaussian"].append(_random(rng) - exact)
        directions = circle(rng.uniform(0, 2 * np.pi, 64)).T * math.sqrt(2)  # norm √d: no weight
        z = np.maximum(circle(ANGLES) @ directions, 0) / 8
        errors["leverage scores"].append(z @ z[0] - exact)
    for name, values in errors.items():
        axis.plot(ANGLES, np.sqrt(np.mean(np.square(values), axis=0)), label=name)
    axis.set_xlabel("angle")
    axis.set_xticks([0, np.pi / 2, np.pi], ["0", "π/2", "π"])
    axis.set_ylabel("error of the kernel")
    axis.legend()
    return figure


def _coefficients(degree):
    """Of the kernel as a power series in the cosine."""
    found = np.zeros(degree + 1)
    found[:2] = 1, np.pi / 2
    for n in range(1, degree // 2 + 1):
        below = 2 ** (2 * n - 1) * math.factorial(n - 1) * math.factorial(n) * (2 * n - 1)
        found[2 * n] = math.factorial(2 * n - 2) / below
    return found / (2 * np.pi)


def idea_polysketch():
    """Kernel of a ReLU layer against the cosine, exact and as series of three degrees."""
    figure, axis = plt.subplots(figsize=(4.2, 2.9))
    cosine = np.linspace(-1, 1, 121)
    axis.plot(cosine, kernel(cosine), color="C5", linewidth=3, alpha=0.6, label="exact")
    for degree in (1, 2, 8):
        series = _coefficients(degree)
        series[-1] += kernel(1.0) - series.sum()
        axis.plot(cosine, np.polyval(series[::-1], cosine), linewidth=1, label=f"degree {degree}")
    axis.set_xlabel("cosine")
    axis.legend()
    return figure


def idea_gegenbauer():
    """Kernel of a ReLU layer on the sphere, from random directions and from Gegenbauer polynomials."""  # noqa: E501
    figure, axes = _axes(2, sharey=True)
    nodes, weights = leggauss(64)
    degrees = np.arange(7)
    polynomials = np.stack([legval(nodes, np.eye(7)[degree]) for degree in degrees])
    own = (2 * degrees + 1) / 2 * (polynomials @ (weights * kernel(nodes)))
    own = np.maximum(own, 0)  # odd degrees from 3 on are rounding
    own[-1] += kernel(1.0) - own.sum()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        axes[0].plot(ANGLES, _random(rng, dimension=3), linewidth=1, color="C0")
        directions = rng.normal(size=(3, 64))
        directions /= np.linalg.norm(directions, axis=0)
        inner = circle(ANGLES) @ directions[:2]
        z = legval(inner, np.sqrt(own * (2 * degrees + 1))) / 8
        axes[1].plot(ANGLES, z @ z[0], linewidth=1, color="C0")
    axes[0].set_title("random features")
    axes[1].set_title("Gegenbauer features")
    return figure


def _boxes(axis, labels, y, width, colour, height=0.62):
    for place, label in enumerate(labels):
        box = FancyBboxPatch(
            (place + (1 - width) / 2, y),
            width,
            height,
            fill=False,
            boxstyle="round,pad=0.02",
            edgecolor=colour,
            linewidth=1.5,
        )
        axis.add_patch(box)
        axis.text(place + 0.5, y + height / 2, label, ha="center", va="center", fontsize=8.5)
        if place:
            axis.annotate(
                "",
                (place + (1 - width) / 2 - 0.02, y + height / 2),
                (place - (1 - width) / 2 + 0.02, y + height / 2),
                arrowprops={"arrowstyle": "->", "color": "C5"},
            )


def walk():
    """A batch of examples becomes features, Gram matrix, weights and predictions."""
    figure, axis = plt.subplots(figsize=(7.4, 3.2))
    _boxes(
        axis,
        [
            "batch x\n(b, h, w, c)",
            "Features\nφ, ψ, variances",
            "Gram matrix\nZᵀZ, Zᵀy",
            "weights W\nfor each diag_reg",
            "predictions\nz(x) W",
        ],
        1.35,
        0.76,
        "C0",
    )
    _boxes(
        axis,
        [
            "Conv\na pending patch",
            "Relu\nlandmarks",
            "AvgPool\nacts on values",
            "Flatten\none vector",
            "Dense\nφ joins ψ",
        ],
        0.1,
        0.76,
        "C1",
    )
    axis.plot([1.15, 0.1], [1.3, 0.78], ":", color="C5")
    axis.plot([1.85, 4.9], [1.3, 0.78], ":", color="C5")
    axis.text(2.5, 2.15, "one batch, from examples to predictions", ha="center")
    axis.text(2.3, 0.82, "inside the map: one transform for each layer", ha="center", fontsize=8.5)
    axis.set_xlim(0, 5)
    axis.set_ylim(0, 2.35)
    axis.axis("off")
    return figure
