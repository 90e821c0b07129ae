"""Builds the site: `make docs`. Pages that stand elsewhere in the repository, and those written from the code."""
