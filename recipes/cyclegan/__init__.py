"""Cycle-GAN: two generators learn to turn pictures of two domains into one another, unpaired."""
