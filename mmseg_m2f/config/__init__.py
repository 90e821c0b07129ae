"""Configs: reading files, applying options, finding types, checking before a run."""
