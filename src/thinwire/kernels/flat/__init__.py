"""Vectors and the tensors they are cut into: checks, flattening, and whether all is finite."""
