"""Rotations, cameras, alignment and joints-only kinematics. Torch; every function takes any batch dimensions."""

from posesyn.geometry import cameras, kinematics, procrustes, rotations

__all__ = ["cameras", "kinematics", "procrustes", "rotations"]
