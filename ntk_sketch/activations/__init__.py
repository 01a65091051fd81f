"""Nonlinearities as dual kernels."""

from ._dual import DualActivation as DualActivation
