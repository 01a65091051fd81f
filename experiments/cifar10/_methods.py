"""The methods of approximation that `--method` knows; a new one is one line."""

from collections.abc import Callable

import ntk_sketch as ns

METHODS: dict[str, Callable] = {
    "Nystroem": ns.Nystroem,
    "RandomFeatures": ns.RandomFeatures,
    "LeverageScore": ns.LeverageScore,
}
