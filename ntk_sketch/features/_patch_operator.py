"""What a linear layer does to positions before its weights."""

from typing import Protocol, runtime_checkable

from .._typing import Array, Inputs
from ..numerics._precision import Precision


@runtime_checkable
class PatchOperator(Protocol):
    """`P`: one vector for each output position, made of `size` entries for every channel of a block
    (n, *space, c), linearly and for all channels alike.

    The windows of a convolution are one (`Windows`). Others fit if they are hashable and equal
    where they do the same, since compiled programs are looked up by them.
    """

    @property
    def size(self) -> int:
        """Entries of a vector for each channel: vectors have the length `size · c`."""
        ...

    def output_space(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """Positions that come out, of those that go in."""
        ...

    def project(self, x: Array, matrix: Array, precision: Precision = "full") -> Array:
        """Inner products (n, *outputs, m) of all vectors with the columns of `matrix` (d, m)."""
        ...

    def patches(self, x: Array) -> Array:
        """All vectors, formed: (n, *outputs, d)."""
        ...

    def patches_at(self, x: Array, index: tuple[Inputs, ...]) -> Array:
        """The vectors at `index` = (example, *output position), each (m,): (m, d)."""
        ...
