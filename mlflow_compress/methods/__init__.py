"""Compression methods, one per file."""
