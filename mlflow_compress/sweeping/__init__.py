"""Measure many Variants, on this machine or on a Ray cluster."""
