"""What modulation does inside the network: class separation, noise, informative neurons, sparse gains. Tensors in, numbers out."""
