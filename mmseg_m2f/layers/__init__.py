"""Attention, position encodings and transformer layers. torch only."""
