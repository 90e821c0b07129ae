"""Reading checkpoints that others wrote: one key map per origin."""
