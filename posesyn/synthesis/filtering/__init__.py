"""The last stage before training: which frames are kept."""
