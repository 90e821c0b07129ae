"""Heads side by side: each trained and tested under one budget, and what it cost, as a table and as a page."""
