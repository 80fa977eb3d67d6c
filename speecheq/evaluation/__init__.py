"""Predictions, metrics, score files, significance, robustness."""
