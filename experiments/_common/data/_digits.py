"""The handwritten digits that scikit-learn ships: what is left when there is no CIFAR-10."""

import numpy as np

from ._source import DataError, Source

N_TEST = 500


def open_digits() -> Source:
    """1,297 training and 500 test images, 8x8, grey values 0 to 16, in scikit-learn's order.

    The order is by writer, so that the last images are mostly by people who wrote none of the
    first ones.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "No CIFAR-10 was found, and the digits that could stand in for it come with "
            "scikit-learn, which is not installed: pip install scikit-learn, or give --data-dir."
        ) from error
    flat, labels = load_digits(return_X_y=True)
    x, y = flat.astype(np.uint8).reshape(-1, 8, 8, 1), labels.astype(np.int32)
    parts = {"train": (x[:-N_TEST], y[:-N_TEST]), "test": (x[-N_TEST:], y[-N_TEST:])}

    def read(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = map(np.asarray, parts[split])
        if count > len(images):
            raise DataError(f"The digits have {len(images):,} {split} images, not {count:,}.")
        return images[:count], labels[:count]

    return Source(
        dataset="digits",
        format="scikit-learn",
        description="the 8x8 digits of scikit-learn",
        n_train=len(x) - N_TEST,
        n_test=N_TEST,
        shape=(8, 8, 1),
        classes=tuple(str(digit) for digit in range(10)),
        read=read,
    )
