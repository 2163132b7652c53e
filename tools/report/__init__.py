"""The report: the claims of the paper, verdicts on them from tables of results, and pages."""
