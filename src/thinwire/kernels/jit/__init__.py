"""How kernels are compiled, what instructions they have beyond Numba's, and how their work is shared among threads."""
