"""Programs that read results or measure the project."""
