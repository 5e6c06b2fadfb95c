"""Runs to a Comparison, and other people's tables."""
