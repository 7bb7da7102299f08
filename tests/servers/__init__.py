"""Real servers for tests and for `make shop`: no root, no Docker."""
