"""Tables of scores as one HTML page."""
