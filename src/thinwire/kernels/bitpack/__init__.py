"""Codes of a fixed number of bits."""
