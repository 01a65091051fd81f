"""Maps, solutions and statistics that tests save, with the functions that a user wrote for them."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ntk_sketch as ns
from ntk_sketch import stax

KEY = jax.random.key(0)


class Scaling(eqx.Module):
    """Numbers of every kind that a user may keep."""

    scale: jax.Array
    shift: np.ndarray
    factor: np.float32
    half: jax.Array
    key: jax.Array

    def __call__(self, x):
        noise = jax.random.uniform(self.key, x.shape[1:], x.dtype)
        shift = self.shift.astype(x.dtype) + self.half.astype(x.dtype)
        return x * self.scale.astype(x.dtype) * self.factor.astype(x.dtype) + shift + noise[None]


def scaling():
    x = np.linspace(0.1, 0.4, 2, dtype=np.float32).reshape(1, 1, 1, 2)
    return Scaling(
        scale=jnp.asarray(1.3, jnp.float32),
        shift=x,
        factor=np.float32(0.7),
        half=jnp.asarray(x, jnp.bfloat16),
        key=jax.random.key(5),
    )


def turned(x):
    return x[:, ::-1]


def finite(params, x, *, shift, squash=True):
    """A network of a user."""
    hidden = x @ params["first"] + shift[None]
    return (jnp.tanh(hidden) if squash else hidden) @ params["last"][0]


def inputs(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def dense_net():
    return stax.serial(
        stax.Dense(4, 1.4, 0.1), stax.Gelu(), stax.Dense(4), stax.Relu(), stax.Dense(1)
    )


def image_net():
    return stax.serial(
        stax.Conv(4, (3, 3), W_std=1.4, b_std=0.1, padding="SAME"),
        stax.LeakyRelu(0.1),
        stax.AvgPool((2, 2)),
        stax.FanOut(2),
        stax.parallel(stax.Dense(4), stax.with_method(stax.Dense(4), ns.RandomFeatures(4))),
        stax.FanInSum(),
        stax.LayerNorm(),
        stax.ElementwiseNumerical(jax.nn.silu, 25),
        stax.Flatten(),
        stax.Dense(1),
    )


METHODS = {
    "nystroem": ns.Nystroem(4, residual=0.5),
    "nystroem schedule": ns.Nystroem([4, 6], residual=[0.5, 0.0]),
    "random": ns.RandomFeatures(8),
    "leverage score": ns.LeverageScore(8),
    "poly sketch": ns.PolySketch(3, 8),
    "gegenbauer": ns.Gegenbauer(3, 8),
    "exact": ns.Exact(),
}
NETWORK = {
    "poly sketch network": ns.PolySketch(3, 8, scope="network"),
    "gegenbauer network": ns.Gegenbauer(3, 8, scope="network"),
}


def images(dtype=np.float32):
    return inputs(6, 5, 5, 2, dtype=dtype)


def rows(dtype=np.float32):
    return inputs(40, 4, dtype=dtype)


def image_map(method, dtype=np.float32, **options):
    return ns.feature_map(image_net(), images(dtype), method, key=KEY, **options)


def dense_map(method=METHODS["nystroem"], dtype=np.float32, **options):
    return ns.feature_map(dense_net(), rows(dtype), method, key=KEY, **options)


def dense_maps(dtype):
    """Names, maps and examples of maps that exist for dense nets alone."""
    for name, method in NETWORK.items():
        yield name, dense_map(method, dtype), rows(dtype)


def image_maps(dtype):
    """Names, maps and examples of all other kinds of maps."""
    for name, method in METHODS.items():
        yield name, image_map(method, dtype), images(dtype)
    user = image_map(METHODS["nystroem"], dtype, preprocess=scaling())
    yield "preprocessed", user, images(dtype)
    both = user.averaged([ns.maps.mirrored, turned])
    yield "averaged", both, images(dtype)


def solutions(dtype):
    """Names, solutions and examples of all kinds of solutions."""
    feature_map, x, y = dense_map(dtype=dtype), rows(dtype), inputs(40, 2, dtype=dtype, seed=1)
    path = {"diag_reg": (1e-2, 1e-1, 1.0)}
    yield "one", ns.ridge(feature_map, x, y, diag_reg=0.1), x
    yield "path", ns.ridge(feature_map, x, y, **path), x
    selected = ns.ridge(feature_map, x, y, select="gcv", fit_intercept=True, **path)
    yield "selected", selected, x
    yield "of a path", selected.path[1], x
    yield "one output", ns.ridge(feature_map, x, y[:, 0], diag_reg=0.1, get="nngp"), x


def few(dtype):
    """A map and a solution, small enough to be kept among the tests."""
    net = stax.serial(
        stax.Conv(1, (2, 2), b_std=0.1), stax.Relu(), stax.AvgPool((2, 2)), stax.Flatten()
    )
    x = inputs(6, 4, 4, 1, dtype=dtype)
    yield "map", ns.feature_map(net, x, ns.Nystroem(4, residual=0.5), key=KEY), x
    x, y = inputs(40, 3, dtype=dtype), inputs(40, 1, dtype=dtype, seed=1)
    net = stax.serial(stax.Dense(1), stax.Gelu(), stax.Dense(1))
    feature_map = ns.feature_map(net, x, ns.Nystroem(4), key=KEY)
    options = {"diag_reg": (1e-2, 1e-1), "select": "gcv", "fit_intercept": True}
    yield "solution", ns.ridge(feature_map, x, y, **options), x


def save_all(folder, kinds, dtype):
    """Files of one of the functions above, their examples, and what the objects answer to them."""
    for name, value, x in globals()[kinds](dtype):
        value.save(f"{folder}/{name}.safetensors")
        np.save(f"{folder}/{name}.x.npy", x)
        np.savez(f"{folder}/{name}.expected.npz", **answers(value, x))


def answer_all(folder):
    """The same answers of what is loaded, from the files and the examples alone."""
    for path in Path(folder).glob("*.safetensors"):
        found = answers(ns.load(path), np.load(path.with_suffix(".x.npy")))
        np.savez(path.with_suffix(".found.npz"), **found)


def answers(saved, x):
    """Everything that a map or a solution says of examples."""
    if isinstance(saved, ns.FeatureMap):
        features = saved(x)
        return {"nngp": features.nngp, "ntk": features.ntk, "landmark": saved.is_landmark(x)}
    found = {} if saved.scores is None else {"scores": saved.scores}
    if saved.chosen is not None:
        found["predict"] = saved.predict(x)
    if saved.path:
        found["path"] = saved.predict_path(x)
    return found
