"""From CCTV clips to labelled frames: extraction, rows, a datasets Dataset and the local Hub cache."""
