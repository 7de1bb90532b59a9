"""Random numbers with an address: Philox."""
