"""Data sets in the formats of others, read as images with a label map or with objects."""
