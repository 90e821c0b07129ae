"""How many of the configs that mmseg and mmdet ship build, take a training step and predict on this machine."""
