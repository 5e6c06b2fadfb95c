"""Results into MLflow, Runs out of it, and nothing lost."""
