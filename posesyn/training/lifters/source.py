"""The poses that PoseAug trains on: recorded ones, fakes made of them, and the pool that keeps earlier fakes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.errors import InputError
from posesyn.synthesis.augmentation import losses
from posesyn.synthesis.augmentation.augmentor import Augmented, Augmentor, ViewRange
from posesyn.synthesis.augmentation.bones import project_normalised, with_bone_lengths

POOL_SIZE = 4096  # jfzhang95/PoseAug, utils/gan_utils.py


class FakePool:
    """Keeps up to ``size`` samples. Once full, a coming sample is swapped for a random stored one with probability ½.

    Stored places are drawn without repetition within a batch, so that all swaps happen at once; the official loop may
    meet one place twice. The distribution of a single swap is the same.

    Args:
        size: Number of samples.
        seed: Decides the swaps.
    """

    def __init__(self, size: int = POOL_SIZE, seed: int = 0) -> None:
        if size < 1:
            raise InputError("a pool holds at least one sample", where="FakePool", got=size)
        self.size = size
        self.count = 0
        self.items: Tensor | None = None
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, fakes: Tensor) -> Tensor:
        """(B, ...) → (B, ...) of which some come from earlier batches; detached."""
        fakes = fakes.detach()
        if self.items is None:
            self.items = fakes.new_empty(self.size, *fakes.shape[1:])
        self.items = self.items.to(fakes.device)  # checkpoints are read on the CPU
        room = min(self.size - self.count, len(fakes))
        self.items[self.count : self.count + room] = fakes[:room]
        self.count += room
        rest = fakes[room:]
        if not len(rest):
            return fakes
        given = rest.clone()
        swaps = torch.nonzero(torch.rand(len(rest), generator=self.generator) < 0.5).flatten()[: self.size]
        places = torch.randperm(self.size, generator=self.generator)[: len(swaps)].to(self.items.device)
        swaps = swaps.to(self.items.device)
        given[swaps] = self.items[places]
        self.items[places] = rest[swaps]
        return torch.cat((fakes[:room], given))

    def clear(self) -> None:
        """Forgets all samples."""
        self.items, self.count = None, 0

    def state_dict(self) -> dict:
        """For checkpoints."""
        return {"items": self.items, "count": self.count, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Restores :meth:`state_dict`."""
        self.items, self.count = state["items"], state["count"]
        self.generator.set_state(state["generator"])


NEAREST = 0.2  # metres; the pinhole has no meaning behind the camera and amplifies without limit just before it
_PICTURE_SHARE = 0.99  # share of the poses inside the picture that fakes must keep to; detections may lie anywhere


class PoseAugSource(nn.Module):
    """The training data on the module's device, by row numbers.

    Args:
        pairs: N pose pairs with cameras.
        bone_swap: Give the poses other subjects' bone lengths, drawn anew by :meth:`swap_bones`.
        views: Cameras that real 2D poses are also seen by; None shows them as they are.

    Attributes:
        aspect: Height / width of the picture: what the data itself reaches but for outliers, at least the square that
            fits the width.
    """

    poses: Tensor
    keypoints: Tensor
    cameras: Tensor
    subject_lengths: Tensor
    groups: Tensor
    drawn_subject: Tensor

    def __init__(self, pairs: PosePairs, bone_swap: bool = True, views: ViewRange | None = None) -> None:
        super().__init__()
        self.bone_swap, self.views = bone_swap, views
        data = {"poses": pairs.joints_cam, "keypoints": pairs.keypoints, "cameras": pairs.cameras}
        for name, value in {**data, "subject_lengths": _subject_lengths(pairs)}.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)
        self.register_buffer("groups", losses.group_matrix(self.poses), persistent=False)
        self.register_buffer("drawn_subject", torch.zeros(len(pairs), dtype=torch.long), persistent=False)
        self.aspect = max(1.0, float(np.quantile(np.abs(pairs.keypoints[..., 1]).max(1), _PICTURE_SHARE)))

    def __len__(self) -> int:
        return len(self.poses)

    def swap_bones(self, generator: torch.Generator) -> None:
        """Draws whose bone lengths each pose takes."""
        drawn = torch.randint(len(self.subject_lengths), (len(self),), generator=generator)
        self.drawn_subject = drawn.to(self.poses.device)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Poses (B, 16, 3) with the bone lengths of a random subject, their projection (B, 16, 2), cameras (B, 9).

        Lengths are replaced, not scaled: swapping the swapped poses of the epoch before, as the official code does,
        gives the same.
        """
        pose, camera = self.poses[rows], self.cameras[rows]
        if not self.bone_swap:
            return pose, self.keypoints[rows], camera
        pose = with_bone_lengths(pose, self.subject_lengths[self.drawn_subject[rows]])
        return pose, project_normalised(pose, camera), camera

    def recorded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(keypoints, root-relative targets) as they are in the data."""
        return self.keypoints[rows], _root_relative(self.poses[rows])

    def real_2d(self, rows: Tensor) -> Tensor:
        """What D2D takes for real, (B, 16, 2): the data as it is, or as other cameras would see it."""
        pose, flat, camera = self(rows)
        if self.views is None:
            return flat
        turned = self.views.draw(pose)
        turned_flat = project_normalised(turned, camera)
        return torch.where(self.usable(turned, turned_flat)[:, None, None], turned_flat, flat)

    def fakes(self, augmentor: Augmentor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented (keypoints, root-relative targets); in place of unusable ones their sources."""
        with torch.no_grad():
            pose, flat, camera = self(rows)
            made = augmentor(pose)
            made_flat = project_normalised(made.pose_rt, camera)
            usable = self.usable(made.pose_rt, made_flat)[:, None, None]
            return torch.where(usable, made_flat, flat), _root_relative(torch.where(usable, made.pose_rt, pose))

    def official_fakes(self, made: Augmented, flat: Tensor) -> tuple[Tensor, Tensor]:
        """The (keypoints, root-relative targets) that the official code keeps of a GAN step's fakes."""
        pose, flat = made.pose_rt.detach(), flat.detach()
        inside = usable_fakes(pose, flat, self.aspect, lower_bound=False)
        return flat[inside], _root_relative(pose)[inside]

    def usable(self, pose: Tensor, flat: Tensor) -> Tensor:
        """(B,) bool: in front of the camera and inside the picture."""
        return usable_fakes(pose, flat, self.aspect)


def usable_fakes(pose: Tensor, keypoints: Tensor, aspect: float, lower_bound: bool = True) -> Tensor:
    """(B,) bool: which fakes a lifter may learn from, of poses (B, 16, 3) in the camera's frame and normalised
    keypoints (B, 16, 2) in a picture of ``aspect`` = height / width.

    ``lower_bound=False`` is the rule of the official code, which drops coordinates above 1 and looks at nothing else.
    """
    if not lower_bound:
        return (keypoints <= 1).all(-1).all(-1)
    bounds = keypoints.new_tensor([1.0, aspect])
    return ((keypoints.abs() <= bounds).all(-1) & (pose[..., 2] > NEAREST)).all(-1)


def _root_relative(pose: Tensor) -> Tensor:
    return pose - pose[:, :1]


def _subject_lengths(pairs: PosePairs) -> np.ndarray:
    """(S, 15) median bone lengths of each subject."""
    _, owner = np.unique(pairs.subjects, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    parts = np.split(pairs.lengths[order], np.flatnonzero(np.diff(owner[order])) + 1)
    return np.stack([np.median(part, 0) for part in parts]).astype(np.float32)
