"""Which image, weight, layer, loss or gradient holds the first NaN or infinite number of a training step."""
