"""ImageNet classification: any timm or torchvision model on a folder of JPEGs."""
