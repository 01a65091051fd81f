"""Random linear maps that keep inner products: dense, sparse and tensor sketches."""

from ._gaussian import GaussianSketch as GaussianSketch
from ._polynomial_sketch import PolynomialSketch as PolynomialSketch
from ._power_tree import PowerTree as PowerTree
from ._sketch import Sketch as Sketch
from ._srht import SRHT as SRHT
from ._tensor_srht import TensorSRHT as TensorSRHT
