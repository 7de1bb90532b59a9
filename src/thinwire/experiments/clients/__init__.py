"""Many clients of whom few take part in each round."""
