"""Values as codes of a few bits, and codes added to a sum."""
