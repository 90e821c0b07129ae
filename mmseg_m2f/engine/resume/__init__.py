"""What a run needs to go on as if it had never stopped: random states, the order of the data, what has changed."""
