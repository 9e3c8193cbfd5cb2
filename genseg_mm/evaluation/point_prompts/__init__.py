"""One point per object: mIoU of colour maps."""
