"""`HiddenFeatures`: the input and output of rules, the per-example counterpart of `nt.Kernel`."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Array, PerKernel, Scalar
from ..numerics._precision import Precision
from ._patch_operator import PatchOperator
from ._rooted import Rooted, formed, mapped, raw
from ._unshared_windows import UnsharedWindows
from ._vectors import Vectors


class Affine(eqx.Module):
    """A Dense or Conv layer recorded but not yet applied; the next nonlinearity folds it into its
    own matrix product.

    With `P` the patches of a convolution (the identity if `operator` is `None`), it is the map

        φ' = [weight Pφ, bias],        ψ' = [weight Pψ, ntk_weight Pφ, ntk_bias],

    so that `K' = weight² P(K) + bias²` and `Θ' = weight² P(Θ) + ntk_weight² P(K) + ntk_bias²`. A
    bias of `None` means that there is none.
    """

    weight: Scalar
    bias: Scalar | None
    ntk_weight: Scalar
    ntk_bias: Scalar | None
    operator: PatchOperator | None = eqx.field(static=True, default=None)


class HiddenFeatures(eqx.Module):
    """Feature vectors of every position of every example, with their exact variances.

    Use this when you write a `Rule`: its transform takes and returns such an object. Inner products
    are `<nngp(x)_s, nngp(x')_t> ≈ K(x_s, x'_t)` and `<ntk(x)_s, ntk(x')_t> ≈ Θ(x_s, x'_t)`.

    Attributes:
        nngp: features of the NNGP kernel: a tuple of blocks of one long vector, arrays (n, *space,
            p), or (n, p) after a Flatten or a global pool. A block may be `Rooted`: kernel values
            whose multiplication by a root is pending. `concrete` applies it.
        ntk: features of the NTK, likewise, or `None` if the map was made without it. An empty tuple
            means `Θ = 0`, as at the input.
        variances: exact variances and covariances of nearby positions, or `None` if no later layer
            needs them.
        channels: the number of channels of the finite network, which 'standard' parameterization
            and concatenation need.
        pending: an affine layer not yet applied to the blocks. `variances` and `mask` are those
            after it.
        mask: which positions (n, *space) are masked, such as the padding of a sentence; `None`
            without masks. Features and variances are 0 there.
        patched: whether blocks hold patches that were formed since the last nonlinearity.

    Example: the transform of a layer that leaves features as they are.

        >>> from ntk_sketch import stax
        >>> class Passing(stax.Rule):
        ...     def fit(self, features, *, method, offsets, key, **kwargs):
        ...         return lambda features, **kwargs: features.concrete()
    """

    # Tuples of arrays, or of shapes while a map is planned.
    nngp: Any
    ntk: Any
    variances: Any = None
    channels: int = eqx.field(static=True, default=1)
    pending: Affine | None = None
    mask: Any = None
    patched: bool = eqx.field(static=True, default=False)

    @property
    def space(self) -> tuple[int, ...]:
        """Spatial shape after the pending layer."""
        space = self.nngp[0].shape[1:-1]
        if self.pending is None or self.pending.operator is None:
            return space
        return self.pending.operator.output_space(space)

    @property
    def are_patches(self) -> bool:
        """Whether vectors are patches, formed or not, with entries of neighbouring positions.

        Patches of unshared weights do not count.
        """
        operator = None if self.pending is None else self.pending.operator
        unshared = isinstance(operator, UnsharedWindows)
        return self.patched or (operator is not None and operator.size > 1 and not unshared)

    def replace(self, **changes) -> "HiddenFeatures":
        return dataclasses.replace(self, **changes)

    @property
    def dtype(self):
        return self.nngp[0].dtype

    def nngp_vectors(self) -> "Vectors":
        """φ after the pending layer, as `Vectors` that can be projected without being formed."""
        if self.pending is None:
            return Vectors(tuple((block, 1.0) for block in self.nngp), None, None)
        a = self.pending
        return Vectors(tuple((block, a.weight) for block in self.nngp), a.bias, a.operator)

    def ntk_vectors(self) -> "Vectors":
        """ψ after the pending layer, whose blocks then include those of φ."""
        if self.pending is None:
            return Vectors(tuple((block, 1.0) for block in self.ntk), None, None)
        a = self.pending
        blocks = tuple((block, a.weight) for block in self.ntk)
        blocks += tuple((block, a.ntk_weight) for block in self.nngp)
        return Vectors(blocks, a.ntk_bias, a.operator)

    def raw(self, columns: int, columns_ntk: int | None = None) -> "HiddenFeatures":
        """The features to multiply in a projection on this number of columns.

        A root is left out if it costs less as a part of the filters, which `fold` multiplies it
        into; otherwise it is applied.
        """
        operator = None if self.pending is None else self.pending.operator
        size = 1 if operator is None else operator.size
        shared = columns + self._shared(columns_ntk)
        ntk = self.ntk
        if ntk is not None and columns_ntk is not None:
            ntk = tuple(raw(block, size, columns_ntk) for block in ntk)
        return self.replace(nngp=tuple(raw(block, size, shared) for block in self.nngp), ntk=ntk)

    def fold(self, w: Any, s: Any, numpy: Any = jnp) -> PerKernel:
        """Columns for the vectors of `raw`, from those for φ, `w` (d, m), and ψ, `s` (d_ψ, m')."""
        columns_ntk = None if s is None else s.shape[1]
        shared = (w.shape[1] + self._shared(columns_ntk),) * len(self.nngp)
        w = self.nngp_vectors().fold(w, shared, numpy)
        if s is not None and self.ntk is not None:
            own = (int(s.shape[1]),) * len(self.ntk)
            counts = own if self.pending is None else own + shared
            s = self.ntk_vectors().fold(s, counts, numpy)
        return PerKernel(w, s)

    def _shared(self, columns_ntk: int | None) -> int:
        """The number of columns for ψ that multiply φ too, which is a block of ψ after an affine
        layer.
        """
        return 0 if self.pending is None else columns_ntk or 0

    def project(self, w: Array, s: Array | None, precision: Precision = "full") -> PerKernel:
        """Inner products of φ with the columns of `w` (d, m), and of ψ with those of `s` (d_ψ, m').

        They are 0 at masked positions. After an affine layer φ is among the blocks of ψ, and is
        multiplied by both sets of columns in one product.
        """
        u, v = self._project(w, s, precision)
        return PerKernel(self.masked(u), None if v is None else self.masked(v))

    def _project(self, w: Array, s: Array | None, precision: Precision) -> PerKernel:
        if self.rooted and precision == "full":
            raw = self.raw(w.shape[1], None if s is None else s.shape[1])
            return raw._project(*self.fold(w, s), precision)
        self = self.formed()  # roots magnify the rounding of what they multiply
        phi = self.nngp_vectors()
        if s is None or self.ntk is None:
            return PerKernel(phi.project(w, precision), None)
        psi = self.ntk_vectors()
        if self.pending is None:
            return PerKernel(phi.project(w, precision), psi.project(s, precision))
        terms = psi.terms(s)
        own, shared = terms[: len(self.ntk)], terms[len(self.ntk) :]
        both = [
            phi.through(block, jnp.concatenate([rows, rows_s], axis=1), precision)
            for (block, rows), (_, rows_s) in zip(phi.terms(w), shared, strict=True)
        ]
        columns = w.shape[1]
        projected = [psi.through(*term, precision) for term in own]
        return PerKernel(
            phi.summed([part[..., :columns] for part in both], w),
            psi.summed([*projected, *(part[..., columns:] for part in both)], s),
        )

    def masked(self, x: Any) -> Any:
        """`x` (n, *space, p), an array or `Rooted`, with 0 at masked positions."""
        if self.mask is None:
            return x
        return mapped(lambda values: jnp.where(self.mask[..., None], 0, values), x)

    @property
    def rooted(self) -> bool:
        """Whether the root of a block is pending."""
        return any(isinstance(block, Rooted) for block in (*self.nngp, *(self.ntk or ())))

    def formed(self) -> "HiddenFeatures":
        """The same features with all roots applied."""
        if not self.rooted:
            return self
        ntk = None if self.ntk is None else tuple(map(formed, self.ntk))
        return self.replace(nngp=tuple(map(formed, self.nngp)), ntk=ntk)

    def applied(self) -> "HiddenFeatures":
        """The same features with the pending layer applied.

        Roots are applied only if it has patches. Blocks may therefore still be `Rooted`, and `map`
        acts on them as they are.
        """
        if self.pending is None:
            return self
        features = self if self.pending.operator is None else self.formed()
        ntk = None if features.ntk is None else features.ntk_vectors().blocks_formed()
        return features.replace(
            nngp=tuple(map(self.masked, features.nngp_vectors().blocks_formed())),
            ntk=None if ntk is None else tuple(map(self.masked, ntk)),
            pending=None,
            patched=self.are_patches,
        )

    def concrete(self) -> "HiddenFeatures":
        """The same features as arrays, with the pending layer and all roots applied."""
        return self.applied().formed()

    def map(self, fn) -> "HiddenFeatures":
        """`fn` applied to every block, for linear layers that treat channels alike."""
        return self.replace(
            nngp=tuple(mapped(fn, block) for block in self.nngp),
            ntk=None if self.ntk is None else tuple(mapped(fn, block) for block in self.ntk),
        )


def of_examples(fn, features, *others):
    """`fn` applied to all arrays of `features` (one branch or a list) that have an example axis."""

    def leaf(first, *others):
        if isinstance(first, Rooted):  # the root has no example axis
            return first.map(lambda values: fn(values, *(other.values for other in others)))
        return fn(first, *others)

    def one(features: HiddenFeatures, *others: HiddenFeatures) -> HiddenFeatures:
        parts = [(f.nngp, f.ntk, f.variances, f.mask) for f in (features, *others)]
        nngp, ntk, variances, mask = jax.tree.map(
            leaf, *parts, is_leaf=lambda part: isinstance(part, Rooted)
        )
        return features.replace(nngp=nngp, ntk=ntk, variances=variances, mask=mask)

    return jax.tree.map(one, features, *others, is_leaf=lambda f: isinstance(f, HiddenFeatures))


def joined(blocks: tuple[Array, ...] | None, like: Array) -> Array | None:
    """The blocks as one array; for an empty tuple, the zero kernel, a single zero feature."""
    if blocks is None:
        return None
    if not blocks:
        return jnp.zeros((*like.shape[:-1], 1), like.dtype)
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=-1)


def is_abstract(features) -> bool:
    """Whether `features` are only shapes, as for data-independent methods."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(features))


def positions(space: tuple[int, ...]) -> int:
    return math.prod(space)
