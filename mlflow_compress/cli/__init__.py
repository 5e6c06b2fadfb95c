"""The two commands, and nothing else."""
