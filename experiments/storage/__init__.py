"""The files of a run: rows, curves, checkpoints, settings, and the lock on their folder."""
