"""Forms that a comparison is written in, one per file."""
