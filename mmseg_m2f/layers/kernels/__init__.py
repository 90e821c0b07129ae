"""Kernels that compute what the modules of `layers` define, faster. None is ever required."""
