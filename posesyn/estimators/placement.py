"""Where a root-relative pose stands: the camera of a person's picture, and the place that fits the pose's keypoints."""

from __future__ import annotations

import numpy as np

from posesyn.settings.lifters import FOCAL
from posesyn.types import Person


def place_before_camera(joints: np.ndarray, points_px: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Translation (3,) that makes root-relative joints (J, 3) project closest to the keypoints (J, 2).

    Linear least squares: f (X + tx) = u (Z + tz) for both coordinates, u counted from the principal point.
    """
    count = len(joints)
    focal = intrinsics[[0, 1], [0, 1]]
    rays = (np.asarray(points_px, np.float64) - intrinsics[:2, 2]) / focal
    rows, values = np.zeros((2 * count, 3)), np.zeros(2 * count)
    for axis in range(2):
        part = slice(axis * count, (axis + 1) * count)
        rows[part, axis], rows[part, 2] = 1, -rays[:, axis]
        values[part] = rays[:, axis] * joints[:, 2] - joints[:, axis]
    found = np.linalg.lstsq(rows, values, rcond=None)[0]
    # A pose in front of the camera: noise in tiny or degenerate keypoints may say otherwise.
    nearest = 0.1 - float(joints[:, 2].min())
    if found[2] < nearest:
        middle = rays.mean(0)
        found = np.array([*(middle * max(nearest, 1.0)), max(nearest, 1.0)])
    return found


def image_intrinsics(width: float, height: float) -> np.ndarray:
    """The camera assumed for an image: focal length :data:`FOCAL` half widths, principal point in the middle."""
    focal = FOCAL * width / 2
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float32)


def camera_of(person: Person) -> np.ndarray:
    """(3, 3) float64: the camera of the person's labels, 3D joints or ``intrinsics``, the first that says it, else
    :func:`image_intrinsics` of the picture."""
    known = None if person.labels is None else person.labels.intrinsics
    if known is None and person.joints is not None:
        known = person.joints.intrinsics
    known = person.intrinsics if known is None else known
    if known is not None:
        return np.asarray(known, np.float64).reshape(3, 3)
    size = person.image_width_height
    if size is None:
        height, width = person.image.load().shape[:2]
        size = (width, height)
    return image_intrinsics(*size).astype(np.float64)
