"""MPII's published ``mpii_human_pose_v1_u12_1.mat`` as the records of the json form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from posesyn.data.mat_file import read_mat
from posesyn.errors import InputError

_JOINTS = 16
# MPII's PCKh takes 0.6 of the diagonal of the head box (evaluation.md section 8).
_HEAD_FACTOR = 0.6


def read_mpii_mat(path: Path) -> list[dict[str, Any]]:
    """One record per annotated person: ``{image, joints, joints_vis, center, scale, head_size, occluded, activity,
    split, video}``, coordinates counted from 1 as in the file. Persons without joints carry a ``reason``.

    Raises:
        FileError: Missing or damaged.
        InputError: A mat file of another data set, or one with another structure.
    """
    release = read_mat(path, ["RELEASE"], "MPII's annotation file")["RELEASE"]
    try:
        images, train = np.atleast_1d(release.annolist), np.atleast_1d(release.img_train)
        acts = np.atleast_1d(release.act) if hasattr(release, "act") else None
        records = []
        for row, image in enumerate(images):
            shared = {"image": str(image.image.name), "split": "train" if train[row] else "test"}
            if acts is not None and isinstance(getattr(acts[row], "act_name", None), str) and acts[row].act_name:
                shared["activity"] = acts[row].act_name
            video = np.atleast_1d(getattr(image, "vididx", ()))
            if video.size:
                shared["video"] = str(int(video[0]))
            records += [{**shared, **_person(rect)} for rect in np.atleast_1d(image.annorect) if _is_struct(rect)]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise InputError("RELEASE has another structure than MPII's", where=path, got=error) from error
    return records


def _is_struct(value: Any) -> bool:
    return hasattr(value, "_fieldnames")


def _person(rect: Any) -> dict[str, Any]:
    joints, labelled, occluded = np.full((_JOINTS, 2), -1.0), np.zeros(_JOINTS), np.zeros(_JOINTS, bool)
    found: dict[str, Any] = {}
    position = getattr(rect, "objpos", None)
    if _is_struct(position):
        found["center"] = [float(position.x), float(position.y)]
    if np.size(getattr(rect, "scale", ())) == 1:
        found["scale"] = float(rect.scale)
    corners = [getattr(rect, name, ()) for name in ("x1", "y1", "x2", "y2")]
    if all(np.size(corner) == 1 for corner in corners):
        x1, y1, x2, y2 = (float(corner) for corner in corners)
        found["head_size"] = _HEAD_FACTOR * float(np.hypot(x2 - x1, y2 - y1))
    points = getattr(getattr(rect, "annopoints", None), "point", None)
    if points is None:
        return {**found, "joints": joints.tolist(), "joints_vis": labelled.tolist(), "reason": "it has no joints"}
    for point in np.atleast_1d(points):
        joint = int(point.id)
        if not 0 <= joint < _JOINTS:
            raise ValueError(f"joint number {joint}")
        joints[joint], labelled[joint] = (float(point.x), float(point.y)), 1
        # Empty for head and neck, which MPII does not judge.
        flag = getattr(point, "is_visible", "")
        occluded[joint] = np.size(flag) == 1 and str(np.asarray(flag).item()) in ("0", "0.0")
    if occluded.any():
        found["occluded"] = occluded.tolist()
    return {**found, "joints": joints.tolist(), "joints_vis": labelled.tolist()}
