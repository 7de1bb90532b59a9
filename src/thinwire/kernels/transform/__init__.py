"""Orthogonal transforms and low rank: Hadamard, DCT, power iteration."""
