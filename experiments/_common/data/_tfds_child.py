"""Run by `_tfds` in its own process: says on stdout how far it is, leaves arrays in argv[1]."""

import sys
from importlib import import_module

import numpy as np


def say(*words: object) -> None:
    print(*words, sep="\t", flush=True)


def arrays(split: dict) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in the official order (an example's id is `train_00042`)."""
    order = np.argsort(split["id"]) if "id" in split else slice(None)
    return np.ascontiguousarray(split["image"][order]), split["label"][order].astype(np.int32)


def main(target: str) -> None:
    # By name: what a type checker says of these modules depends on whether they are installed.
    import_module("tensorflow")
    tfds = import_module("tensorflow_datasets")

    load = tfds.load  # imports what `import tensorflow_datasets` puts off
    say("imported", tfds.core.constants.DATA_DIR)
    load("cifar10")  # downloads and prepares what is not on the disk
    say("prepared")
    data = tfds.as_numpy(load("cifar10", batch_size=-1))
    (x_train, y_train), (x_test, y_test) = arrays(data["train"]), arrays(data["test"])
    with open(target, "wb") as file:
        np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    say("done")


if __name__ == "__main__":
    main(sys.argv[1])
