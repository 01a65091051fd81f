"""Precision, cost, memory and compilation of programs, and linear algebra in float64."""
