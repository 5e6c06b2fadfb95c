"""How good the measuring itself is. Run with `python -m benchmarks`; see README.md."""
