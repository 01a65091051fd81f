"""Nyström features: landmarks from the sample, and random features of the residual kernel."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np

from .._arguments import checked_choice, checked_share
from .._typing import PRNGKey
from ..activations import DualActivation
from ..activations._dual_kernels import DualKernels
from ..features._hidden import HiddenFeatures
from ..numerics._host_random import generator
from ..numerics._precision import Precision, checked_precision
from ._calibration import calibrated
from ._directions import residual_directions
from ._expansion import LandmarkExpansion, expansion
from ._landmarks import HELD_OUT, check_values, landmarks_at, values_of
from ._method import Method
from ._network import Network, Scope, checked_scope
from ._principal import PrincipalProjection, principal_projection
from ._product_sampling import product_positions
from ._products import ProductLandmarks, product_landmarks
from ._sampling import OF_KERNELS, SAMPLINGS, Sampling, sample_positions
from ._schedule import Schedule, ranks, shares, widths
from ._survey import Survey, surveyed

#: Share of residual features at the last nonlinearity before positions are flattened.
_BEFORE_FLATTEN = 0.5


class Nystroem(Method):
    """Features from kernel values with landmarks, which are positions of the sample.

    Use this by default: on CIFAR-10 its NTK error is less than a tenth of that of `RandomFeatures`
    of equal width (`experiments/kernel_approximation`). It needs example inputs.

    Let φ and ψ be the NNGP and NTK features of a position (patches and bias included) before a
    nonlinearity `σ`, and φ' and ψ' those after it. `m₁` positions of the sample become landmarks
    `Z`, the same for both kernels, and

        φ' = k_σ(φ, Z) R,        ψ' = [k_σ'(φ, Z) ⊙ <ψ, Z_ψ>] R_ψ,

    with exact variances in both kernels. Without calibration `R` is a root of the pseudo-inverse of
    `k_σ(Z, Z)`, and `R_ψ` one of that of `k_σ'(Z, Z) ⊙ <Z_ψ, Z_ψ>`. This is the Nyström
    approximation, exact at the landmarks. With calibration `R` is fitted to kernel values at other
    positions (the modified Nyström method): the cost is the same, and in a Myrtle network the
    kernel error is several times smaller.

    Residual features are `m₂` random functions `σ(Wφ)` and `σ'(Wφ) ⊙ Sψ` minus their projection on
    the landmarks. Their covariance is the residual kernel, the part that landmark features miss.
    Without calibration, and with exact input features, they make a nonlinearity's kernel unbiased.

    Patches of a convolution that a linear layer would form (`Method.compresses`) are projected on
    their `width` principal directions in the sample.

    With `scope="network"` a whole fully connected net is one nonlinearity of its inputs. Examples
    of the sample become landmarks Z, and with the exact kernels K and Θ of the net

        φ' = K(x, Z) R,        ψ' = Θ(x, Z) R_ψ.

    The only error is then that of one Nyström approximation. Use it for dense nets with any
    nonlinearities and branches, whose kernel of a pair costs an inner product and a few numbers for
    every layer. Convolutional nets, whose kernels compare all pairs of positions, need "layer".

    Args:
        width: number `m₁ + m₂` of features of φ' and of ψ' each, at every nonlinearity (fewer if
            the sample has fewer positions, or if features would be rounding); or a schedule, one
            number for each nonlinearity in the order of the model. Choose small widths early, where
            many positions make them costly, and large ones late, where they set the rank of the
            features. With `scope="network"` it is the number of features of either kernel in total.
        residual: share `m₂ / width`, 0 <= residual < 1, or a schedule of shares. Raise it to lower
            the error of the centred kernel, and of kernels close to diagonal; it lowers the rank
            that a regression can use. `None`: one half at the last nonlinearity before a `Flatten`
            of positions with no pool in between, where the residual would be missing in the
            diagonal of an example; elsewhere 0.
        sampling: how landmarks are chosen: by ridge leverage scores ("leverage", arXiv 1605.07583),
            by randomly pivoted Cholesky ("pivoted", arXiv 2207.06503), with probability
            proportional to the kernel's diagonal ("diagonal") or uniformly ("uniform"). Positions
            that agree to about `√eps` count once, since both would make the Gram matrix singular.
        calibrate: fit to kernel values at other positions, if each half of the sample's examples
            has at least four of them for each feature; and scale residual features to their exact
            norm. Turn it off for unbiased kernels.
        rcond: cut off eigenvalues of landmark Gram matrices below this share of the largest.
            `None`: drop the features whose rounding, measured at other positions, exceeds 0.64 of
            the feature (`LARGEST_NOISE`) and would add more error to the kernel than the feature
            removes. In float64: those below `m₁ eps`.
        rank: project landmarks on this number of principal directions, if that costs less, or a
            schedule. `None`: keep all. Set it to save time where patches are smooth: on CIFAR-10,
            96 of 288 directions after a 3x3 convolution cost a regression 0.15 points of accuracy
            (`experiments/cifar10`). Exact variances are unaffected. Not with residual features.
        precision: of the inputs of the projections: "full" (that of the features), "tensorfloat32"
            or "bfloat16". Decompositions and products with kernel values stay in full precision.
        scope: "layer"; or "network" for inputs (n, d) and layers that act on vectors: `Dense`,
            nonlinearities, `LayerNorm`, `Dropout`, branches.

    Cost to apply: `2 n |space| (d + d_ψ) width` FLOPs for projections of vectors of dimension d and
    d_ψ, or with a rank `2 n |space| rank (d + d_ψ + 2 width)`. Roots cost nothing if the filters of
    the next nonlinearity absorb them, and `4 n |space'| width²` at the end, with the positions left
    after the last pool. To fit: O(width³) in float64, on a GPU or by LAPACK, and the sample's
    features. With `scope="network"`: `2 n d width` for inner products, O(n width) for every layer
    and the same `4 n width²`.

    To choose the landmarks of a dense network yourself, give `feature_map` only these examples:
    `feature_map(model, x[index], Nystroem(len(index)), key=key)`.

    Derivatives with respect to inputs are exact for landmark features and unbiased for residual
    features. `jax.grad` with respect to hyperparameters of the model (`W_std`, `b_std`) works
    outside of `jax.jit`: landmarks stay fixed, and roots are differentiated.

    Warns, once a call of `feature_map`, with the layers, the width asked for and the one used:
        UserWarning: the sample has fewer usable positions (variance above 0, equal ones counted
            once) than the width asks for; or more than half of the features of a kernel that were
            asked for are rounding in the dtype of the inputs.

    Raises, from `feature_map`:
        ValueError: all positions of the sample have variance 0; the schedule does not fit the model
            (a note names the layer); "network" with inputs that have positions.
        NotImplementedError: "network" with a layer that has a method of its own.
        TypeError: only a shape is given, or the map is made under `jax.jit` or `jax.vmap`.

    Source: Nyström: Williams and Seeger 2001; calibration: Wang and Zhang 2013, Wang, Zhang and
    Zhang 2016; landmarks for convolutional NTKs with exact variances and residual features:
    derived here and in `expansion`; landmark examples: Falkon (Rudi, Carratino and Rosasco 2017).

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
        >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
        >>> features.n_features["nngp"]
        16
    """

    uses_function = "in residual features"

    width: Schedule = eqx.field(static=True)
    residual: Schedule = eqx.field(static=True)
    sampling: Sampling = eqx.field(static=True)
    calibrate: bool = eqx.field(static=True)
    rcond: float | None = eqx.field(static=True)
    rank: Schedule = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)
    scope: Scope = eqx.field(static=True)

    def __init__(
        self,
        width: int | Sequence[int] | Schedule,
        *,
        residual: float | int | Sequence[float | int | None] | Schedule | None = None,
        sampling: Sampling = "leverage",
        calibrate: bool = True,
        rcond: float | None = None,
        rank: int | Sequence[int | None] | Schedule | None = None,
        precision: Precision = "full",
        scope: Scope = "layer",
    ):
        self.width = widths(width)
        self.scope = checked_scope(scope, self.width)
        self.residual = shares(residual, "residual")
        if scope == "network" and any(self.residual.entries):
            raise ValueError(
                f'residual={residual!r} with scope="network": random functions whose covariance is'
                " the kernel of a whole network would be wide networks themselves. Leave residual"
                ' out, or use scope="layer".'
            )
        self.sampling = checked_choice(sampling, "sampling", SAMPLINGS)
        self.calibrate = bool(calibrate)
        self.rcond = checked_share(rcond, "rcond")
        self.rank = ranks(rank)
        if any(self.rank.entries) and any(self.residual.entries):
            raise ValueError(
                f"Nystroem(rank={self.rank}, residual={self.residual}): residual features are"
                " functions of all directions; leave out one of the two"
            )
        if any(self.rank.entries) and scope == "network":
            raise ValueError(
                f'rank={self.rank} with scope="network": landmarks are examples there, and products'
                " with them cost little. Leave rank out, or project the examples themselves"
            )
        self.precision = checked_precision(precision)

    @property
    def looks_at_data(self) -> bool:
        return True

    @property
    def whole_network(self) -> bool:
        return self.scope == "network"

    def expand_network(
        self, network: Network, features: HiddenFeatures, *, key: PRNGKey
    ) -> LandmarkExpansion:
        dual = network.kernels(features)
        self.check_examples(dual.name, features)
        return self._expanded(dual, features, key, 0.0)

    def expand(
        self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey
    ) -> LandmarkExpansion:
        return self._expanded(dual, features, key, self.residual.one or 0.0)

    def expand_before_flatten(
        self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey
    ) -> LandmarkExpansion:
        if self.residual.one is not None or self.rank.one or not dual.has_function:
            return self.expand(dual, features, key=key)
        return self._expanded(dual, features, key, _BEFORE_FLATTEN)

    def expand_product(
        self, name: str, branches: list[HiddenFeatures], *, key: PRNGKey
    ) -> ProductLandmarks:
        check_values(type(self).__name__, name, branches, key)
        fixed, rng = values_of(branches), generator(key)
        index, seen = product_positions(name, fixed, self.width.one, self.sampling, rng)
        options: Any = {"rcond": self.rcond, "asked": self.width.one}
        return product_landmarks(name, branches, index, seen, precision=self.precision, **options)

    @property
    def compressed_width(self) -> int | None:
        return self.width.one

    def compress(self, name: str, features: HiddenFeatures, *, key: PRNGKey) -> PrincipalProjection:
        return principal_projection(name, features, self.width.one, self.precision, key)

    def _expanded(
        self, dual: DualKernels, features: HiddenFeatures, key: PRNGKey, share: Any
    ) -> LandmarkExpansion:
        check_values(type(self).__name__, dual.name, features, key)
        rng, rng_landmarks, rng_residual = generator(key).spawn(3)
        # Landmarks are chosen by values, so that they stay fixed under differentiation.
        fixed_dual, fixed = values_of((dual, features))
        survey = surveyed(fixed_dual, fixed, whole=self.sampling in OF_KERNELS)
        positions = survey.usable
        landmarks, residual = self.shares(dual, len(positions), share)
        chosen = positions
        if landmarks < len(positions):
            chosen = self.choose(fixed_dual, fixed, survey, landmarks, rng_landmarks)
        others = np.setdiff1d(positions, chosen)
        seen = rng.permutation(others if len(others) else chosen)[:HELD_OUT]
        shape = (features.nngp[0].shape[0], *features.nngp_vectors().space)
        index, seen = (np.unravel_index(where, shape) for where in (chosen, seen))
        rank, directions = self.rank.one, (None, None)
        z = landmarks_at(dual, features, index, seen, self.precision, rank)
        if residual:
            sizes = len(z.z.nngp), None if z.z.ntk is None else len(z.z.ntk)
            directions = self.directions(*sizes, residual, rng_residual)
        made = expansion(
            z, dual, *directions, self.precision, self.calibrate, self.rcond, self.width.one
        )
        made = calibrated(made, dual, features, others, rng) if self.calibrate else made
        return made.folded(features)

    def choose(
        self,
        dual: DualKernels,
        features: HiddenFeatures,
        survey: Survey,
        count: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """`count` of the flat indices `survey.usable` of the sample, to be landmarks."""
        return sample_positions(dual, features, survey, count, self.sampling, rng)

    def directions(
        self, d: int, d_ntk: int | None, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Directions `w` (d, count) and `s` (d_ψ, count) of the residual features, with `E[w wᵀ] =
        I` and `E[s sᵀ] = I`. `s` is `None` if d_ψ is.
        """
        return residual_directions(d, d_ntk, count, rng)

    def check_sample(self, dual: DualKernels, positions: int) -> None:
        if not positions:
            raise ValueError(
                f"{type(self).__name__}(width={self.width}) at {dual.name}: all positions of the"
                " sample have variance 0 there; its examples are 0, or so small that their squares"
                " are 0 in this dtype. Give feature_map other examples, or scale them up."
            )

    def shares(self, dual: DualKernels, positions: int, share: Any) -> tuple[int, int]:
        """Numbers of landmarks and of residual features, for a sample of `positions` positions. If
        the width reaches that number, all become landmarks.
        """
        self.check_sample(dual, positions)
        width = self.width.one
        if width >= positions:
            return positions, 0
        residual = math.floor(share * width)
        return width - residual, residual
