"""Whether a data set's camera can be what it claims: pixels, not millimetres or normalised units."""

from __future__ import annotations

import numpy as np

from posesyn.errors import InputError

# Focal length / longer image side. A fisheye of 170 degrees has 0.25, a 300 mm lens on a full frame 8.3; a lens in
# millimetres over an image in pixels gives about 0.02, a normalised one about 0.001. Our own choice.
_RANGE = (0.2, 20.0)


def checked_intrinsics(intrinsics: np.ndarray, where: object, size: tuple[int, int] | None = None) -> np.ndarray:
    """(3, 3) float32 intrinsics in pixels.

    Args:
        intrinsics: (3, 3).
        where: For messages.
        size: (width, height) of the image; None takes twice the principal point.

    Raises:
        InputError: Not (3, 3) or not finite, a focal length in other units than pixels, or a principal point far
            outside the image.
    """
    matrix = np.asarray(intrinsics, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError("intrinsics must be a finite (3, 3) matrix", where=where, got=matrix.shape)
    longer = float(max(size) if size is not None else 2 * matrix[:2, 2].max())
    ratios = np.abs(matrix[[0, 1], [0, 1]]) / max(longer, 1e-9)
    if longer <= 2 or not ((ratios >= _RANGE[0]) & (ratios <= _RANGE[1])).all():
        raise InputError(
            "the focal length is not in pixels of this image",
            where=where,
            expected=f"{_RANGE[0]:g} to {_RANGE[1]:g} times the longer side ({longer:g} px)",
            got=f"{matrix[0, 0]:g}, {matrix[1, 1]:g}",
            fix="multiply millimetres by image width / sensor width, or normalised values by the image size",
        )
    if size is not None and not all(-side < centre < 2 * side for centre, side in zip(matrix[:2, 2], size)):
        raise InputError("the principal point is far outside the image", where=where, got=matrix[:2, 2].tolist())
    return matrix.astype(np.float32)
