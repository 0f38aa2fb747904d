"""Where images come from: drawn cars, digits, folders, torchvision data sets."""
