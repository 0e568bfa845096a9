"""``mrigan fetch``: a run, brought to this machine."""
