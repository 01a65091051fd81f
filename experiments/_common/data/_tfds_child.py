"""Run by `_tfds` in its own process: says on stdout how far it is, leaves arrays in argv[1]."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np


def say(*words: object) -> None:
    print(*words, sep="\t", flush=True)


def arrays(split: dict) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in the official order (an example's id is `train_00042`)."""
    order = np.argsort(split["id"]) if "id" in split else slice(None)
    return np.ascontiguousarray(split["image"][order]), split["label"][order].astype(np.int32)


def on_disk(tfds: Any) -> dict[str, dict] | None:
    """Both splits of a data set that was prepared as ArrayRecord or Parquet, which are read without
    TensorFlow; None where there is none, or a package that reads it is missing."""
    try:
        sources = tfds.data_source("cifar10", split=["train", "test"], download=False)
        return {
            split: joined(list(source))
            for split, source in zip(("train", "test"), sources, strict=True)
        }
    # as `data_source` says that there is nothing, or nothing that it can read
    except (AssertionError, ImportError, KeyError, NotImplementedError):
        return None


def joined(examples: list[dict]) -> dict[str, np.ndarray]:
    return {name: np.stack([np.asarray(one[name]) for one in examples]) for name in examples[0]}


def by_tensorflow(tfds: Any) -> dict[str, dict]:
    """Both splits, downloaded and prepared if need be."""
    load = tfds.load  # imports what `import tensorflow_datasets` puts off
    say("imported", tfds.core.constants.DATA_DIR)
    load("cifar10")
    say("prepared")
    return tfds.as_numpy(load("cifar10", batch_size=-1))


def main(target: str) -> None:
    # By name: what a type checker says of these modules depends on whether they are installed.
    tfds = import_module("tensorflow_datasets")
    data = on_disk(tfds)
    if data is None:
        if find_spec("tensorflow") is None:
            sys.exit("CIFAR-10 is not there as ArrayRecord, and preparing it needs TensorFlow")
        import_module("tensorflow")
        data = by_tensorflow(tfds)
    (x_train, y_train), (x_test, y_test) = arrays(data["train"]), arrays(data["test"])
    with open(target, "wb") as file:
        np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    say("done")


if __name__ == "__main__":
    main(sys.argv[1])
