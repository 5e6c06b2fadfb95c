"""Neural networks as such: how they are found, held, cut and exported."""
