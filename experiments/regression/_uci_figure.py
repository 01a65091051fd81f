"""Errors relative to the best of each table, and the calibration of the Gaussian process."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments._common._study import figure

from ._scores import LEVELS


def draw(path: Path, results: dict[str, Any]) -> None:
    methods = list(dict.fromkeys(m for r in results.values() for m in r["methods"]))
    with figure(path, (11, 4.4), 1, 2, width_ratios=[3, 2]) as (_, axes):
        errors, calibration = axes[0]
        for place, method in enumerate(methods):
            ratios = [
                r["methods"][method]["rmse"] / min(of["rmse"] for of in r["methods"].values())
                for r in results.values()
                if method in r["methods"]
            ]
            jitter = np.linspace(-0.25, 0.25, len(ratios))
            errors.plot(ratios, place + jitter, ".", color="tab:blue", alpha=0.7)
            errors.plot([np.exp(np.mean(np.log(ratios)))] * 2, [place - 0.35, place + 0.35], "k")
        errors.set_xscale("log")
        errors.set_yticks(range(len(methods)), methods)
        errors.invert_yaxis()
        errors.set_xlabel("test error over the smallest of the table (bar: geometric mean)")
        found = np.array(
            [
                of["coverage"]
                for r in results.values()
                for of in r["methods"].values()
                if "coverage" in of
            ]
        )
        calibration.plot([0, 1], [0, 1], ":", color="0.5")
        if len(found):
            calibration.plot(LEVELS, found.T, color="tab:orange", alpha=0.3, linewidth=0.8)
            calibration.plot(LEVELS, found.mean(axis=0), "o-", color="tab:red", markersize=3)
        calibration.set_xlabel("probability of a central interval")
        calibration.set_ylabel("share of test targets inside")
        calibration.set_title("NNGP features, Gaussian process", fontsize="medium")
