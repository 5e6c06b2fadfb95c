"""Results into MLflow and runs out of it. A package, so that its test files share stores and results."""
