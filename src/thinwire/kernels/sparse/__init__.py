"""Indices with values, written, added and merged."""
