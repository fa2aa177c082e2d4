"""Keypoints as lifters take them, and lifting the keypoints of single images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.estimators.lifters.lifter import JOINTS, SKELETON, Lifter, load_lifter
from posesyn.estimators.placement import image_intrinsics, place_before_camera
from posesyn.settings.lifters import FOCAL
from posesyn.storage.files import write_bytes
from posesyn.types.looks import short_repr

View = Literal["person", "image"]
# Root mean square distance of the 16 keypoints from their middle in half image widths: the median of CMU mocap seen by
# the default CameraRig. Our own choice.
_SPREAD = 0.2
NEEDED = 6  # joints; fewer say nothing of a pose. Our own choice.
_PARENTS = skeletons.get(SKELETON).parents
_NAMES = skeletons.get(SKELETON).joints
_HIP_RIGHT, _HIP_LEFT, _SPINE, _NECK, _HEAD, _SHOULDER_LEFT, _SHOULDER_RIGHT = 1, 4, 7, 8, 9, 10, 13
_FACE = ("nose", "eye", "ear")


def usable_keypoints(visible: np.ndarray, skeleton: str) -> int:
    """How many of the 16 joints are visible."""
    flat = np.zeros((len(visible), 2))
    return int(skeletons.convert(flat, skeleton, SKELETON, np.asarray(visible, bool))[1].sum())


def sixteen_keypoints(points: np.ndarray, visible: np.ndarray, skeleton: str, where: object) -> np.ndarray:
    """(J, 2) pixels of ``skeleton`` → (16, 2).

    Joints the set lacks are put near where PoseAug's data have them (our own choice): the pelvis between the hips, the
    thorax between the shoulders, the spine between both, the head at the middle of what is seen of the face. Hidden
    joints take the place of the nearest joint towards the pelvis.

    Raises:
        InputError: Fewer than six of the joints are known, or a known one is not finite.
    """
    found, present = skeletons.convert(np.asarray(points, np.float64), skeleton, SKELETON, np.asarray(visible, bool))
    found, present = found.copy(), present.copy()
    if (known := int(present.sum())) < NEEDED:
        raise InputError("too few keypoints to lift", where=where, expected=f"at least {NEEDED} of 16", got=known)
    if not np.isfinite(found[present]).all():
        raise InputError("keypoints must be finite", where=where, fix="mark unknown joints as not visible")

    def between(joint: int, first: int, second: int) -> None:
        if not present[joint] and present[first] and present[second]:
            found[joint], present[joint] = (found[first] + found[second]) / 2, True

    between(0, _HIP_RIGHT, _HIP_LEFT)
    between(_NECK, _SHOULDER_LEFT, _SHOULDER_RIGHT)
    between(_SPINE, 0, _NECK)
    if not present[_HEAD]:
        names = enumerate(skeletons.get(skeleton).joints)
        face = [index for index, name in names if any(part in name for part in _FACE) and visible[index]]
        if face:
            found[_HEAD], present[_HEAD] = np.asarray(points, np.float64)[face].mean(0), True
    if not present[0]:
        found[0], present[0] = found[present].mean(0), True
    for joint in range(1, JOINTS):
        if not present[joint]:
            found[joint] = found[_PARENTS[joint]]
    return found


def normalised(points_px: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Pixels (integer = centre) → what a lifter reads: the ray of the pixel seen by a camera of focal length
    :data:`FOCAL`. With :func:`image_intrinsics` that is the published x / w · 2 - [1, h / w]."""
    rays = (np.asarray(points_px, np.float64) - intrinsics[:2, 2]) / intrinsics[[0, 1], [0, 1]]
    return (FOCAL * rays).astype(np.float32)


