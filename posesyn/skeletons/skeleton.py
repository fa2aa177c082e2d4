"""Joint sets and conversions between them. Nothing here needs torch; :func:`convert` takes torch tensors if given some.

All index arrays are generated from joint names (:mod:`posesyn.skeletons.tables`); none is typed by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from posesyn.errors import InputError
from posesyn.skeletons import tables


@dataclass(frozen=True)
class Skeleton:
    """One joint set.

    Attributes:
        name: Key in :data:`SKELETONS`.
        joints: J joint names, unique. ``left``/``right`` are the person's own.
        parents: Parent of each joint, -1 for the root, or None where the set is not a tree.
        bones: Pairs of joint indices to draw, parent first.
        flip: Permutation for a mirrored image: ``flipped[i] = points[flip[i]]``, then mirror x.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...] | None
    bones: tuple[tuple[int, int], ...]
    flip: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Skeleton({self.name!r}, {len(self)} joints)"

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def sides(self) -> tuple[str, ...]:
        """``left``, ``right`` or ``middle`` (its own mirror image) for each joint."""
        return tuple(
            "middle" if self.flip[i] == i else "left" if "left" in name.split("_") else "right"
            for i, name in enumerate(self.joints)
        )

    def index(self, joint: str) -> int:
        """Index of a joint by name; raises InputError with the names of the set."""
        if joint not in self.joints:
            raise InputError(f"skeleton '{self.name}' has no joint '{joint}'", expected=list(self.joints))
        return self.joints.index(joint)


