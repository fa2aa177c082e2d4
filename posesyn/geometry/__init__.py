"""Rotations, cameras, alignment, joints-only kinematics and devices. Torch; geometry takes any batch dimensions."""

from posesyn.geometry import cameras, devices, kinematics, procrustes, rotations

__all__ = ["cameras", "devices", "kinematics", "procrustes", "rotations"]
