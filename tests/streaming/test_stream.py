"""Features batch by batch, several batches at a time."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_sketch.streaming import _computed, _stream, stream


@pytest.fixture(autouse=True, params=[1, 3])
def at_once(request, monkeypatch):
    monkeypatch.setattr(_computed, "_workers", lambda: request.param)
    return request.param


def gathered(batches):
    starts, stops, z = zip(*batches, strict=True)
    assert (*starts[1:], stops[-1]) == stops  # in order, without gaps
    assert [len(part) for part in z] == [b - a for a, b in zip(starts, stops, strict=True)]
    return np.concatenate(z)


@pytest.mark.parametrize("batch_size", [1, 4, 20, 50, None])
def test_every_example_once(make_map, make_data, batch_size):
    feature_map, x = make_map(), make_data(20)[0]
    seen = []
    z = gathered(stream(feature_map, x, batch_size=batch_size, progress=seen.append))
    np.testing.assert_allclose(z, feature_map(x).ntk, rtol=1e-5, atol=1e-6)
    assert sum(seen) == 20
    z = gathered(stream(feature_map, x, get="nngp", batch_size=batch_size))
    np.testing.assert_allclose(z, feature_map(x).nngp, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [3, 20, 45])
def test_order(make_map, make_data, n):
    feature_map, x = make_map(), make_data(20)[0]
    order = np.random.default_rng(0).integers(0, 20, n)
    z = gathered(stream(feature_map, x, batch_size=4, order=order))
    np.testing.assert_allclose(z, feature_map(x[order]).ntk, rtol=1e-5, atol=1e-6)


def test_padding_is_zero(make_map, make_data):
    """Of the batches that sums take, all of one shape."""
    options = {"get": "ntk", "batch_size": 4}
    *_, (start, stop, z) = _stream.batches(make_map(), make_data(10)[0], **options)
    assert (start, stop, z.shape) == (8, 10, (4, 20))
    np.testing.assert_array_equal(np.any(np.asarray(z) != 0, axis=1), [True, True, False, False])


def test_one_batch_needs_no_thread(make_map, make_data, monkeypatch):
    monkeypatch.setattr(_computed, "ThreadPoolExecutor", None)
    assert len(gathered(stream(make_map(), make_data(5)[0]))) == 5


def test_settings_of_the_calling_thread_hold(make_map, make_data, x64):
    x = make_data(10, np.float64)[0]
    feature_map = make_map(dtype=np.float64)
    z = gathered(stream(feature_map, x, batch_size=4))
    assert z.dtype == np.float64
    np.testing.assert_allclose(z, feature_map(jnp.asarray(x)).ntk, rtol=1e-14)


class TestWatched:
    """A feature map that tells when a batch is computed."""

    @pytest.fixture
    def watched(self, make_map):
        inner, seen, lock = make_map(), [], threading.Lock()

        def count(first):
            with lock:
                seen.append(float(first))

        def feature_map(x):
            jax.debug.callback(count, x[0, 0])
            return inner(x)

        return feature_map, seen

    def test_is_not_far_ahead(self, watched, make_data, at_once):
        feature_map, seen = watched
        batches = stream(feature_map, make_data(40)[0], batch_size=4)
        for taken in (1, 2, 3):
            next(batches)
            assert taken <= len(seen) <= taken + at_once
        batches.close()
        jax.effects_barrier()
        assert len(seen) <= 3 + at_once

    def test_a_batch_that_fails_ends_it(self, make_map, make_data, at_once):
        inner, x = make_map(), make_data(40)[0]
        x[9] = 1e15
        batches = stream(lambda x: inner(x * 1e30), x, batch_size=4)
        assert [next(batches)[:2] for _ in range(2)] == [(0, 4), (4, 8)]
        with pytest.raises(ValueError, match=r"features of examples 8 to 11 .*not finite"):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)
