"""Plan Variants from a user's request."""
