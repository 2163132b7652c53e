"""What a table of results says: curves over rounds, the supermasks chosen, a summary to print."""
