"""What each command does, one module a command; each returns its exit code and prints its result to stdout."""
