"""A page to try a scorer on."""
