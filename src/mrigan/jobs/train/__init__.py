"""``mrigan train``: from settings to a published run."""
