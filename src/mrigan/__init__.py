"""mrigan: trains a GAN on MRI slices, from a bucket back to a bucket."""
