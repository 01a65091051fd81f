"""Sketches: random linear maps to few dimensions that preserve inner products on average.

Use `SRHT` for dense vectors, `CountSketch` for sparse ones, `TensorSRHT` and `TensorSketch` for
tensor products, `PolynomialSketch` for tensor powers of any degree, and `GaussianSketch` as the
reference. `elementwise` factors functions of all inner products.
"""

from ._coreset import Coreset as Coreset
from ._coreset import greedy_coreset as greedy_coreset
from ._count_sketch import CountSketch as CountSketch
from ._elementwise import ElementwiseFactors as ElementwiseFactors
from ._elementwise import elementwise as elementwise
from ._gaussian import GaussianSketch as GaussianSketch
from ._polynomial_sketch import PolynomialSketch as PolynomialSketch
from ._power_tree import PowerTree as PowerTree
from ._sketch import Sketch as Sketch
from ._srht import SRHT as SRHT
from ._tensor_sketch import TensorSketch as TensorSketch
from ._tensor_srht import TensorSRHT as TensorSRHT
