"""From what was asked for to Variants."""
