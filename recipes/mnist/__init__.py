"""MNIST: the introduction's two-convolution net, from data to a verified baseline."""
