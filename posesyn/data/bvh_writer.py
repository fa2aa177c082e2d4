"""Motions as BVH files that animation programs open upright: y up, centimetres, names of MotionBuilder and Mixamo."""

from __future__ import annotations

from os import PathLike
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation

from posesyn.data.bvh_retarget import JOINTS, PARENTS, aim, body_rest, bone_lengths, local_rotvec, refine
from posesyn.data.bvh_skeletons import SMPL_NAMES
from posesyn.errors import InputError
from posesyn.storage.atomic import write_bytes
from posesyn.types import Motion

METRES_PER_UNIT = 0.01
# What all importers read: positions of the root, then z, y, x turns in this order, R = Rz Ry Rx (as MotionBuilder).
_ORDER = ("Zrotation", "Yrotation", "Xrotation")
# Tips of the bones that end, metres; programs draw them, nothing else depends on them. Our own choice.
_TIPS = {15: (0.0, 0.18, 0.0), 10: (0.0, 0.0, 0.07), 11: (0.0, 0.0, 0.07), 22: (0.08, 0.0, 0.0), 23: (-0.08, 0.0, 0.0)}
_FITS = 2


def write_bvh(
    path: str | PathLike[str],
    motion: Motion,
    body: Any = None,
    *,
    bones: Literal["joints", "body"] = "joints",
    source_size: bool = False,
) -> None:
    """Writes a motion as BVH; :func:`posesyn.data.bvh.read_bvh` and animation programs read it.

    Args:
        path: The file, replaced if it exists.
        motion: The motion.
        body: The body it belongs to; None loads the free one.
        bones: ``"body"``: the hierarchy has the body's rest joints and the rotations are the motion's own.
            ``"joints"``: the bones are given the lengths of ``joints_world``, where the motion has them, and are aimed
            at them. Mocap keeps its joints so, which ten betas cannot follow (CMU's upper arms are 4 cm longer).
        source_size: Undo the one factor and the lift that ``bvh_to_motion`` brought the mocap to the body with
            (``meta["scale"]``, ``meta["lift_m"]``), so the file has the size of the person again.

    Raises:
        FileError: The file cannot be written.
        InputError: Unknown ``bones``.
    """
    if bones not in ("joints", "body"):
        raise InputError("unknown choice of bones", where="write_bvh", expected="joints or body", got=bones)
    if body is None:
        from posesyn.body import load_body

        body = load_body("anny", size="small")
    rest = body_rest(body, motion.betas)
    local = Rotation.from_rotvec(motion.pose_rotvec.reshape(-1, 3).astype(np.float64)).as_matrix()
    local = local.reshape(-1, len(PARENTS), 3, 3)
    root = motion.transl_world.astype(np.float64) + rest[0]
    if bones == "joints" and motion.joints_world is not None:
        rest, local, root = _own_bones(motion.joints_world.astype(np.float64), local, rest)
    size = 1.0
    if source_size:
        size = 1.0 / float(motion.meta.get("scale", 1.0))
        root = root - np.array([0.0, float(motion.meta.get("lift_m", 0.0)), 0.0])
    text = _hierarchy(rest * size) + _frames(local, root * size, motion.fps)
    write_bytes(path, text.encode("ascii"))


