"""Benchmarks of the measuring itself. Run them with `python -m benchmarks`; see README.md."""
