"""The report: claims of the paper, verdicts by tables of results, and the pages that tell both."""
