"""How good estimators are on real photographs: the multi-view man (3D) and Leeds Sports Pose Extended (2D).

    python benchmarks/real_people.py --data ../shared/data [--estimators blazepose_lite blazepose_heavy hmr_small ...]
        [--persons 1000] [--json real_people.json]

``multiview``: 10 moments of one man, seen by 4 calibrated cameras. Truth are joints that were triangulated from 2D
detections (about 25 mm). MPJPE and PA-MPJPE over 12 limb joints, root = midpoint of the hips (protocol ``limbs12``).

``lspet``: PCKh@0.6 of persons whose head top and neck are labelled, over 12 limb joints (protocol ``lspet-pckh12``).

``:box`` after a name lets BlazePose start from the person's upright box instead of its detector. Weights of BlazePose
come from ``posesyn assets fetch NAME``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from posesyn import load_estimator, skeletons
from posesyn.data.persons.lspet import LspExtended
from posesyn.evaluation.scoring import evaluate
from posesyn.interfaces import TargetEstimator
from posesyn.storage.images import ImageFile
from posesyn.types import JointTruth, Person

SKELETON = "limbs12"


def multiview(folder: Path) -> list[Person]:
    """Persons of the multi-view set; boxes lie around the projected joints."""
    annotations = json.loads((folder / "annotations.json").read_text())
    cameras = json.loads((folder / "cameras.json").read_text())
    sides = {"left": "L", "right": "R"}
    named = [name.split("_") for name in skeletons.get(SKELETON).joints]
    rows = [annotations["joint_names_3d"].index(sides[side] + part.capitalize()) for side, part in named]
    persons = []
    for file in sorted((folder / "frames").glob("*.jpg")):
        name, frame = file.stem.rsplit("_", 1)
        camera = cameras[name]
        world = np.array(annotations["frames"][frame]["joints3d"], float)[rows]
        joints = world @ np.array(camera["R_world_to_cam"]).T + np.array(camera["t_world_to_cam"])
        matrix = np.array(camera["K"])
        points = joints @ matrix.T
        points = points[:, :2] / points[:, 2:]
        margin = 0.15 * (points.max(0) - points.min(0)).max()
        box = np.concatenate((points.min(0) - margin, points.max(0) + margin))
        truth = JointTruth(joints.astype(np.float32), np.ones(len(joints), bool), SKELETON, matrix)
        persons.append(
            Person(file.stem, ImageFile(file), box, points, np.ones(len(points), bool), SKELETON, joints=truth,
                   intrinsics=matrix, camera=name, sequence=name)
        )  # fmt: skip
    return persons


def estimator_of(words: str) -> TargetEstimator:
    """``blazepose_lite`` or ``blazepose_lite:box``."""
    name, _, search = words.partition(":")
    estimator = load_estimator(name)
    if search:
        estimator.search = search  # type: ignore[attr-defined]
    return estimator


def main() -> None:
    """Prints one row per estimator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--estimators", nargs="+", default=["blazepose_lite", "blazepose", "blazepose_heavy"])
    parser.add_argument("--persons", type=int, default=1000, help="of lspet/val, from the first; 0 leaves it out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = {}
    for words in options.estimators:
        estimator = estimator_of(words)
        found = evaluate(estimator, multiview(options.data / "images" / "multiview_balance"), protocol="limbs12")
        rows[words] = {name: float(values.mean()) for name, values in found.values.items()}
        by_camera = {
            camera: round(float(found.values["PA-MPJPE [mm]"][[group == camera for group in found.groups]].mean()), 1)
            for camera in sorted(set(found.groups))
        }
        print(
            words, {name: round(value, 1) for name, value in rows[words].items()}, "PA by camera", by_camera, flush=True
        )
        if options.persons:
            folder = options.data / "lspet" / "val"
            persons = LspExtended(folder / "joints.mat", folder / "images")
            some = [persons[row] for row in range(min(options.persons, len(persons)))]
            found = evaluate(estimator, some, protocol="lspet-pckh12")
            rows[words] |= {name: float(values.mean()) for name, values in found.values.items()}
            rows[words] |= {"persons": len(found.person_ids)}
            print(words, {name: round(value, 1) for name, value in rows[words].items()}, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
