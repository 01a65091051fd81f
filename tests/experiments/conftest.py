"""Images to try experiments on."""

import numpy as np
import pytest


@pytest.fixture
def images(tmp_path):
    """A folder with as many images of noise as the smallest runs read."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    arrays = {}
    for split, n in (("train", 300), ("test", 30)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (n, 3, 32, 32), np.uint8)
        arrays[f"y_{split}"] = rng.integers(0, 10, n).astype(np.uint8)
    np.savez(folder / "cifar10_small.npz", **arrays)
    return folder
