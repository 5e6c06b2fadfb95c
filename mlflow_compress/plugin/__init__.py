"""What MLflow finds by entry points: a context, an experiment, an evaluator, and an app for its server."""
