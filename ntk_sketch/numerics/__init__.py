"""Precision, cost and compilation of programs, apart from what they compute."""
