"""Views of a table of results: curves over rounds, chosen supermasks, a summary to print."""