def _drawn_bones(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    bones: list[tuple[int, int]] = []
    prefixes = ("op_", "") if any(joint.startswith("op_") for joint in joints) else ("",)
    for prefix in prefixes:
        for child, *parents in tables.DRAWN_BONES:
            parent = next((prefix + p for p in parents if prefix + p in joints), None)
            if prefix + child not in joints or parent is None:
                continue
            bone = (joints.index(parent), joints.index(prefix + child))
            if bone not in bones and bone[::-1] not in bones:
                bones.append(bone)
    return tuple(bones)


def _build(name: str) -> Skeleton:
    joints = tuple(token.split(":")[0] for token in tables.JOINTS[name].split())
    swap = {"left": "right", "right": "left"}
    mirrored = ("_".join(swap.get(word, word) for word in joint.split("_")) for joint in joints)
    flip = tuple(joints.index(joint) for joint in mirrored)
    tree = tables.TREES.get(name)
    if tree is None:
        return Skeleton(name, joints, None, _drawn_bones(joints), flip)
    parents = tuple(joints.index(tree[joint]) if joint in tree else -1 for joint in joints)
    bones = tuple((parent, child) for child, parent in enumerate(parents) if parent >= 0)
    return Skeleton(name, joints, parents, bones, flip)


SKELETONS: dict[str, Skeleton] = {name: _build(name) for name in tables.JOINTS}


def get(name: str) -> Skeleton:
    """The joint set of that name.

    Raises:
        InputError: Unknown name; the message lists the known ones.
    """
    if name not in SKELETONS:
        raise InputError(f"unknown skeleton '{name}'", expected=f"one of {', '.join(sorted(SKELETONS))}")
    return SKELETONS[name]


def _identities(name: str) -> tuple[str, ...]:
    return tuple(token.split(":")[-1] for token in tables.JOINTS[get(name).name].split())


def _base(identity: str) -> str:
    return identity.removeprefix("op_")


def _aliases(identity: str, approximate: bool) -> list[str]:
    """Identities that may stand in for one, best first."""
    found = []
    for first, second, inexact in tables.ALIASES:
        if identity in (first, second) and (approximate or not inexact):
            found.append(second if identity == first else first)
    return found


@cache
def _mapping(source: str, target: str, approximate: bool) -> tuple[int, ...]:
    available: dict[str, int] = {}
    for i, identity in enumerate(_identities(source)):
        available.setdefault(identity, i)
    wanted = _identities(target)
    result = [available.get(identity, -1) for identity in wanted]
    for i, identity in enumerate(wanted):
        if result[i] < 0 and approximate:
            result[i] = available.get(tables.OPENPOSE_OF_SMPL.get(identity, ""), -1)
        if result[i] < 0:
            result[i] = available.get(_base(identity), available.get(f"op_{_base(identity)}", -1))
    # A stand-in that already serves as itself would put one point into two different joints: H36M has one head,
    # and SPIN-24 keeps head top and H36M head apart. The slots op_x and x are the same joint and may share.
    taken: dict[int, str | None] = {index: None for index in result if index >= 0}
    for i, identity in enumerate(wanted):
        if result[i] >= 0:
            continue
        base = _base(identity)
        for alias in _aliases(base, approximate):
            index = available.get(alias, available.get(f"op_{alias}", -1))
            if index >= 0 and (index not in taken or taken[index] == base):
                result[i], taken[index] = index, base
                break
    return tuple(result)


def mapping(source: str, target: str, approximate: bool = True) -> np.ndarray:
    """Where each joint of ``target`` is found in ``source``.

    Args:
        source, target: Names in :data:`SKELETONS`.
        approximate: Whether a joint some centimetres away may stand in (SMPL hips for COCO hips, mid-shoulders for the
            LSP neck). The table of stand-ins is ``tables.ALIASES``.

    Returns:
        (J_target,) int64; ``target[i] = source[result[i]]``, -1 where ``source`` has no such joint.
    """
    return np.array(_mapping(get(source).name, get(target).name, approximate), dtype=np.int64)


def convert(
    points: Any, source: str, target: str, visible: Any | None = None, *, approximate: bool = True
) -> tuple[Any, Any]:
    """Reorders points of one joint set into another.

    Args:
        points: (..., J_source, D) NumPy array or torch tensor.
        source, target: Names in :data:`SKELETONS`.
        visible: (..., J_source) bool (or confidences, where positive means visible), or None for all visible.
        approximate: As in :func:`mapping`.

    Returns:
        Points (..., J_target, D), zero at joints that ``source`` does not have, and present (..., J_target) bool. Both
        of the kind (NumPy or torch) and on the device of ``points``; gradients flow.

    Raises:
        InputError: Wrong number of joints, or ``visible`` of another shape than the points.

    Example:
        >>> points, present = convert(np.zeros((3, 17, 2)), "coco17", "smpl24")
        >>> points.shape, int(present[0].sum())
        ((3, 24, 2), 12)
    """
    joints = len(get(source))
    is_torch = type(points).__module__.split(".")[0] == "torch"
    if not is_torch:
        points = np.asarray(points)
    if points.ndim < 2 or points.shape[-2] != joints:
        raise InputError(
            f"points must be (..., J, D) for skeleton '{source}' (J={joints})",
            where="skeletons.convert",
            got=tuple(points.shape),
            fix="name the skeleton that the points are in",
        )
    if is_torch:
        import torch

        all_visible = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
        visible = all_visible if visible is None else torch.as_tensor(visible, device=points.device)
    else:
        visible = np.ones(points.shape[:-1], bool) if visible is None else np.asarray(visible)
    got, expected = tuple(visible.shape), tuple(points.shape[:-1])
    if got != expected:
        what = "visible must have the shape of the points without their last axis"
        raise InputError(what, where="skeletons.convert", expected=expected, got=got)
    array = mapping(source, target, approximate)
    rows, absent = np.maximum(array, 0).tolist(), np.flatnonzero(array < 0).tolist()
    points_out, present = points[..., rows, :], (visible > 0)[..., rows]
    if absent:
        points_out[..., absent, :] = 0
        present[..., absent] = False
    return points_out, present


def add_midpoints(points: Any, confidence: Any, skeleton: str = "coco17") -> tuple[Any, Any]:
    """Appends pelvis (mean of the hips) and neck (mean of the shoulders), the step from COCO-17 to ``coco19``.

    The confidence of a derived point is the product of the two (hongsukchoi/3DCrowdNet_RELEASE).

    Args:
        points: (..., J, D), NumPy or torch.
        confidence: (..., J) of the same kind; bool counts as 0 and 1 and stays bool.
        skeleton: Joint order; needs left and right hip and shoulder.

    Returns:
        Points (..., J + 2, D), confidence (..., J + 2).
    """
    joints = get(skeleton)
    if points.shape[-2] != len(joints) or tuple(confidence.shape) != tuple(points.shape[:-1]):
        what = f"points and confidence must be (..., {len(joints)}, D) and (..., {len(joints)}) for '{skeleton}'"
        got = (tuple(points.shape), tuple(confidence.shape))
        raise InputError(what, where="skeletons.add_midpoints", got=got)
    order = list(range(len(joints)))
    pairs = [(joints.index(f"left_{part}"), joints.index(f"right_{part}")) for part in ("hip", "shoulder")]
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    # Two copies of the last joints make room; indexing keeps this independent of NumPy or torch.
    points_out, confidence_out = points[..., order + first, :], confidence[..., order + first]
    if isinstance(points_out, np.ndarray) and not np.issubdtype(points_out.dtype, np.floating):
        points_out = points_out.astype(np.float64)  # halves of whole pixels
    points_out[..., len(order) :, :] = (points[..., first, :] + points[..., second, :]) / 2
    confidence_out[..., len(order) :] = confidence[..., first] * confidence[..., second]
    return points_out, confidence_out


def detect_h36m_order(template_joints: np.ndarray) -> str:
    """Tells which of the two H36M-17 orders a joint regressor has (the file's name does not tell).

    Args:
        template_joints: (17, 3) the regressor applied to the SMPL template, which faces +z, so that the person's left
            is +x.

    Returns:
        ``"h36m17"`` (right hip in row 1, CANON) or ``"h36m17_reg"`` (left hip in row 1).

    Raises:
        InputError: Not (17, 3), or the hips are not on two sides.
    """
    joints = np.asarray(template_joints)
    if joints.shape != (17, 3):
        raise InputError("template_joints has the wrong shape", expected=(17, 3), got=joints.shape)
    row1, row4 = joints[1, 0] - joints[0, 0], joints[4, 0] - joints[0, 0]
    if not row1 * row4 < 0:
        raise InputError(
            "rows 1 and 4 do not lie on two sides of the pelvis",
            where="skeletons.detect_h36m_order",
            expected="a 17-joint H36M regressor applied to the SMPL template",
            got=f"x offsets {row1:.4f} and {row4:.4f}",
        )
    return "h36m17" if row1 < 0 else "h36m17_reg"
