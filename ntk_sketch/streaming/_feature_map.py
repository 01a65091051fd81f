"""What may stand for a feature map."""

from __future__ import annotations

from typing import Any


def check_feature_map(feature_map: Any) -> None:
    """That of a model is `feature_map(model, ...)`, that of a kernel does not exist."""
    if callable(feature_map) and not isinstance(feature_map, type):
        return
    kind = type(feature_map).__name__
    if isinstance(feature_map, tuple):
        raise TypeError(
            f"feature_map is a {kind}, a network; needed: its feature map, such as"
            " ntk_sketch.feature_map(model, x[:256], ntk_sketch.Nystroem(1024), key=key)"
        )
    raise TypeError(
        f"feature_map is a {kind}; needed: what ntk_sketch.feature_map(model, ...) returns, or a"
        " function from x to an object with attributes `nngp` and `ntk`"
    )
