"""A process for each dataset, and the seam at which it stands in for threads."""
