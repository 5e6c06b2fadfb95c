"""Neural networks: how they are found, loaded, changed and exported."""
