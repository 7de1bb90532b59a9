"""Loops over flat arrays, one room a kind of work: each operation has its torch twin; README.md here is the guide."""
