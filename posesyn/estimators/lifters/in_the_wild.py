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
from posesyn.estimators.lifters.keypoints import image_intrinsics, normalised, place_before_camera, sixteen_keypoints
from posesyn.estimators.lifters.lifter import SKELETON, Lifter
from posesyn.estimators.lifters.registry import load_lifter
from posesyn.storage.atomic import write_bytes

_LEFT = {4, 5, 6, 10, 11, 12}


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
        """PNG: keypoints on the image, and the pose from the front and from the side.

        Args:
            path: Also written there.
            image: (H, W, 3) uint8 RGB behind the keypoints.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        flat = figure.add_subplot(1, 3, 1, title="keypoints", aspect="equal")
        if image is not None:
            flat.imshow(image)
        else:
            flat.set(xlim=(0, self.size[0]), ylim=(self.size[1], 0))
        centred = self.joints_cam - self.joints_cam[:1]
        # x, depth, up
        views = [figure.add_subplot(1, 3, k, projection="3d", title=title) for k, title in ((2, "front"), (3, "side"))]
        for axes, azimuth in zip(views, (-90, 0)):
            axes.view_init(elev=8, azim=azimuth)
            axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1), xlabel="x", ylabel="depth", zlabel="up")
        for parent, child in skeletons.get(SKELETON).bones:
            colour = "tab:blue" if child in _LEFT else "tab:red" if child in range(1, 4) or child > 12 else "0.3"
            flat.plot(*self.keypoints_px[[parent, child]].T, color=colour, lw=2)
            x, y, z = centred[[parent, child]].T
            for axes in views:
                axes.plot(x, z, -y, color=colour, lw=2)
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
) -> LiftedImage:
    """Image keypoints → a 3D pose.

    Args:
        lifter: A lifter or its file.
        keypoints_px: (J, 2) pixels of the full image.
        size: (width, height) of the image.
        skeleton: Joint order of the keypoints.
        visible: (J,) bool, or None for all.
        intrinsics: (3, 3) of the image; None assumes the focal length of Human3.6M's cameras.

    Raises:
        InputError: Wrong shapes, or fewer than six usable joints.
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
            device = next(lifter.parameters()).device
            lifted = lifter(torch.from_numpy(normalised(found, camera)[None]).to(device))[0].cpu().numpy()
    finally:
        lifter.train(was_training)
    lifted = lifted.astype(np.float64) - lifted[:1]
    placed = lifted + place_before_camera(lifted, found, camera)
    return LiftedImage(placed.astype(np.float32), found.astype(np.float32), (int(size[0]), int(size[1])))
