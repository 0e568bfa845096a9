"""The training loop and its state; no file, bucket, plot or clock in it."""
