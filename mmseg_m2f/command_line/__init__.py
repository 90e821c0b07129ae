"""The commands: `mmseg_m2f train` and so on, and what `tools/` calls."""
