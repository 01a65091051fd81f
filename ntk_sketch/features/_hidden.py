"""`HiddenFeatures`: what flows through the rules, the per-example counterpart of `nt.Kernel`."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp

from .._typing import Array, Scalar
from ..numerics._precision import Precision
from ._patch_operator import PatchOperator
from ._rooted import Rooted, formed, mapped, raw
from ._unshared_windows import UnsharedWindows
from ._vectors import Vectors


class Affine(eqx.Module):
    """A Dense or Conv layer recorded but not yet applied; the next nonlinearity folds it into its
    own matrix product.

    With `P` the patches of a convolution (the identity if `operator` is `None`), it stands for

        φ' = [weight Pφ, bias],        ψ' = [weight Pψ, ntk_weight Pφ, ntk_bias]

    that is `K' = weight² P(K) + bias²` and `Θ' = weight² P(Θ) + ntk_weight² P(K) + ntk_bias²`. A
    bias of `None` is none.
    """

    weight: Scalar
    bias: Scalar | None
    ntk_weight: Scalar
    ntk_bias: Scalar | None
    operator: PatchOperator | None = eqx.field(static=True, default=None)


class HiddenFeatures(eqx.Module):
    """Feature vectors of every position of every example, and their exact variances: what a rule's
    transform is given and returns.

    `<nngp(x)_s, nngp(x')_t> ≈ K(x_s, x'_t)` and `<ntk(x)_s, ntk(x')_t> ≈ Θ(x_s, x'_t)`.

    Attributes:
        nngp: features of the NNGP kernel: a tuple of arrays (n, *space, p), blocks of one longer
            vector; (n, p) after a Flatten or a global pool. A block may be `Rooted`: kernel values
            that wait for a root, which `concrete` applies.
        ntk: likewise for the NTK, or `None` if the map was made without it. An empty tuple stands
            for `Θ = 0`, as at the input.
        variances: exact variances and covariances of nearby positions, or `None` where no later
            layer needs them.
        channels: the number of channels of the finite network here ('standard' parameterization and
            concatenation need it).
        pending: an affine layer not yet carried out, which `variances` already include.
        mask: which positions (n, *space) stand for nothing, such as those behind the end of a
            sentence, the pending layer carried out; `None` without masks. Features and variances
            are 0 there; `masked` makes them so.
        patched: whether blocks hold patches that were formed since the last nonlinearity.

    Example: what the rule of a layer that passes everything on is given, and returns.

        >>> from ntk_sketch import stax
        >>> class Passing(stax.Rule):
        ...     def fit(self, features, *, method, offsets, key, **kwargs):
        ...         return lambda features, **kwargs: features.concrete()
    """

    # Tuples of arrays; of shapes alone while a map is planned.
    nngp: Any
    ntk: Any
    variances: Any = None
    channels: int = eqx.field(static=True, default=1)
    pending: Affine | None = None
    mask: Any = None
    patched: bool = eqx.field(static=True, default=False)

    @property
    def space(self) -> tuple[int, ...]:
        """Spatial shape, with the pending layer carried out."""
        space = self.nngp[0].shape[1:-1]
        if self.pending is None or self.pending.operator is None:
            return space
        return self.pending.operator.output_space(space)

    @property
    def are_patches(self) -> bool:
        """Whether the vectors are patches, formed or not, in which every position has entries of
        its neighbours. Those of weights that are not shared do not count.
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
        """φ with the pending layer applied, to be projected without being formed."""
        if self.pending is None:
            return Vectors(tuple((block, 1.0) for block in self.nngp), None, None)
        a = self.pending
        return Vectors(tuple((block, a.weight) for block in self.nngp), a.bias, a.operator)

    def ntk_vectors(self) -> "Vectors":
        """ψ with the pending layer applied; φ is among its blocks after an affine layer."""
        if self.pending is None:
            return Vectors(tuple((block, 1.0) for block in self.ntk), None, None)
        a = self.pending
        blocks = tuple((block, a.weight) for block in self.ntk)
        blocks += tuple((block, a.ntk_weight) for block in self.nngp)
        return Vectors(blocks, a.ntk_bias, a.operator)

    def raw(self, columns: int, columns_ntk: int | None = None) -> "HiddenFeatures":
        """What a projection on so many columns multiplies: roots are left out where they cost less
        in its filters, to which `fold` adds them, and multiplied out elsewhere.
        """
        operator = None if self.pending is None else self.pending.operator
        size = 1 if operator is None else operator.size
        shared = columns + self._shared(columns_ntk)
        ntk = self.ntk
        if ntk is not None and columns_ntk is not None:
            ntk = tuple(raw(block, size, columns_ntk) for block in ntk)
        return self.replace(nngp=tuple(raw(block, size, shared) for block in self.nngp), ntk=ntk)

    def fold(self, w: Any, s: Any, numpy: Any = jnp) -> tuple[Any, Any]:
        """Columns for the vectors of `raw`, from columns `w` (d, m) for φ and `s` (d_ψ, m') for
        ψ.
        """
        columns_ntk = None if s is None else s.shape[1]
        shared = (w.shape[1] + self._shared(columns_ntk),) * len(self.nngp)
        w = self.nngp_vectors().fold(w, shared, numpy)
        if s is not None and self.ntk is not None:
            own = (int(s.shape[1]),) * len(self.ntk)
            counts = own if self.pending is None else own + shared
            s = self.ntk_vectors().fold(s, counts, numpy)
        return w, s

    def _shared(self, columns_ntk: int | None) -> int:
        """Columns for ψ that φ meets too: behind an affine layer it is among its blocks."""
        return 0 if self.pending is None else columns_ntk or 0

    def project(
        self, w: Array, s: Array | None, precision: Precision = "full"
    ) -> tuple[Array, Array | None]:
        """Inner products of φ with the columns of `w` (d, m) and of ψ with those of `s` (d_ψ, m');
        0 at masked positions.

        Behind an affine layer φ is among the blocks of ψ: it meets both sets of columns at once.
        """
        u, v = self._project(w, s, precision)
        return self.masked(u), None if v is None else self.masked(v)

    def _project(
        self, w: Array, s: Array | None, precision: Precision
    ) -> tuple[Array, Array | None]:
        if self.rooted and precision == "full":
            raw = self.raw(w.shape[1], None if s is None else s.shape[1])
            return raw._project(*self.fold(w, s), precision)
        self = self.formed()  # roots magnify the rounding of what they multiply
        phi = self.nngp_vectors()
        if s is None or self.ntk is None:
            return phi.project(w, precision), None
        psi = self.ntk_vectors()
        if self.pending is None:
            return phi.project(w, precision), psi.project(s, precision)
        terms = psi.terms(s)
        own, shared = terms[: len(self.ntk)], terms[len(self.ntk) :]
        both = [
            phi.through(block, jnp.concatenate([rows, rows_s], axis=1), precision)
            for (block, rows), (_, rows_s) in zip(phi.terms(w), shared, strict=True)
        ]
        columns = w.shape[1]
        projected = [psi.through(*term, precision) for term in own]
        return (
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
        """Whether a root waits to be applied."""
        return any(isinstance(block, Rooted) for block in (*self.nngp, *(self.ntk or ())))

    def formed(self) -> "HiddenFeatures":
        """The same features with all roots applied."""
        if not self.rooted:
            return self
        ntk = None if self.ntk is None else tuple(map(formed, self.ntk))
        return self.replace(nngp=tuple(map(formed, self.nngp)), ntk=ntk)

    def applied(self) -> "HiddenFeatures":
        """The same features with the pending layer carried out, whose patches need roots applied.

        Blocks may still be `Rooted`: `map` acts on them as they are.
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
        """The same features with the pending layer carried out and all roots applied: arrays."""
        return self.applied().formed()

    def map(self, fn) -> "HiddenFeatures":
        """`fn` applied to every block, for linear layers that treat channels alike."""
        return self.replace(
            nngp=tuple(mapped(fn, block) for block in self.nngp),
            ntk=None if self.ntk is None else tuple(mapped(fn, block) for block in self.ntk),
        )


def of_examples(fn, features, *others):
    """`fn` on what `features` (of one branch or a list of them) hold for each example."""

    def leaf(first, *others):
        if isinstance(first, Rooted):  # the root is of no example
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
    """One array from blocks; a single zero feature stands for the zero kernel of an empty tuple."""
    if blocks is None:
        return None
    if not blocks:
        return jnp.zeros((*like.shape[:-1], 1), like.dtype)
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=-1)


def is_abstract(features) -> bool:
    """Whether these are shapes only, as for methods that do not look at data."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(features))


def positions(space: tuple[int, ...]) -> int:
    return math.prod(space)
