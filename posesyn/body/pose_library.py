"""What poses people take: examples of real mocap and how far an unseen person's pose is from the nearest of them.

A mixture of Gaussians with one tied covariance: the means are examples spread evenly over the train split of the CMU
pack and their mirror images, the covariance is that of poses around the nearest example of *other* people. Both are our
own choice. ``tools/make_pose_library.py`` makes the shipped file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posesyn import skeletons
from posesyn.body.model import Body
from posesyn.errors import CheckpointError, FileError
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.storage.checkpoints import load_metadata, load_weights, save_weights

FORMAT = "posesyn-pose-library-1"
SHIPPED = Path(__file__).parents[1] / "assets" / "pose_library.safetensors"
_SMPL45 = skeletons.get("smpl45").joints
# The 22 joints of motions, then the face, which tells front from back.
POINTS = (*skeletons.get("humanml3d22").joints, "nose", "right_eye", "left_eye", "right_ear", "left_ear")
ROWS = tuple(_SMPL45.index(name) for name in POINTS)  # of smpl45
HEAD = POINTS.index("head")
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, *(HEAD,) * 5)


_SWAP = {"left": "right", "right": "left"}
FLIP = tuple(POINTS.index("_".join(_SWAP.get(part, part) for part in name.split("_"))) for name in POINTS)


@dataclass(frozen=True, eq=False)
class PoseLibrary:
    """Examples and spread.

    Attributes:
        points: (N, 27, 3) float32 metres, order :data:`POINTS`, pelvis at the origin, y up as in the world, facing +z.
        spread: (K, 27, 3) float32; a pose near an example is ``example + sum_k c_k spread_k`` with standard normal c.
    """

    points: Tensor
    spread: Tensor

    def to(self, device: torch.device) -> PoseLibrary:
        """The same on a device."""
        return PoseLibrary(self.points.to(device), self.spread.to(device))

    def save(self, path: str | Path, about: str = "") -> None:
        """Writes safetensors, half precision."""
        arrays = {"points": self.points.half(), "spread": self.spread.half()}
        save_weights(path, arrays, {"format": FORMAT, "about": about})

    @classmethod
    def load(cls, path: str | Path | None = None, mirrored: bool = True) -> PoseLibrary:
        """Reads what :meth:`save` wrote, or for None what is shipped, with the mirror images of all if ``mirrored``.

        Raises:
            FileError: Missing or damaged.
            CheckpointError: Another kind of file, or arrays of other shapes.
        """
        path = SHIPPED if path is None else Path(path)
        if not path.is_file():
            raise FileError("there is no such pose library", where=path, fix="tools/make_pose_library.py makes it")
        if load_metadata(path).get("format") != FORMAT:
            raise CheckpointError("the file is not a pose library", where=path, expected=FORMAT)
        arrays = {name: value.float() for name, value in load_weights(path).items()}
        for name in ("points", "spread"):
            shape = tuple(arrays[name].shape) if name in arrays else None
            if shape is None or len(shape) != 3 or shape[1:] != (len(POINTS), 3) or not shape[0]:
                what, expected = f"the pose library's {name} have the wrong shape", f"(N, {len(POINTS)}, 3)"
                raise CheckpointError(what, where=path, expected=expected, got=shape)
        points = arrays["points"]
        return cls(torch.cat([points, mirror(points)]) if mirrored else points, arrays["spread"])


@cache
def shipped_library() -> PoseLibrary:
    """The shipped library with its mirror images, read once."""
    return PoseLibrary.load()


def mirror(points: Tensor) -> Tensor:
    """(..., 27, 3) with left and right exchanged, x negated."""
    return points[..., list(FLIP), :] * points.new_tensor([-1.0, 1.0, 1.0])


def facing_forward(points: Tensor) -> Tensor:
    """(..., 27, 3), y up → pelvis at the origin, turned about y so that hips and shoulders face +z."""
    points = points - points[..., :1, :]
    across = points[..., 1, :] - points[..., 2, :] + points[..., 16, :] - points[..., 17, :]
    angle = torch.atan2(across[..., 2], across[..., 0])
    cosine, sine = angle.cos()[..., None], angle.sin()[..., None]
    x, y, z = points.unbind(-1)
    return torch.stack([cosine * x + sine * z, y, cosine * z - sine * x], -1)


@torch.no_grad()
def body_points(body: Body, pose_rotvec: np.ndarray, chunk: int = 512) -> Tensor:
    """(T, 24, 3) local rotations → (T, 27, 3) points of the mean body, y up as posed."""
    parts = []
    for start in range(0, len(pose_rotvec), chunk):
        rotations = rotvec_to_matrix(torch.as_tensor(pose_rotvec[start : start + chunk]).float())
        parts.append(body(rotations, torch.zeros(1, 10)).joints[:, list(ROWS)])
    return torch.cat(parts)
