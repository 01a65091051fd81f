"""The only module that imports Neural Tangents; its import makes NT 0.6.5 run on current JAX.

NT's last release (December 2023) imports TensorFlow, and names that JAX has removed since. Here a
loader loads its modules from disk unchanged, but answers their `import` statements. For JAX and
SciPy they get a *view* of the package, with the few missing names added. Only NT has the views:
nothing is set on JAX, not even during the import, so that other threads and libraries are not
affected. Functions of NT that rely on removed internals are replaced in NT's modules as these are
loaded. If NT was imported before, it is repaired in place.

After `import ntk_sketch`, `import neural_tangents` is an ordinary import and never imports
TensorFlow; only `nt.experimental.<function>` and `import neural_tangents.experimental` do.

`STRUCTURED_DERIVATIVES` and `AUTO` of `nt.empirical_ntk_fn` still use the rule tables of
`jax.interpreters.ad`. The rest of NT, with `JACOBIAN_CONTRACTION` and `NTK_VECTOR_PRODUCTS`, uses
only documented functions of JAX.
"""

from typing import Any as _Any

from ._versions import MIN_JAX as MIN_JAX
from ._versions import NT_VERSION as NT_VERSION
from ._versions import check_versions as _check_versions

_check_versions()  # first: a JAX that is too old lacks what the other modules import

from ._loading import load as _load  # noqa: E402
from ._relaxed import relaxed as _relaxed  # noqa: E402
from ._views import View as _View  # noqa: E402

_load()

import neural_tangents as nt  # noqa: E402
from neural_tangents import Kernel as Kernel  # noqa: E402
from neural_tangents import stax as _nt_stax  # noqa: E402

_MIX_DTYPES = ("DotGeneral", "ElementwiseNumerical", "Hermite", "Polynomial", "RectifiedMonomial")
nt_stax: _Any = _View(_nt_stax, **{name: _relaxed(getattr(_nt_stax, name)) for name in _MIX_DTYPES})

__all__ = ["MIN_JAX", "NT_VERSION", "Kernel", "nt", "nt_stax"]
