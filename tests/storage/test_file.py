"""Arrays of every dtype and shape come back as they were."""

import jax.numpy as jnp
import numpy as np
import pytest

from ntk_sketch.storage import _file

X = np.arange(6).reshape(2, 3)
ARRAYS = {
    "bfloat16": jnp.asarray(X, jnp.bfloat16),
    "bfloat16, one number": jnp.asarray(1.5, jnp.bfloat16),
    "complex": X + 1j,
    "complex, none": np.zeros((0, 3), np.complex64),
    "the other order of bytes": X.astype(">f4"),
    "the other order of axes": np.asfortranarray(X.astype(np.float32)),
    "every second": X.astype(np.float64)[:, ::2],
    "one number": np.asarray(2.5),
    "none": np.zeros((2, 0), np.float32),
    "float16": X.astype(np.float16),
    "booleans": X > 2,
    "integers": X.astype(np.uint32) + np.uint32(2**31),
}


def test_all_in_one_file(tmp_path):
    _file.write(tmp_path / "file", {"kind": "test"}, list(ARRAYS.values()))
    about, arrays = _file.read(tmp_path / "file")
    assert about["kind"] == "test"
    for (name, array), found in zip(ARRAYS.items(), arrays, strict=True):
        assert found.dtype == array.dtype, name
        assert found.shape == array.shape, name
        assert found.tobytes() == np.asarray(array).tobytes(), name
        assert found.flags.owndata or found.base.flags.owndata, name


@pytest.mark.parametrize("count", [0, 11])
def test_any_number_of_arrays(count, tmp_path):
    _file.write(tmp_path / "file", {}, [np.asarray(i) for i in range(count)])
    assert [int(array) for array in _file.read(tmp_path / "file")[1]] == list(range(count))
