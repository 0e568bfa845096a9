"""``mrigan compare``: runs side by side, in a table and on one page."""
