"""One row a frame, and the rows as a `datasets` data set."""
