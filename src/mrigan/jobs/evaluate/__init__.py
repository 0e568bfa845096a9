"""``mrigan evaluate``: how good generated slices are, and whether they repeat training slices."""
