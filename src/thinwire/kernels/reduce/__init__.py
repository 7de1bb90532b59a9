"""What is measured of a vector, segment by segment: norms, sums, moments, extents."""
