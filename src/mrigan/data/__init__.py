"""From encoded objects to one uint8 array of slices, and from there to batches."""
