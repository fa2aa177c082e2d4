"""Training the motion prior."""
