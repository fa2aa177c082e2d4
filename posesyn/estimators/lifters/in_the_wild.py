"""One call from image keypoints to a 3D pose and its picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.estimators.lifters.keypoints import (
    View,
    image_intrinsics,
    lifted_from,
    place_before_camera,
    sixteen_keypoints,
)
from posesyn.estimators.lifters.lifter import SKELETON, Lifter
from posesyn.estimators.lifters.registry import load_lifter
from posesyn.storage.atomic import write_bytes

_VIEWS = (("from the camera", "across"), ("from the left", "towards the camera"))
_COLOURS = {"left": "tab:blue", "right": "tab:red", "middle": "0.3"}


@dataclass(frozen=True)
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
