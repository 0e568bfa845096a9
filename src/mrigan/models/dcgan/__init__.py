"""``dcgan``: the notebook's design, transposed convolutions with BatchNorm and a plain GAN loss."""