def person_view(rays: Tensor) -> tuple[Tensor, Tensor]:
    """What a camera sees that is turned to the person and zoomed until the person is as large as in training.

    Lifters have learnt from persons at a few metres in the middle of the picture. In pictures from elsewhere they are
    nearer, smaller or at the border: on ``cross`` of benchmarks/poseaug_scenarios.py this view takes 19 mm off the
    MPJPE of the MLP lifter (144 to 125 mm) and adds 1.6 mm on ``same`` (48 to 49 mm). Our own choice.

    Args:
        rays: (B, 16, 2) x / z and y / z in a camera.

    Returns:
        Keypoints (B, 16, 2) as a lifter reads them, and rotations (B, 3, 3) from the camera to the view.
    """
    directions = functional.pad(rays, (0, 1), value=1.0)
    forward = functional.normalize(directions.mean(1), dim=-1)
    down = forward.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = functional.normalize(torch.linalg.cross(down, forward), dim=-1)
    rotation = torch.stack((right, torch.linalg.cross(forward, right), forward), 1)
    turned = directions @ rotation.mT
    flat = turned[..., :2] / turned[..., 2:].clamp_min(0.1)
    spread = (flat - flat.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt()
    return flat * (_SPREAD / spread.clamp_min(1e-6))[:, None, None], rotation


def lifted_from(lifter: Lifter, points_px: np.ndarray, intrinsics: np.ndarray, view: View) -> np.ndarray:
    """Keypoints (B, 16, 2) of images with cameras (B, 3, 3) → root-relative poses (B, 16, 3) in these cameras.

    ``view`` is ``person`` (:func:`person_view`) or ``image`` (where in the image the person stands, the published
    rule), else InputError; the lifter is in eval mode.
    """
    device = next(lifter.parameters()).device
    if view == "image":
        flat = np.stack([normalised(*pair) for pair in zip(points_px, intrinsics)])
        lifted = lifter(torch.from_numpy(flat).to(device)).cpu().double()
    elif view == "person":
        focal = intrinsics[:, None, [0, 1], [0, 1]]
        seen, rotation = person_view(torch.from_numpy((points_px - intrinsics[:, None, :2, 2]) / focal))
        lifted = lifter(seen.float().to(device)).cpu().double() @ rotation
    else:
        raise InputError("unknown view of a lifter", expected="'person' or 'image'", got=view)
    return (lifted - lifted[:, :1]).numpy()


_VIEWS = (("from the camera", "across"), ("from the left", "towards the camera"))
_COLOURS = {"left": "tab:blue", "right": "tab:red", "middle": "0.3"}


@dataclass(frozen=True, eq=False, repr=False)
class LiftedImage:
    """A pose from an image.

    Attributes:
        joints_cam: (16, 3) metres, order ``poseaug16``, camera frame.
        keypoints_px: (16, 2) that the lifter was given.
        size: (width, height) of the image.
    """

    joints_cam: np.ndarray
    keypoints_px: np.ndarray
    size: tuple[int, int]

    __repr__ = short_repr

    def picture(self, path: str | os.PathLike[str] | None = None, image: np.ndarray | None = None) -> bytes:
        """PNG: keypoints on the image, and the pose as the camera sees it and from the picture's left side.

        Left limbs are blue, right ones red.

        Args:
            path: Also written there.
            image: (H, W, 3) uint8 RGB behind the keypoints.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        flat = figure.add_subplot(1, 3, 1, title="keypoints", aspect="equal")
        flat.set_axis_off()
        if image is not None:
            flat.imshow(image)
        else:
            flat.set(xlim=(0, self.size[0]), ylim=(self.size[1], 0))
        # Across, up, depth, about the middle of the pose, so that it fills the picture.
        centred = self.joints_cam * (1, -1, 1)
        centred = centred - (centred.min(0) + centred.max(0)) / 2
        reach = max(1.0, 1.1 * float(np.abs(centred).max()))
        views = []
        for number, (title, axis) in enumerate(_VIEWS, 2):
            axes = figure.add_subplot(1, 3, number, title=title, aspect="equal", xlabel=f"{axis} [m]", ylabel="up [m]")
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
            axes.grid(alpha=0.3)
            views.append(axes)
        colours = [_COLOURS[side] for side in skeletons.get(SKELETON).sides]
        for parent, child in skeletons.get(SKELETON).bones:
            flat.plot(*self.keypoints_px[[parent, child]].T, color=colours[child], lw=2)
        # Both views show their own x to the right and are painted from the far side to the near one.
        turned = np.stack((-centred[:, 2], centred[:, 1], centred[:, 0]), 1)
        for axes, joints in zip(views, (centred, turned)):
            bones = sorted(skeletons.get(SKELETON).bones, key=lambda bone: -float(joints[list(bone), 2].sum()))
            for bone in bones:
                x, y, _ = joints[list(bone)].T
                axes.plot(x, y, color=colours[bone[1]], lw=2.5, solid_capstyle="round")
        file = BytesIO()
        figure.savefig(file, format="png", dpi=90)
        if path is not None:
            write_bytes(Path(path), file.getvalue())
        return file.getvalue()


def lift_keypoints(
    lifter: Lifter | str | os.PathLike[str],
    keypoints_px: np.ndarray,
    size: tuple[int, int],
    skeleton: str = "coco17",
    visible: np.ndarray | None = None,
    intrinsics: np.ndarray | None = None,
    view: View = "person",
) -> LiftedImage:
    """Image keypoints → a 3D pose.

    Args:
        lifter: A lifter or its file.
        keypoints_px: (J, 2) pixels of the full image.
        size: (width, height) of the image.
        skeleton: Joint order of the keypoints.
        visible: (J,) bool, or None for all.
        intrinsics: (3, 3) of the image; None assumes the focal length of Human3.6M's cameras.
        view: ``person`` turns and zooms to the person first (:func:`posesyn.estimators.lifters.keypoints.person_view`),
            ``image`` is PoseAug's rule.

    Raises:
        InputError: Wrong shapes, an unknown view, or fewer than six usable joints.
    """
    points = np.asarray(keypoints_px, np.float64)
    joints = len(skeletons.get(skeleton))
    if points.shape != (joints, 2) or min(size) < 1:
        raise InputError(
            f"keypoints must be (J, 2) for skeleton '{skeleton}' (J={joints}) of an image with a size",
            where="lift_keypoints",
            got=(points.shape, tuple(size)),
        )
    seen = np.ones(joints, bool) if visible is None else np.asarray(visible, bool)
    if not isinstance(lifter, Lifter):
        lifter = load_lifter(lifter)
    camera = np.asarray(image_intrinsics(*size) if intrinsics is None else intrinsics, np.float64)
    found = sixteen_keypoints(points, seen, skeleton, "lift_keypoints")
    was_training = lifter.training
    lifter.eval()
    try:
        with torch.inference_mode():
            lifted = lifted_from(lifter, found[None], camera[None], view)[0]
    finally:
        lifter.train(was_training)
    placed = lifted + place_before_camera(lifted, found, camera)
    return LiftedImage(placed.astype(np.float32), found.astype(np.float32), (int(size[0]), int(size[1])))
