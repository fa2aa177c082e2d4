"""The augmentor: bone angles, bone lengths, rotation and translation of a pose, each from a small network.

Shapes, constants and key names: jfzhang95/PoseAug ``models_poseaug/gan_generator.py``. Differences are in speed only:
the BA, BL and RT trunks share one pass over the pose's own bones, and bones are matrix products.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from posesyn.errors import FileError, InputError
from posesyn.storage.checkpoints import load_into, load_metadata, load_weights, save_weights
from posesyn.synthesis.augmentation.bones import (
    BONES,
    FIXED_RATIO,
    FROZEN_BONES,
    JOINTS,
    RATIO_OF_BONE,
    RATIOS,
    bone_lengths,
    bone_vectors,
    check_joints,
    joints_from_bones,
)
from posesyn.synthesis.augmentation.joint_range import JointRange
from posesyn.types.looks import short_repr

# Below this squared angle the series is exact to float32's last digits.
_SMALL = 1e-6


def rotate(points: Float[Tensor, "B J 3"], rotvec: Float[Tensor, "B 3"]) -> Float[Tensor, "B J 3"]:
    """Rodrigues' formula on points: x + a (v × x) + b (v × (v × x)), a = sin θ / θ, b = (1 - cos θ) / θ².

    Smooth at θ = 0, where a and b come from their series; twice differentiable there.
    """
    square = rotvec.square().sum(-1, keepdim=True)
    small = square < _SMALL
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    a = torch.where(small, 1 - square / 6, angle.sin() / angle)
    b = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / safe)
    axis = rotvec[:, None].expand_as(points)
    once = torch.linalg.cross(axis, points)
    return points + a[:, None] * once + b[:, None] * torch.linalg.cross(axis, once)


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
            wanted = "-pi/2 < lowest < highest elevation < pi/2, 0 <= roll < pi, 0 < near <= far"
            raise InputError(f"a range of views needs {wanted}", where="ViewRange", got=self)

    def rotvec(self, share: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
        """Rotation vectors from the shares, -1 to 1, that elevation, turn and roll take of their limits: first the turn
        about the vertical, then the tilt."""
        middle, half = (self.elevation[1] + self.elevation[0]) / 2, (self.elevation[1] - self.elevation[0]) / 2
        zero = torch.zeros_like(share[..., 0])
        tilt = torch.stack((middle + half * share[..., 0], zero, self.roll * share[..., 2]), -1)
        turn = torch.stack((zero, math.pi * share[..., 1], zero), -1)
        return roma.rotvec_composition((tilt, turn))

    def draw(self, pose: Float[Tensor, "B 16 3"], generator: torch.Generator | None = None) -> Float[Tensor, "B 16 3"]:
        """The poses (absolute camera frame, metres) seen from random views of the range, uniform in every number."""
        like: dict[str, Any] = {"device": pose.device, "dtype": pose.dtype}
        elevation, roll, turn, distance = torch.rand(4, len(pose), generator=generator, **like)
        # A turn of 0 to 2 halves of the circle is one of -1 to 1.
        rotvec = self.rotvec(torch.stack((2 * elevation - 1, 2 * turn, 2 * roll - 1), -1))
        root = pose[:, :1]
        near, far = self.distance
        factor = near + (far - near) * distance
        return rotate(pose - root, rotvec) + root * factor[:, None, None]


NOISE = 48
WIDTH = 256
LENGTH_LIMIT = 0.2
_ANGLE = 3.1415  # the official code's pi
# Factors on the last weights of each step, see start_near; of a rotation within views: elevation, turn, roll.
_START_ANGLES, _START_LENGTHS, _START_TRANSLATION = 0.2, 0.3, 0.5
_START_VIEWS, _START_FREE = (0.7, 0.3, 0.3), (0.1, 0.1, 0.1)
_KIND = "poseaug augmentor"


class Augmented(NamedTuple):
    """What the augmentor made of B poses, absolute camera frame, metres.

    ``pose_ba`` after bone angles and ``pose_bl`` after bone lengths keep the root's place; ``pose_rt`` (B, 16, 3) is
    the result. ``angle_change`` (B, 15) is 1 - cosine between old and new direction, ``length_ratios`` (B, 9) the
    relative changes r in l' = l (1 + r), ``rotvec`` (B, 3) and ``translation`` (B, 3) place the result.
    ``rotation_share`` (B, 3) says which share of its limit, -1 to 1, each of the rotation's three numbers takes; None
    without that step.
    """

    pose_ba: Tensor
    angle_change: Tensor
    pose_bl: Tensor
    length_ratios: Tensor
    pose_rt: Tensor
    rotvec: Tensor
    translation: Tensor
    rotation_share: Tensor | None

    def __repr__(self) -> str:
        return short_repr(self)


class _Stage(nn.Module):
    """Two layers; no skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1, self.batch_norm1 = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.w2, self.batch_norm2 = nn.Linear(width, width), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.leaky_relu(self.batch_norm1(self.w1(x)), inplace=True)
        return functional.leaky_relu(self.batch_norm2(self.w2(x)), inplace=True)


