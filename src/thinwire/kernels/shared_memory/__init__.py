"""Several threads on one vector: atomic operations, locks made of them, stochastic steps without a common order."""
