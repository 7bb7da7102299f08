"""What orders look like."""
