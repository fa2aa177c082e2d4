"""What PoseAug's networks are shown: recorded poses with swapped bone lengths, other views of them, and fakes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from posesyn.data.pose_pairs import PosePairs
from posesyn.synthesis.augmentation import losses
from posesyn.synthesis.augmentation.augmentor import Augmented, Augmentor
from posesyn.synthesis.augmentation.bones import with_bone_lengths
from posesyn.synthesis.augmentation.projection import project_normalised
from posesyn.synthesis.augmentation.views import ViewRange
from posesyn.training.poseaug_health import in_picture

_REACHED = 0.99  # share of the poses inside the picture that fakes must keep to; detections may lie anywhere


class PoseAugSource(nn.Module):
    """The training data on the module's device, by row numbers.

    Args:
        pairs: N pose pairs with cameras.
        bone_swap: Give the poses other subjects' bone lengths, drawn anew by :meth:`swap`.
        views: Cameras that real 2D poses are also seen by; None shows them as they are.

    Attributes:
        aspect: Height / width of the picture: what the data itself reaches but for outliers, at least the square that
            fits the width.
    """

    def __init__(self, pairs: PosePairs, bone_swap: bool = True, views: ViewRange | None = None) -> None:
        super().__init__()
        self.bone_swap, self.views = bone_swap, views
        for name, value in (
            ("poses", pairs.joints_cam),
            ("keypoints", pairs.keypoints),
            ("cameras", pairs.cameras),
            ("templates", _templates(pairs)),
        ):
            self.register_buffer(name, torch.from_numpy(value), persistent=False)
        self.register_buffer("groups", losses.group_matrix(self.poses), persistent=False)
        self.register_buffer("template_of", torch.zeros(len(pairs), dtype=torch.long), persistent=False)
        self.aspect = max(1.0, float(np.quantile(np.abs(pairs.keypoints[..., 1]).max(1), _REACHED)))

    def __len__(self) -> int:
        return len(self.poses)

    def swap(self, generator: torch.Generator) -> None:
        """Draws whose bone lengths each pose takes."""
        drawn = torch.randint(len(self.templates), (len(self),), generator=generator)
        self.template_of = drawn.to(self.poses.device)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Poses (B, 16, 3) with the bone lengths of a random subject, their projection (B, 16, 2), cameras (B, 9).

        Lengths are replaced, not scaled: swapping the swapped poses of the epoch before, as the official code does,
        gives the same.
        """
        pose, camera = self.poses[rows], self.cameras[rows]
        if not self.bone_swap:
            return pose, self.keypoints[rows], camera
        pose = with_bone_lengths(pose, self.templates[self.template_of[rows]])
        return pose, project_normalised(pose, camera), camera

    def recorded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(keypoints, root-relative targets) as they are in the data."""
        return self.keypoints[rows], _centred(self.poses[rows])

    def seen(self, rows: Tensor) -> Tensor:
        """What D2D takes for real, (B, 16, 2): the data as it is, or as other cameras would see it."""
        pose, flat, camera = self(rows)
        if self.views is None:
            return flat
        turned = self.views.draw(pose)
        turned_flat = project_normalised(turned, camera)
        return torch.where(self._usable(turned, turned_flat), turned_flat, flat)

    def fakes(self, augmentor: Augmentor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented (keypoints, root-relative targets); in place of unusable ones their sources."""
        with torch.no_grad():
            pose, flat, camera = self(rows)
            made = augmentor(pose)
            made_flat = project_normalised(made.pose_rt, camera)
            usable = self._usable(made.pose_rt, made_flat)
            return torch.where(usable, made_flat, flat), _centred(torch.where(usable, made.pose_rt, pose))

    def kept(self, made: Augmented, flat: Tensor) -> tuple[Tensor, Tensor]:
        """The (keypoints, root-relative targets) that the official code keeps of a GAN step's fakes."""
        pose, flat = made.pose_rt.detach(), flat.detach()
        inside = in_picture(pose, flat, self.aspect, lower_bound=False)
        return flat[inside], _centred(pose)[inside]

    def nothing(self) -> tuple[Tensor, Tensor]:
        """An empty batch."""
        return self.keypoints[:0], self.poses[:0]

    def _usable(self, pose: Tensor, flat: Tensor) -> Tensor:
        return in_picture(pose, flat, self.aspect)[:, None, None]


def _centred(pose: Tensor) -> Tensor:
    return pose - pose[:, :1]


def _templates(pairs: PosePairs) -> np.ndarray:
    """(S, 15) median bone lengths of each subject."""
    _, owner = np.unique(pairs.subjects, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    parts = np.split(pairs.lengths[order], np.flatnonzero(np.diff(owner[order])) + 1)
    return np.stack([np.median(part, 0) for part in parts]).astype(np.float32)
