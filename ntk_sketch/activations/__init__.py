"""Nonlinearities as their dual kernels `k_σ` and `k_σ'`, and as random functions."""

from ._dual import DualActivation as DualActivation
