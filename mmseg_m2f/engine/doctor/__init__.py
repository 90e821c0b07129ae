"""A look at all data and the config before an hour is lost: what is wrong, worst first, and what to change."""
