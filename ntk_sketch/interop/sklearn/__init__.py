"""Estimators for scikit-learn: `pip install "ntk-sketch[sklearn]"`.

NTKFeatures     rows → features, a transformer as those of `sklearn.kernel_approximation`
NTKRegressor    ridge regression and Gaussian process on these features
NTKClassifier   the same on classes
"""

from .._extras import check_installed as _check_installed

_check_installed("sklearn", "sklearn")

from ._classifier import NTKClassifier as NTKClassifier
from ._features import NTKFeatures as NTKFeatures
from ._regressor import NTKRegressor as NTKRegressor
