"""``r3``: residual networks without normalisation, with a regularised relativistic loss."""
