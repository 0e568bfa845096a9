"""The networks whose features can be compared; plain values, for the command line, too."""

# By torchvision's name: its last layer, and the side of the pictures that it was made for.
NETWORKS = {
    "resnet18": ("fc", 224),
    "resnet50": ("fc", 224),
    "inception_v3": ("fc", 299),
    "densenet121": ("classifier", 224),
    "efficientnet_b0": ("classifier", 224),
    "convnext_tiny": ("classifier.2", 224),
}
LITE = "efficientnet_lite0"  # its weights may be an installed package
FEATURES = ("random", LITE, *NETWORKS)
