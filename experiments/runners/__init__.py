"""The kinds of experiments: iterative pruning, one-shot supermasks and learned supermasks."""
