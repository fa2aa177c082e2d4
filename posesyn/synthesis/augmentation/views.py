"""Views that other cameras could have: what PoseAug's default recipe takes for a plausible view of a person.

The official code lets the rotation free and asks a discriminator that has seen the training cameras only. On data of a
few cameras that leaves two bad ends: views as the training has them already, or people that lean and lie as no camera
shows them, which look alike in 2D. Here a view is a camera's: turned freely about the vertical axis of the
recorded camera, raised or lowered within limits, hardly rolled, nearer or farther. All limits are our own choice.

The recorded camera is taken to be level: gravity is not among a pose pair's data. A camera that looks down rolls by up
to as much when it is turned, and a half turn changes its elevation by twice as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from posesyn.errors import InputError
from posesyn.synthesis.augmentation.rotation import rotate


@dataclass(frozen=True)
class ViewRange:
    """Limits of a change of view, relative to the camera a pose was recorded with (upright, looking at the person).

    Args:
        elevation: Lowest and highest change of the camera's elevation about the person, radians; positive looks down.
        roll: Largest roll in either direction, radians.
        distance: Smallest and largest factor on the distance.
    """

    elevation: tuple[float, float] = (-0.3, 0.8)
    roll: float = 0.1
    distance: tuple[float, float] = (0.5, 1.8)

    def __post_init__(self) -> None:
        (low, high), (near, far) = self.elevation, self.distance
        if not (-math.pi / 2 < low < high < math.pi / 2 and 0 <= self.roll < math.pi and 0 < near <= far):
            raise InputError(
                "a range of views needs -pi/2 < lowest < highest elevation < pi/2, 0 <= roll < pi, 0 < near <= far",
                where="ViewRange",
                got=self,
            )

    def rotvec(self, share: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
        """Rotation vectors from the shares, -1 to 1, that elevation, turn and roll take of their limits: first the turn
        about the vertical, then the tilt."""
        middle, half = (self.elevation[1] + self.elevation[0]) / 2, (self.elevation[1] - self.elevation[0]) / 2
        zero = torch.zeros_like(share[..., 0])
        tilt = torch.stack((middle + half * share[..., 0], zero, self.roll * share[..., 2]), -1)
        turn = torch.stack((zero, math.pi * share[..., 1], zero), -1)
        return roma.rotvec_composition((tilt, turn))

    def draw(self, pose: Float[Tensor, "B 16 3"], generator: torch.Generator | None = None) -> Float[Tensor, "B 16 3"]:
        """The poses seen from random views of the range, uniform in every number.

        Args:
            pose: Absolute camera frame, metres.
            generator: Where the numbers come from.
        """
        elevation, roll, turn, distance = torch.rand(
            4, len(pose), generator=generator, device=pose.device, dtype=pose.dtype
        )
        # A turn of 0 to 2 halves of the circle is one of -1 to 1.
        rotvec = self.rotvec(torch.stack((2 * elevation - 1, 2 * turn, 2 * roll - 1), -1))
        root = pose[:, :1]
        near, far = self.distance
        factor = near + (far - near) * distance
        return rotate(pose - root, rotvec) + root * factor[:, None, None]
