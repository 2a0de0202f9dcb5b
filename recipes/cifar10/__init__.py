"""CIFAR-10: the fast baseline, and ResNet-18's."""
