"""Tensors in, tensors out: points, costs, losses, targets, post-processing, windows. torch and scipy only."""
