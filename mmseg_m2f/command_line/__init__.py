"""The commands: `mmseg_m2f train` and so on, and what `tools/` calls."""

from mmseg_m2f.processors import share_processors

share_processors()  # here, as the commands import torch