class _Trunk(nn.Module):
    """Holds one trunk's layers under the official names, which differ by a suffix."""

    def _add(self, suffix: str, inputs: int, outputs: int) -> None:
        self.add_module(f"w1{suffix or ''}", nn.Linear(inputs, WIDTH))
        # BA calls its first normalisation batch_norm1, the others batch_norm_<name>.
        self.add_module(f"batch_norm{suffix or '1'}", nn.BatchNorm1d(WIDTH))
        self.add_module(f"linear_stages{suffix}", nn.ModuleList([_Stage(WIDTH), _Stage(WIDTH)]))
        self.add_module(f"w2{suffix}", nn.Linear(WIDTH, outputs))

    def _run(self, suffix: str, parts: Sequence[Tensor]) -> Tensor:
        x = self.get_submodule(f"w1{suffix}")(torch.cat(parts, -1))
        x = functional.leaky_relu(self.get_submodule(f"batch_norm{suffix or '1'}")(x), inplace=True)
        for stage in self.get_submodule(f"linear_stages{suffix}"):
            x = stage(x)
        return self.get_submodule(f"w2{suffix}")(x)


class _BoneAngles(_Trunk):
    free: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._add("", 3 * JOINTS + NOISE, 3 * BONES)
        free = torch.ones(BONES, 1)
        free[list(FROZEN_BONES)] = 0
        self.register_buffer("free", free, persistent=False)

    def forward(self, flat: Tensor, directions: Tensor, noise: Tensor) -> Tensor:
        """New unit bones (B, 15, 3)."""
        change = self._run("", (flat, noise)).unflatten(-1, (BONES, 3))
        return torch.where(self.free > 0, functional.normalize(directions + change, dim=-1), directions)


class _BoneLengths(_Trunk):
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._add("_BL", 3 * JOINTS + BONES + NOISE, RATIOS)
        mask = torch.ones(RATIOS)
        mask[FIXED_RATIO] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, flat: Tensor, lengths: Tensor, noise: Tensor) -> Tensor:
        """Ratios (B, 9)."""
        return LENGTH_LIMIT * torch.tanh(self._run("_BL", (flat, lengths, noise)) * self.mask)


