"""Training lifters alone and with PoseAug."""
