"""A fitted regression."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._arguments import checked_examples
from ..numerics._precision import promoted
from ..parallel._devices import Devices
from ..storage._saved import save
from ..streaming._batches import Batches, BatchesLike, is_batches
from ..streaming._feature_stream import FeatureStream
from ..streaming._progress import Progress
from ..streaming._stream import FeatureMapLike, Inputs, kernel_features
from ._conjugate_gradient import Report
from ._sums import project


class Fit(NamedTuple):
    """Numbers of one regression: its λ, condition, rank and residual."""

    diag_reg: float
    penalty: float
    condition: float
    rank: int
    residual: float
    report: Report | None = None


class RidgeSolution(eqx.Module):
    """The result of `ridge`: weights with their feature map.

    Use `predict` for predictions, `path` and `predict_path` to compare regularisers, and `save` to
    predict in another process.

    Attributes:
      feature_map: maps x to features.
      weights: W, (p, outputs), or (p,) for targets of shape (n,). Predictions are `z @ weights`.
        None for a path without selection.
      intercept: (outputs,), or () for targets of shape (n,); None if none was fitted.
      diag_reg: the chosen number, or the whole path without selection.
      scores: one per `diag_reg`, in the order given: the estimate of the mean squared error per
        example and output by `select` (GCV, leave-one-out, or error on validation examples), in the
        units of y². None without selection.
      n_examples: n.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> import ntk_sketch as ns
      >>> from ntk_sketch import stax
      >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
      >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
      >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
      >>> solution = ns.ridge(features, x, np.sin(x[:, 0]), diag_reg=[1e-3, 1e-2], select="gcv")
      >>> solution.predict(x).shape, solution.predict_path(x).shape
      ((50,), (2, 50))
      >>> len(solution.scores)
      2
    """

    feature_map: FeatureMapLike
    weights: Float[Array, "p ..."] | None
    path_weights: Float[Array, "m p ..."] | None
    intercept: Float[Array, ...] | None
    path_intercept: Float[Array, "m ..."] | None
    scores: Float[np.ndarray, " m"] | None
    diag_reg: float | tuple[float, ...] = eqx.field(static=True)
    n_examples: int = eqx.field(static=True)
    fits: tuple[Fit, ...] = eqx.field(static=True)
    chosen: int | None = eqx.field(static=True)
    get: str = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)

    def __hash__(self) -> int:
        raise TypeError(
            "a solution holds arrays and has no hash, so that jax.jit(solution.predict) cannot take"
            " it. Use equinox.filter_jit(solution.predict), or"
            " jax.jit(lambda x: solution.predict(x))"
        )

    @property
    def path(self) -> tuple[RidgeSolution, ...]:
        """One solution for each `diag_reg` of a sequence, in its order; () for a single number."""
        if self.path_weights is None:
            return ()
        return tuple(
            RidgeSolution(
                feature_map=self.feature_map,
                weights=self.path_weights[i],
                path_weights=None,
                intercept=None if self.path_intercept is None else self.path_intercept[i],
                path_intercept=None,
                scores=None,
                diag_reg=fit.diag_reg,
                n_examples=self.n_examples,
                fits=(fit,),
                chosen=0,
                get=self.get,
                batch_size=self.batch_size,
            )
            for i, fit in enumerate(self.fits)
        )

    @property
    def penalty(self) -> float:
        """λ: `diag_reg` times the mean squared feature norm, or `diag_reg` if it is absolute."""
        return self._fit.penalty

    @property
    def condition(self) -> float:
        """(largest eigenvalue + λ) / (smallest used eigenvalue + λ) of the Gram matrix."""
        return self._fit.condition

    @property
    def rank(self) -> int:
        """The number of directions used: min(n, p), or fewer if some are below rounding error."""
        return self._fit.rank

    @property
    def residual(self) -> float:
        """The relative residual of the normal equations, `‖(ZᵀZ + λI) W - ZᵀY‖ / ‖ZᵀY‖`.

        It is that of the weights before they are rounded to the dtype of the features; with an
        intercept Z and Y are centred. It is at most a few eps of float64 times `condition`, more if
        directions were dropped. For conjugate gradients it is that of the worst output, about their
        tolerance.
        """
        return self._fit.residual

    @property
    def report(self) -> Report | None:
        """The `Report` of `solver=ConjugateGradient(...)`; None for a direct solution."""
        return self._fit.report

    @property
    def _fit(self) -> Fit:
        if self.chosen is None:
            raise ValueError(
                f"this is a path of {len(self.fits)} regularisers, none of them selected: use "
                "solution.path[i], or fit with select='gcv', select='loo' or "
                "select=(x_val, y_val)"
            )
        return self.fits[self.chosen]

    def save(self, path: str | os.PathLike) -> None:
        """Writes weights, scores and feature map to a file, which `ntk_sketch.load` reads.

        Use this for predictions in another process, without the training data. The file is written
        as by `FeatureMap.save`. It holds all regressions of a path; each of `solution.path` can be
        saved separately.

        Args:
          path: of the file. Its folder must exist.

        Raises:
          TypeError: the feature map is a function of your own, or a function in it cannot be
            imported.
          OSError: the folder does not exist, or the disk is full.

        Example:
          >>> import os
          >>> import tempfile
          >>> import jax
          >>> import numpy as np
          >>> import ntk_sketch as ns
          >>> from ntk_sketch import stax
          >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
          >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
          >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
          >>> solution = ns.ridge(features, x, np.sin(x[:, 0]), diag_reg=[1e-3, 1e-2])
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     solution.save(os.path.join(folder, "path.safetensors"))
          ...     loaded = ns.load(os.path.join(folder, "path.safetensors"))
          >>> [one.diag_reg for one in loaded.path]
          [0.001, 0.01]
        """
        fingerprint = getattr(self.feature_map, "fingerprint", None)
        if fingerprint is None:
            raise TypeError(
                f"the feature map of this solution is {self.feature_map!r}, of which nothing is"
                " known that could be saved; needed: a map of ntk_sketch.feature_map, which takes a"
                " function of your own as preprocess=. Or save solution.weights and"
                " solution.intercept yourself (numpy.savez): predictions are"
                " features @ weights + intercept"
            )
        save(self, path, str(fingerprint))

    def predict(
        self, x: Inputs | BatchesLike, *, progress: Progress = None, mesh: Any = None
    ) -> Float[Array, "n ..."]:
        """Predictions `features(x) @ weights + intercept`: (n, outputs), or (n,) for targets (n,).

        x is streamed in batches and may be larger than device memory. Under `eqx.filter_jit`,
        `grad` or `vmap`, where x is traced, all of x is one batch and values are not checked.

        Cost: the features, and 2 n p k FLOPs.

        Args:
          x: inputs (n, ...), like those of the training; or batches of them, as in `ridge`: each
            batch is x or a pair (x, y), whose y is ignored. (A list of arrays is refused, as it
            could be several inputs: join them.)
          progress: as in `ridge`.
          mesh: as in `ridge`: batches are split among its devices. Each of several processes
            predicts its own x.

        Raises:
          TypeError: x is not floating point.
          ValueError: a path without selection; x is empty, not finite, or not of the shape that
            the feature map takes.
        """
        _ = self._fit
        assert self.weights is not None
        return self._means(x, self.weights, self.intercept, progress, mesh)

    def predict_path(
        self, x: Inputs | BatchesLike, *, progress: Progress = None, mesh: Any = None
    ) -> Float[Array, "m n ..."]:
        """The predictions of all m regressions of a path: (m, n, outputs).

        It takes one pass over x, where `[s.predict(x) for s in solution.path]` takes m. Arguments
        and errors are those of `predict`, but no selection is needed.

        Raises:
          ValueError: the solution has a single `diag_reg`.
        """
        if self.path_weights is None:
            raise ValueError(
                "there is no path: diag_reg was a single number; use predict(x), or fit with a"
                " sequence of diag_reg"
            )
        m, p, *outputs = self.path_weights.shape
        weights = jnp.moveaxis(self.path_weights, 0, 1).reshape(p, -1)
        intercepts = None if self.path_intercept is None else self.path_intercept.reshape(-1)
        means = self._means(x, weights, intercepts, progress, mesh)
        return jnp.moveaxis(means.reshape(-1, m, *outputs), 1, 0)

    def _means(
        self, x: Any, weights: Array, intercept: Array | None, progress: Progress, mesh: Any
    ):
        devices = Devices.of(mesh).alone()
        x = Batches(x, targets=False) if is_batches(x) else checked_examples(x)
        settings = self.get, self.batch_size, progress, "predictions"
        features = FeatureStream(self.feature_map, *settings, devices)
        spec = features.spec(x)
        if spec.shape[1] != weights.shape[0]:
            shape = x.kind.shape if isinstance(x, Batches) else x.shape[1:]
            raise ValueError(
                f"examples of shape {tuple(shape)} have {spec.shape[1]} features but the "
                f"weights are for {weights.shape[0]}; needed: examples shaped like the "
                "training examples"
            )
        if isinstance(x, Tracer) or isinstance(weights, Tracer):
            mean = project(kernel_features(self.feature_map(x), self.get), weights)
            if intercept is None:
                return mean
            return mean + jnp.broadcast_to(intercept, mean.shape)
        weights = devices.put_whole(weights)
        means = (np.asarray(project(z, weights))[: b - a] for a, b, z in features(x))
        if isinstance(x, Batches):
            mean = np.concatenate(list(means))
        else:
            mean = np.empty((len(x), *weights.shape[1:]), promoted(spec.dtype, weights.dtype))
            done = 0
            for part in means:
                mean[done : done + len(part)] = part
                done += len(part)
        if intercept is not None:
            mean += np.asarray(intercept)
        return jax.device_put(mean)
