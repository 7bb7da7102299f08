"""How fast: this suite against the same job written by hand, on the same real data."""
