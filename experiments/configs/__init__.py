"""One configuration per figure or table."""
