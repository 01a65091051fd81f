"""What all processes of a regression must have in common, before any of them works."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..parallel._devices import Devices
from ..streaming._batch_checks import Kind
from ..streaming._batches import Batches, of_user
from ..streaming._feature_stream import FeatureStream
from ._examples import Data
from ._origin import check_same, origin_of


def given_by(x: Any, y: Any, devices: Devices) -> Any:
    """`Batches` of what holds inputs and targets; what else x is stays. Where others may have
    examples, arrays of none are batches of none.
    """
    if devices.processes is not None and getattr(x, "shape", (1,))[:1] == (0,):
        return Batches([], targets=True)
    return of_user(x, y)


def unless_empty(array: Any, devices: Devices) -> Any:
    """None for weights or groups of no examples, where others may have some."""
    empty = devices.processes is not None and array is not None and np.size(array) == 0
    return None if empty else array


def agreed(features: FeatureStream, data: Data, call: dict[str, Any]) -> Data:
    """The data, whose features fit the mesh; of one kind, map and call in all processes.

    Args:
      call: what was asked for, of what JSON can hold.

    Raises:
      ValueError: in all processes, with what differs.
    """
    if features.devices.processes is not None:
        data = _in_all(features, data, call)
    features.devices.check_width(features.spec(data.x).shape[1])
    return data


def _in_all(features: FeatureStream, data: Data, call: dict[str, Any]) -> Data:
    assert features.devices.processes is not None
    origin = origin_of(features.feature_map, features.get)
    kind = data.kind and data.kind._replace(shape=list(data.kind.shape), dtype=str(data.kind.dtype))
    about = {"call": call, "origin": origin.tolist(), "kind": kind and kind._asdict()}
    told = features.devices.processes.gathered(about)
    first = next((i for i, one in enumerate(told) if one["kind"] is not None), None)
    if first is None:
        raise ValueError(f"none of {len(told)} processes has an example; needed: at least one")
    for i, one in enumerate(told):
        check_same(
            np.array(told[0]["origin"], np.uint32),
            np.array(one["origin"], np.uint32),
            f"process {i} and process 0 have different feature maps. Make the map of the same"
            " sample and key in all of them, or save one and load it everywhere (save, ntk_sketch."
            "load)",
        )
        _check_equal(told[0]["call"], one["call"], 0, i, "arguments")
        if one["kind"] is not None:
            _check_equal(told[first]["kind"], one["kind"], first, i, "examples")
    if data.kind is not None:
        return data
    shape, dtype, *others = told[first]["kind"].values()
    data.x.nothing = Kind(tuple(shape), np.dtype(jnp.dtype(dtype)), *others)
    return data._replace(kind=data.x.nothing)


def _check_equal(ours: dict, theirs: dict, first: int, other: int, what: str) -> None:
    differing = [
        f"{name}: {ours[name]} in process {first}, {theirs[name]} in process {other}"
        for name in ours
        if ours[name] != theirs[name]
    ]
    if differing:
        raise ValueError(
            f"the processes were given different {what} ({'; '.join(differing)}): they work on one"
            " regression, each on its own examples; all else must be the same"
        )
