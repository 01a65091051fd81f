"""CIFAR-10 from wherever it is, or scikit-learn's digits."""

from ._digits import open_digits as open_digits
from ._find import ENVIRONMENT_VARIABLE as ENVIRONMENT_VARIABLE
from ._find import find as find
from ._find import open_path as open_path
from ._source import DataError as DataError
from ._source import Source as Source
