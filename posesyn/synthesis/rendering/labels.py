"""Exact labels of a rendered motion: body parameters, joints and keypoints in the camera frame, visibility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from posesyn.geometry.rotations import matrix_to_rotvec, rotvec_to_matrix
from posesyn.protocols import BodyModel
from posesyn.synthesis.rendering.cameras import CameraPath
from posesyn.types import Motion

# Own choices, in metres. A joint inside the body counts as seen if what is seen in front of it is its own part of the
# body and not thicker than a chest; anything else hides it unless it lies no deeper than the skin around it.
_OWN_PART, _CLOTH = 0.28, 0.04
_TORSO = (0, 3, 6, 9, 12, 13, 14)
# Parts beside the kinematic neighbours that belong to a joint: the chest to the shoulders, the belly to the hips.
_BESIDE = {1: (3,), 2: (3,), 16: (9,), 17: (9,), 15: (12,)}
_INNER_JOINTS = 24


@dataclass(frozen=True)
class CameraLabels:
    """Shapes: pose_rotvec (T, 24, 3), transl_cam (T, 3), joints_cam (T, 45, 3), keypoints_px (T, 45, 2); float32."""

    pose_rotvec: np.ndarray
    transl_cam: np.ndarray
    joints_cam: np.ndarray
    keypoints_px: np.ndarray


def camera_labels(body: BodyModel, motion: Motion, joints_world: np.ndarray, camera: CameraPath) -> CameraLabels:
    """Body parameters of a motion as seen by a camera.

    SMPL rotates the body around its pelvis j0, which is not at the origin: v = R0 (v' − j0) + j0 + t. In the camera
    frame, R v + s has root rotation R R0 and translation R (j0 + t) + s − j0.

    Args:
        body: Needs ``rest_joints``.
        motion: In the world frame.
        joints_world: (T, 45, 3) of the posed body.
        camera: Of the clip.
    """
    rotation = camera.rotation.astype(np.float64)
    shift = camera.translation.astype(np.float64)
    root = rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec[:, 0]).double())
    pose = motion.pose_rotvec.copy()
    pose[:, 0] = matrix_to_rotvec(torch.from_numpy(rotation) @ root).float().numpy()
    with torch.no_grad():
        pelvis = body.rest_joints(torch.from_numpy(motion.betas)[None])[0, 0].double().numpy()
    translation = (pelvis + motion.transl_world) @ rotation.T + shift - pelvis
    joints = joints_world @ rotation.T + shift[:, None]
    matrix = camera.intrinsics.astype(np.float64)
    keypoints = joints[..., :2] / joints[..., 2:] * matrix[[0, 1], [0, 1]] + matrix[:2, 2]
    return CameraLabels(
        pose.astype(np.float32), translation.astype(np.float32), joints.astype(np.float32), keypoints.astype(np.float32)
    )


class JointVisibility:
    """Decides which joints are seen.

    Args:
        rest_joints: (45, 3) and ``rest_vertices`` (V, 3), metres, rest pose.
        weights: (V, 24) skinning weights.
        faces: (F, 3).
        parents: Of the 24 joints, -1 for the root.
    """

    def __init__(
        self, rest_joints: np.ndarray, rest_vertices: np.ndarray, weights: np.ndarray, faces: np.ndarray, parents
    ) -> None:
        distance = np.linalg.norm(rest_joints[:, None] - rest_vertices[None], axis=-1).min(1)
        self._tolerance = _CLOTH + distance
        self._part_of_face = weights[faces].sum(1).argmax(1)
        joints = len(rest_joints)
        self._own = np.zeros((joints, weights.shape[1]), bool)
        for joint in range(_INNER_JOINTS):
            near = {joint, max(parents[joint], 0)} | {child for child, p in enumerate(parents) if p == joint}
            near |= set(_BESIDE.get(joint, ())) | (set(_TORSO) if joint in _TORSO else set())
            self._own[joint, sorted(near)] = True

    def __call__(
        self, joints_cam: np.ndarray, keypoints_px: np.ndarray, face_index: np.ndarray, depth: np.ndarray
    ) -> np.ndarray:
        """(T, J) bool: inside the image and not behind another part of the body.

        Args:
            joints_cam: (T, J, 3) metres. keypoints_px: (T, J, 2).
            face_index: (T, H, W), -1 where no body is seen. depth: (T, H, W) metres.
        """
        frames, height, width = face_index.shape
        column, row = np.rint(keypoints_px[..., 0]), np.rint(keypoints_px[..., 1])
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (joints_cam[..., 2] > 0)
        column, row = np.where(inside, column, 0).astype(int), np.where(inside, row, 0).astype(int)
        frame = np.arange(frames)[:, None]
        face = face_index[frame, row, column]
        behind = joints_cam[..., 2] - depth[frame, row, column]
        own = self._own[np.arange(face.shape[1]), self._part_of_face[face]]
        hidden = (face >= 0) & (behind > np.where(own, _OWN_PART, self._tolerance))
        return inside & ~hidden
