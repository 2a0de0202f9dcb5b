"""Pascal VOC 2012 segmentation: DeepLabV3, its relatives, and a light net for a CPU."""
