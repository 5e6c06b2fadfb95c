"""Shared parts of metrics: the statistics of each sample, counted with the field's standard tools."""
