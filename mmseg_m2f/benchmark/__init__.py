"""Time, memory, operators and host reads of this package beside other implementations of Mask2Former."""
