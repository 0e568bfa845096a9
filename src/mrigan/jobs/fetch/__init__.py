"""``mrigan fetch``: downloads a run."""
