"""The entries of largest magnitude, with and without a residual that is added on the way."""
