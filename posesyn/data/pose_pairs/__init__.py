"""Pairs of 2D and 3D poses, for lifters."""