class _Placement(_Trunk):
    def __init__(self, views: ViewRange | None) -> None:
        super().__init__()
        self.views = views
        self._add("_R", 3 * JOINTS + NOISE, 3)
        self._add("_T", 3 * JOINTS + NOISE, 3)

    def forward(self, flat: Tensor, noise_r: Tensor, noise_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Axis-angle, translation, shares (B, 3); the depth is a square and so never negative."""
        share = torch.tanh(self._run("_R", (flat, noise_r)))
        rotvec = _ANGLE * share if self.views is None else self.views.rotvec(share)
        moved = self._run("_T", (flat, noise_t))
        return rotvec, torch.cat((moved[..., :2], moved[..., 2:].square()), -1), share


class Augmentor(nn.Module):
    """Learned augmentation of poses (B, 16, 3), camera frame, metres, order ``poseaug16``.

    Args:
        angles, lengths, transform: Switch a step off (ablations): its output is then its input, its ratios, rotation
            and angle changes are zero. Without ``transform`` the pose keeps its place.
        views: Limits of the rotation; None leaves it free, as the official code does. The weights have one shape.
        joint_range: In eval mode, poses that new bone angles bring beyond it keep their own angles. In train mode
            nothing is kept back: the discriminator is to learn from such poses.
    """

    ratio_of_bone: Tensor

    def __init__(
        self,
        *,
        angles: bool = True,
        lengths: bool = True,
        transform: bool = True,
        views: ViewRange | None = None,
        joint_range: JointRange | None = None,
    ) -> None:
        super().__init__()
        self.BAprocess, self.BLprocess, self.RTprocess = _BoneAngles(), _BoneLengths(), _Placement(views)
        self.angles, self.lengths, self.transform = angles, lengths, transform
        self.joint_range = joint_range
        self.register_buffer("ratio_of_bone", torch.tensor(RATIO_OF_BONE), persistent=False)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    @torch.no_grad()
    def start_near(self, root: Sequence[float]) -> None:
        """Lets every step start near the data, whose roots are at ``root`` (x, y, z) on average, camera frame, metres.

        At random weights hardly a fake is inside the picture or a human pose, and the adversaries see only that. Our
        own choice.
        """
        middle = torch.as_tensor(root).to(self.RTprocess.w2_T.bias)
        place = self.RTprocess
        rotation = place.w2_R.weight.new_tensor(_START_FREE if place.views is None else _START_VIEWS)[:, None]
        steps = (self.BAprocess.w2, _START_ANGLES), (self.BLprocess.w2_BL, _START_LENGTHS)
        for last, factor in (*steps, (place.w2_R, rotation), (place.w2_T, _START_TRANSLATION)):
            last.weight.mul_(factor)
            last.bias.zero_()
        place.w2_T.bias.copy_(torch.cat((middle[:2], middle[2:].clamp_min(0).sqrt())))

    def forward(
        self,
        pose: Float[Tensor, "B 16 3"],
        noise: Sequence[Float[Tensor, "B 48"]] | None = None,
        generator: torch.Generator | None = None,
        within_range: bool = True,
    ) -> Augmented:
        """One augmentation per pose.

        Args:
            pose: Absolute camera frame, metres.
            noise: Four arrays for BA, BL, rotation and translation; None draws them.
            generator: Where the noise comes from.
            within_range: Whether ``joint_range`` is kept to (eval mode).

        Raises:
            InputError: Not 16 joints, or noise of another shape.
        """
        check_joints(pose, "Augmentor")
        draws = self._noise(pose, noise, generator)
        root = pose[:, :1]
        flat = (pose - root).flatten(1)
        bones = bone_vectors(pose)
        lengths = bone_lengths(bones)
        directions = old = bones / lengths[..., None]

        if self.angles:
            directions = self.BAprocess(flat, old, draws[0])
            if within_range and self.joint_range is not None and not self.training:
                within = self.joint_range(joints_from_bones(directions * lengths[..., None]))
                directions = torch.where(within[:, None, None], directions, old)
        pose_ba = joints_from_bones(directions * lengths[..., None]) + root if self.angles else pose
        change = 1 - (old * directions).sum(-1)

        # BL reads the lengths of the BA pose, which are those of the original one: no need to measure them again.
        ratios = self.BLprocess(flat, lengths, draws[1]) if self.lengths else pose.new_zeros(len(pose), RATIOS)
        scale = 1 + ratios[:, self.ratio_of_bone]
        centred = joints_from_bones(directions * (lengths * scale)[..., None])
        pose_bl = centred + root

        if self.transform:
            rotvec, translation, share = self.RTprocess(flat, draws[2], draws[3])
            placed = rotate(centred, rotvec) + translation[:, None]
        else:
            rotvec, translation, placed = torch.zeros_like(root[:, 0]), root[:, 0], pose_bl
            share = None
        return Augmented(pose_ba, change, pose_bl, ratios, placed, rotvec, translation, share)

    def _noise(self, pose: Tensor, noise: Any, generator: torch.Generator | None) -> Sequence[Tensor]:
        if noise is None:
            like: dict[str, Any] = {"device": pose.device, "dtype": pose.dtype}
            return tuple(torch.randn(len(pose), NOISE, generator=generator, **like) for _ in range(4))
        shapes = [tuple(part.shape) for part in noise]
        if shapes != 4 * [(len(pose), NOISE)]:
            raise InputError("noise must be four arrays (B, 48)", where="Augmentor", got=shapes)
        return tuple(noise)

    def save(self, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> None:
        """Writes the weights as safetensors."""
        steps: dict[str, Any] = {"angles": self.angles, "lengths": self.lengths, "transform": self.transform}
        if self.RTprocess.views is not None:
            steps["views"] = asdict(self.RTprocess.views)
        save_weights(path, self.state_dict(), {"kind": _KIND, "steps": steps, **(metadata or {})})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Augmentor:
        """Reads what :meth:`save` wrote, or a state dict with the official names; in eval mode.

        Raises:
            FileError, UnsafeFileError, CheckpointError: Not readable, or weights of another network.
        """
        weights = load_weights(path)
        try:
            steps = dict(load_metadata(path).get("steps", {}))
        except FileError:  # an official file: no metadata
            steps = {}
        if "views" in steps:  # JSON has no tuples
            given = {key: tuple(value) if isinstance(value, list) else value for key, value in steps["views"].items()}
            steps["views"] = ViewRange(**given)
        joint_range = JointRange() if "joint_range.angles" in weights else None
        model = cls(**steps, joint_range=joint_range)
        load_into(model, weights, where=path)
        return model.eval()