def _own_bones(joints: np.ndarray, local: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rest joints with the bones of ``joints`` (T, 22, 3), and the local rotations and root that bring them there."""
    world = _global(local)
    lengths = bone_lengths(joints).mean(axis=0)
    rest = _with_bones(rest, list(zip(rest[1:JOINTS] - rest[list(PARENTS[1:JOINTS])], lengths)))
    for _ in range(_FITS):
        turned, placed = refine(aim(world[:, :JOINTS], joints, rest)[0], joints, rest)
        # With these rotations, the bones that fit best are means: linear least squares.
        bones = [
            np.einsum("tba,tb->ta", turned[:, PARENTS[j]], joints[:, j] - joints[:, PARENTS[j]]).mean(0)
            for j in range(1, JOINTS)
        ]
        rest = _with_bones(rest, list(zip(bones, lengths)))
    turned, placed = refine(turned, joints, rest)
    hands = local[:, JOINTS:]
    fitted = Rotation.from_rotvec(local_rotvec(turned)[:, :JOINTS].reshape(-1, 3)).as_matrix()
    return rest, np.concatenate([fitted.reshape(-1, JOINTS, 3, 3), hands], axis=1), placed[:, 0]


def _with_bones(rest: np.ndarray, bones: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Rest joints whose bones point along the given vectors and have the given lengths; hands keep their bones."""
    result = rest.copy()
    for joint in range(1, len(PARENTS)):
        bone = rest[joint] - rest[PARENTS[joint]]
        if joint < JOINTS:
            direction, length = bones[joint - 1]
            norm = np.linalg.norm(direction)
            bone = direction * (length / norm) if norm > 1e-6 else bone
        result[joint] = result[PARENTS[joint]] + bone
    return result


def _global(local: np.ndarray) -> np.ndarray:
    world = local.copy()
    for joint in range(1, len(PARENTS)):
        world[:, joint] = world[:, PARENTS[joint]] @ local[:, joint]
    return world


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(PARENTS) if parent == joint]


def _file_order() -> list[int]:
    """Joints in the order in which the hierarchy, and so every line of numbers, names them."""
    order, stack = [], [0]
    while stack:
        joint = stack.pop()
        order.append(joint)
        stack += reversed(_children(joint))
    return order


def _hierarchy(rest: np.ndarray) -> str:
    def offset(values: np.ndarray) -> str:
        return "OFFSET " + " ".join(f"{value / METRES_PER_UNIT:.6f}" for value in values)

    def block(joint: int, depth: int) -> list[str]:
        tab, inner = "\t" * depth, "\t" * (depth + 1)
        # The root's place is in its channels; an offset beside them is added by some readers and not by others.
        bone = np.zeros(3) if joint == 0 else rest[joint] - rest[PARENTS[joint]]
        positions = "Xposition Yposition Zposition " if joint == 0 else ""
        lines = [
            f"{tab}{'ROOT' if joint == 0 else 'JOINT'} {SMPL_NAMES[joint]}",
            f"{tab}{{",
            inner + offset(bone),
            f"{inner}CHANNELS {6 if joint == 0 else 3} {positions}{' '.join(_ORDER)}",
        ]
        for child in _children(joint):
            lines += block(child, depth + 1)
        if joint in _TIPS:
            lines += [f"{inner}End Site", f"{inner}{{", f"{inner}\t{offset(np.array(_TIPS[joint]))}", f"{inner}}}"]
        return [*lines, f"{tab}}}"]

    return "\n".join(["HIERARCHY", *block(0, 0)]) + "\n"


def _frames(local: np.ndarray, root: np.ndarray, fps: float) -> str:
    order = _file_order()
    angles = Rotation.from_matrix(local[:, order].reshape(-1, 3, 3)).as_euler("ZYX", degrees=True)
    angles = continuous_angles(angles.reshape(len(local), len(order), 3))
    values = np.concatenate([root / METRES_PER_UNIT, angles.reshape(len(local), -1)], axis=1)
    lines = [" ".join(f"{value:.5f}" for value in row) for row in values]
    return "\n".join(["MOTION", f"Frames: {len(local)}", f"Frame Time: {1 / fps:.9g}", *lines]) + "\n"


def continuous_angles(angles: np.ndarray) -> np.ndarray:
    """(T, J, 3) Euler angles in degrees, outer to inner → the same rotations without jumps of half and whole turns.

    Of the two triples (a, b, c) and (a + 180, 180 - b, c + 180) that mean one rotation, and of their whole turns, each
    frame takes the one nearest to the frame before; programs that interpolate angles else spin limbs between frames.
    """
    result = np.array(angles, np.float64)
    for t in range(1, len(result)):
        before = result[t - 1]
        first = result[t]
        second = first * [1, -1, 1] + 180.0
        candidates = [value + 360.0 * np.round((before - value) / 360.0) for value in (first, second)]
        nearer = np.abs(candidates[1] - before).sum(-1) < np.abs(candidates[0] - before).sum(-1) - 1e-9
        result[t] = np.where(nearer[:, None], candidates[1], candidates[0])
    return result
