"""What an experiment does: iterative pruning, one-shot supermasks, learned supermasks."""
