"""The skin of a body as a dense set of points that can be painted once and looked up per pixel.

Every face carries a triangular lattice of colour samples, addressed by barycentric coordinates ("mesh colors", Yuksel,
Keyser and House, ACM TOG 29(2), 2010). That needs no texture atlas, has no seams and works for any body file. Each
sample knows where on the human it lies (along which limb, how high on the torso, where on the head), so that clothes
can be cut by a tailor's measures instead of by vertex numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from posesyn.protocols import BodyModel

TARGET_SAMPLES = 120_000  # own choice: 5 mm between samples on the small body, and painted in about 20 ms

# SMPL joints (reference: joint_sets.md) whose skinning weights make up a part.
_ARM_JOINTS = (16, 17, 18, 19, 20, 21, 22, 23)
_HAND_JOINTS = (20, 21, 22, 23)
_LEG_JOINTS = (1, 2, 4, 5, 7, 8, 10, 11)
_FOOT_JOINTS = (7, 8, 10, 11)
_HEAD_JOINTS = (15,)
_NECK_JOINTS = (12,)


@dataclass(frozen=True)
class SurfacePoints:
    """Where points lie on the human. All arrays have length N.

    Attributes:
        position: (N, 3) metres in the rest pose of the mean shape: x to the person's left, y up, z forward.
        arm, hand, leg, foot, head, neck: share of the skinning weight of that part, 0 to 1.
        arm_s: 0 at the shoulder, 1 at the elbow, 2 at the wrist; negative towards the chest.
        leg_s: 0 at the hip, 1 at the knee, 2 at the ankle.
        height: 0 at the pelvis, 1 at the neck.
        face_forward, face_side: on the head, in units of the distance from ears to eyes; 0 between the ears.
        face_up: on the head, 0 at the height of the eyes, 1 at the crown; the chin lies near -1.
        eye_offset, mouth_offset: (N, 3) metres from the eye of the same side and from the middle of the mouth.
        sole: metres above the lowest point of the body.
        neck_joint: (3,) metres, the SMPL joint 12; the same for all points.
    """

    position: np.ndarray
    arm: np.ndarray
    hand: np.ndarray
    leg: np.ndarray
    foot: np.ndarray
    head: np.ndarray
    neck: np.ndarray
    arm_s: np.ndarray
    leg_s: np.ndarray
    height: np.ndarray
    face_forward: np.ndarray
    face_up: np.ndarray
    face_side: np.ndarray
    eye_offset: np.ndarray
    mouth_offset: np.ndarray
    sole: np.ndarray
    neck_joint: np.ndarray

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def along(self) -> np.ndarray:
        """(N,) metres along the limb or down the torso: the direction in which horizontal stripes change."""
        torso = self.position[:, 1]
        arm = -0.27 * self.arm_s
        return np.where(self.arm > 0.5, arm, torso).astype(np.float32)

    @cached_property
    def around(self) -> np.ndarray:
        """(N,) metres around the limb or torso."""
        return np.where(self.arm > 0.5, self.position[:, 1], self.position[:, 0]).astype(np.float32)


class BodySurface:
    """Sampled skin of one body.

    Args:
        body: A SMPL-format body with ``faces``, ``weights`` (V, 24) and the 45 joints of smplx.

    Attributes:
        faces: (F, 3) int64.
        rest_joints, rest_vertices: (45, 3) and (V, 3) metres, mean shape.
        weights: (V, 24) skinning weights.
        points: The samples, face after face.
        vertex_points: The same for the vertices.
    """

    def __init__(self, body: BodyModel) -> None:
        self.faces = np.asarray(body.faces, np.int64)
        weights = torch.as_tensor(body.weights).detach().cpu().float().numpy()
        with torch.no_grad():
            rest = body(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10))
        vertices = rest.vertices[0].cpu().float().numpy()
        joints = rest.joints[0].cpu().float().numpy()
        self.rest_joints, self.rest_vertices, self.weights = joints, vertices, weights
        self.steps = int(np.clip(np.sqrt(2 * TARGET_SAMPLES / len(self.faces)) - 1.5, 1, 12))
        lattice = [(i, j) for i in range(self.steps + 1) for j in range(self.steps + 1 - i)]
        self.samples_per_face = len(lattice)
        share = np.array([(i, j, self.steps - i - j) for i, j in lattice], np.float32) / self.steps
        # Rounded coordinates may leave the triangle by one step: they fall back along the diagonal.
        table = np.zeros((self.steps + 1, self.steps + 1), np.int64)
        for i in range(self.steps + 1):
            for j in range(self.steps + 1):
                excess = max(i + j - self.steps, 0)
                table[i, j] = lattice.index((i - (excess + 1) // 2, j - excess // 2))
        self._table = torch.from_numpy(table)
        self.points = _locate(
            np.einsum("kc,fcx->fkx", share, vertices[self.faces]).reshape(-1, 3),
            np.einsum("kc,fcx->fkx", share, weights[self.faces]).reshape(-1, 24),
            joints,
            vertices,
        )
        self.vertex_points = _locate(vertices, weights, joints, vertices)

    def sample_index(self, face: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Faces (N,) and barycentric weights (N, 3) → rows (N,) of the nearest samples in :attr:`points`."""
        steps = torch.round(weights[:, :2] * self.steps).long()
        return face * self.samples_per_face + self._table[steps[:, 0], steps[:, 1]]


def _locate(position: np.ndarray, weights: np.ndarray, joints: np.ndarray, vertices: np.ndarray) -> SurfacePoints:
    def part(members: tuple[int, ...]) -> np.ndarray:
        return weights[:, members].sum(1)

    left = position[:, 0] >= 0  # the person's left is +x in the rest pose of SMPL
    arm_s = np.where(left, _chain(position, joints[[16, 18, 20]]), _chain(position, joints[[17, 19, 21]]))
    leg_s = np.where(left, _chain(position, joints[[1, 4, 7]]), _chain(position, joints[[2, 5, 8]]))
    pelvis, neck = joints[0], joints[12]
    ears, eyes, nose = joints[[27, 28]].mean(0), joints[[25, 26]].mean(0), joints[24]
    unit = float(eyes[2] - ears[2])
    centre = np.array([0, eyes[1], ears[2]])
    crown = float(vertices[:, 1].max() - eyes[1])
    on_face = (position - centre) / (unit, crown, unit)
    # The mouth lies below the nose by about as much as the nose below the eyes.
    mouth = nose + (nose - eyes) * np.array([0, 0.8, 0])
    eye = np.where(left[:, None], joints[26], joints[25])
    return SurfacePoints(
        position=position.astype(np.float32),
        arm=part(_ARM_JOINTS),
        hand=part(_HAND_JOINTS),
        leg=part(_LEG_JOINTS),
        foot=part(_FOOT_JOINTS),
        head=part(_HEAD_JOINTS),
        neck=part(_NECK_JOINTS),
        arm_s=arm_s,
        leg_s=leg_s,
        height=(position[:, 1] - pelvis[1]) / (neck[1] - pelvis[1]),
        face_forward=on_face[:, 2],
        face_up=on_face[:, 1],
        face_side=on_face[:, 0],
        eye_offset=position - eye,
        mouth_offset=position - mouth,
        sole=position[:, 1] - vertices[:, 1].min(),
        neck_joint=neck,
    )


def _chain(position: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Coordinate along a limb of two bones: 0, 1 and 2 at its joints."""
    start, middle, end = joints
    first, second = middle - start, end - middle
    upper = (position - start) @ first / (first @ first)
    lower = (position - middle) @ second / (second @ second)
    return np.clip(upper, -1, 1) + np.clip(lower, 0, 2)
