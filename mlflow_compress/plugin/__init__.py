"""What MLflow finds by entry points: a context, an experiment, an evaluator, and an app of its server."""
