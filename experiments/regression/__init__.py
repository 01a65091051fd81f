"""Regression on tables: predictions, their likelihood, and what they cost."""
