"""What a run leaves on disk: rows, curves, checkpoints, settings; who may write there."""
