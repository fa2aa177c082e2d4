"""Pose pairs of the PoseAug benchmark: real mocap of ../shared/data seen by sampled cameras.

| set | people | actions | cameras |
|---|---|---|---|
| train | CMU train subjects | walk, run, everyday | 4 in fixed directions, 1.4-1.7 m high, 4-6 m away |
| same | CMU test subjects | walk, everyday | those |
| cross | CMU test subjects | all others | any direction, 0.3-3.5 m high, 2.5-9 m away |
| | HDM05 subjects of train and test | all | those |
| validation | CMU and HDM05 subjects of val | walk, run, everyday | half of the pairs: those of train |
| | | all | half of the pairs: those of cross |

Nobody in validation is in train, same or cross.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from posesyn.data.motions.bvh import bvh_joints
from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.data.pose_pairs.sources import pairs_of_joints
from posesyn.settings.lifters import CameraRig

EVERYDAY = ("walk", "run", "everyday")
STUDIO = CameraRig(heights=(1.4, 1.7), distances=(4.0, 6.0), count=4, azimuths=(0.8, 2.3, 3.9, 5.4))
ELSEWHERE = CameraRig(heights=(0.3, 3.5), distances=(2.5, 9.0), count=4, aim=(0.6, 1.1), focal=(1.8, 2.8))
FPS = 10.0
TRAIN, TEST, VALIDATION = 12_288, 8_192, 4_096


def scenarios(data: Path, cache: Path) -> dict[str, PosePairs]:
    """``train``, ``same``, ``cross``, ``validation``; made once and kept in ``cache``."""
    names = ("train", "same", "cross", "validation")
    if not all((cache / f"{name}.npz").is_file() for name in names):
        cache.mkdir(parents=True, exist_ok=True)
        for name, pairs in _made(data).items():
            fields = ("joints_cam", "keypoints", "cameras", "groups", "subjects")
            np.savez(cache / f"{name}.npz", **{field: getattr(pairs, field) for field in fields})
    found = {}
    for name in names:
        with np.load(cache / f"{name}.npz", allow_pickle=False) as file:
            found[name] = PosePairs(**{key: file[key] for key in file.files})
    return found


def _made(data: Path) -> dict[str, PosePairs]:
    cmu, hdm = _rows(data / "cmu"), _rows(data / "hdm05")

    def seen(rows: list[tuple], rig: CameraRig, seed: int) -> PosePairs:
        return pairs_of_joints([row[2:] for row in rows], rig, seed)

    train = [row for row in cmu if row[0] == "train" and row[1] in EVERYDAY]
    same = [row for row in cmu if row[0] == "test" and row[1] in EVERYDAY]
    cross = [row for row in cmu if row[0] == "test" and row[1] not in EVERYDAY]
    cross += [row for row in hdm if row[0] in ("train", "test")]
    held = [row for row in cmu + hdm if row[0] == "val"]
    usual = [row for row in held if row[1] in EVERYDAY]
    half = VALIDATION // 2
    return {
        "train": seen(train, STUDIO, 1).thinned(TRAIN, 1),
        "same": seen(same, STUDIO, 2).thinned(TEST, 2),
        "cross": seen(cross, ELSEWHERE, 3).thinned(TEST, 3),
        "validation": PosePairs.concatenate(
            [seen(usual, STUDIO, 4).thinned(half, 4), seen(held, ELSEWHERE, 5).thinned(half, 5)]
        ),
    }


def _rows(folder: Path) -> list[tuple]:
    """(split, action, joints, skeleton, group, subject) of every file."""
    split = json.loads((folder / "split.json").read_text())["subjects"]
    of = {subject: name for name, subjects in split.items() for subject in subjects}
    rows = []
    for line in (folder / "captions.jsonl").read_text().splitlines():
        row = json.loads(line)
        if of.get(row["subject"]) is None:
            continue
        joints = bvh_joints(folder / row["file"], fps=FPS, source_fps=float(row["fps"]), unit_to_m=row["unit_to_m"])
        subject = f"{folder.name}:{row['subject']}"
        rows.append((of[row["subject"]], row["action"], joints, "humanml3d22", row["id"], subject))
    return rows
