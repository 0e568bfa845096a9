"""``mrigan generate``: synthetic slices of a run's generator, to a folder or bucket."""
