"""What antialiasing and the two kinds of boxes do to crops: speed, steadiness and scores of an estimator.

    python benchmarks/crops.py [--json crops.json] [--lspet FOLDER] [--balance FOLDER] [--clips FOLDER]

Speed: time per crop of a decoded image with and without ``EstimatorSpec.antialias``, in one run, alternating, in
seconds of the processor; best of the repeats. Steadiness: how far the joints move, relative to the root, when the
crop moves by 0.21 of its pixels. Scores: PCKh@0.6 on LSPET, MPJPE and PA-MPJPE of 12 joints on calibrated frames
(root = middle of the hips), and both on rendered clips (24 joints). ``FOLDER`` of LSPET holds ``joints.mat`` and
``images``, that of the frames ``cameras.json``, ``annotations.json`` and ``frames``, as ``multiview_balance`` does.
Boxes are those of the joints, without margin.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

import posesyn as ps
from posesyn import metrics, skeletons
from posesyn.data.crop_augmentation import CropVariation
from posesyn.data.crops import crop_person
from posesyn.data.persons.lspet import LspExtended
from posesyn.data.persons.rendered import RenderedClips
from posesyn.estimators.hmr import SMALL_SPEC, SPIN_SPEC
from posesyn.estimators.hmr2.network import HMR2_SPEC
from posesyn.evaluation.scoring import evaluate
from posesyn.interfaces import TargetEstimator
from posesyn.storage.images import ImageFile
from posesyn.types import ArrayImage, Person

KINDS = (None, "average", "gaussian")
SHIFT = 0.21  # crop pixels
REGIONS = (150, 300, 600, 1200, 2400)  # sides of the box in an image of 12 megapixels
TWELVE = tuple(
    f"{side}_{part}" for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist") for side in ("left", "right")
)
HIPS = (TWELVE.index("left_hip"), TWELVE.index("right_hip"))


def speed(repeats: int) -> list[dict]:
    """Milliseconds per crop by estimator, side of the box and rotation."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (750, 1000, 3), dtype=np.uint8)
    image = cv2.resize(small, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    nothing = np.zeros((17, 2)), np.zeros(17, bool)
    rows = []
    for spec in (SMALL_SPEC, SPIN_SPEC, HMR2_SPEC):
        for side in REGIONS:
            box = np.array([900.0, 200, 900 + side, 200 + side])
            person = Person("a", ArrayImage(image), box, *nothing, "coco17")
            for turn in (0.0, 0.5):
                variation, best = CropVariation(rotation=turn), {False: np.inf, True: np.inf}
                for _ in range(repeats):
                    for on in best:
                        one = spec if on else replace(spec, antialias=None)
                        start = time.process_time()
                        for _ in range(5):
                            crop_person(person, one, image, variation)
                        best[on] = min(best[on], (time.process_time() - start) / 5)
                off, on = 1000 * best[False], 1000 * best[True]
                rows.append({"spec": spec.name, "box": side, "rotation": turn, "off_ms": off, "on_ms": on})
    return rows


def tight(persons: Sequence[Person]) -> list[Person]:
    """The persons with the extent of their joints as box."""
    points = [person.keypoints_px[person.visible] for person in persons]
    return [
        replace(person, box_xyxy=np.concatenate((some.min(0), some.max(0))), box_is_tight=True)
        for person, some in zip(persons, points)
        if (np.ptp(some, axis=0) > 2).all()
    ]


def balance(folder: Path) -> tuple[list[Person], np.ndarray]:
    """Persons of the calibrated frames, and their joints (N, 12, 3) in metres in the camera's frame."""
    cameras = json.loads((folder / "cameras.json").read_text())
    content = json.loads((folder / "annotations.json").read_text())
    flat, deep = content["keypoint_names_2d"], content["joint_names_3d"]
    coco = skeletons.get("coco17").joints
    persons, truth = [], []
    for path in sorted((folder / "frames").glob("*.jpg")):
        name, number = path.stem.rsplit("_", 1)
        camera, frame = cameras[name], content["frames"][number]
        found = np.array(frame["keypoints2d"][name])[[flat.index(_theirs(joint)) for joint in coco]]
        joints = np.array(frame["joints3d"])[[deep.index(_theirs(joint)) for joint in TWELVE]]
        truth.append(joints @ np.array(camera["R_world_to_cam"]).T + np.array(camera["t_world_to_cam"]))
        box = np.array([0, 0, *camera["image_size"]])
        persons.append(Person(path.stem, ImageFile(path, "raw"), box, found[:, :2], found[:, 2] > 0.3, "coco17"))
    return tight(persons), np.stack(truth)


def _theirs(joint: str) -> str:
    side, _, part = joint.rpartition("_")
    return f"{side[:1].upper()}{part.capitalize()}"


def scores(estimator: TargetEstimator, persons: Sequence[Person], truth: np.ndarray) -> dict[str, float]:
    """MPJPE and PA-MPJPE in mm of 12 joints."""
    found = estimator.predict(persons)
    joints, _ = skeletons.convert(np.asarray(found.joints_cam, np.float64), found.skeleton, "coco17")
    joints = joints[:, [skeletons.get("coco17").joints.index(name) for name in TWELVE]]
    centred = (points - points[:, HIPS].mean(1, keepdims=True) for points in (joints, truth))
    return {"MPJPE [mm]": metrics.mpjpe(*centred), "PA-MPJPE [mm]": metrics.pa_mpjpe(joints, truth)}


def steadiness(estimator: TargetEstimator, persons: Sequence[Person]) -> dict[str, float]:
    """Millimetres that the joints move when the crop moves by :data:`SHIFT`: mean, and mean of each person's worst."""
    spec, moved = estimator.spec, []
    for person in persons:
        side = float((person.box_xyxy[2:] - person.box_xyxy[:2]).max()) * spec.box_scale
        side *= spec.tight_box_scale if person.box_is_tight else 1.0
        step = SHIFT * side / spec.input_size[1]
        moved.append(replace(person, box_xyxy=person.box_xyxy + np.array([step, 0, step, 0], np.float32)))
    pair = (np.asarray(estimator.predict(some).joints_cam, np.float64) for some in (persons, moved))
    first, second = (joints - joints[:, :1] for joints in pair)
    distance = 1000 * np.linalg.norm(first - second, axis=-1)
    return {"moved [mm]": float(distance.mean()), "moved, worst joint [mm]": float(distance.max(1).mean())}


def compare(options: argparse.Namespace) -> list[dict]:
    """One row per data set, growth of tight boxes and antialiasing."""
    estimator = ps.load_estimator(options.estimator)
    spec, rows = estimator.spec, []
    sets: dict[str, list[Person]] = {}
    truth = np.zeros(0)
    if options.lspet:
        sets["lspet"] = tight(LspExtended(options.lspet / "joints.mat", options.lspet / "images")[:])
    if options.balance:
        sets["balance"], truth = balance(options.balance)
    if options.clips:
        sets["rendered"] = RenderedClips(options.clips)[:]
    for name, persons in sets.items():
        for growth in (1.0, 1.2) if name != "rendered" else (spec.tight_box_scale,):
            for kind in KINDS:
                estimator.spec = replace(spec, tight_box_scale=growth, antialias=kind)
                row: dict = {"data": name, "persons": len(persons), "tight_box_scale": growth, "antialias": kind}
                if name == "balance":
                    row |= scores(estimator, persons, truth)
                else:
                    found = evaluate(estimator, persons, protocol="lspet-pckh" if name == "lspet" else "smpl24")
                    row |= {key: float(np.nanmean(values)) for key, values in found.values.items()}
                row |= steadiness(estimator, persons[: options.steady])
                rows.append(row)
                print("  ".join(f"{key} {f'{v:.1f}' if isinstance(v, float) else v}" for key, v in row.items()))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="crops.json", help="where the figures are written")
    parser.add_argument("--lspet", type=Path, help="folder of joints.mat and images")
    parser.add_argument("--balance", type=Path, help="folder of the calibrated frames")
    parser.add_argument("--clips", type=Path, help="folder of rendered clips")
    parser.add_argument("--estimator", default="hmr_small", help="a registered image-only estimator")
    parser.add_argument("--steady", type=int, default=200, help="persons of each set whose crop is moved")
    parser.add_argument("--repeats", type=int, default=5, help="of the timing")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    result = {"machine": platform.processor() or platform.machine(), "opencv_threads": 1, "speed": []}
    print("ms per crop, one thread, 12-megapixel image:")
    for row in speed(options.repeats):
        result["speed"].append(row)
        print(
            f"{row['spec']:10s} box {row['box']:5d} rotation {row['rotation']:3.1f}: off {row['off_ms']:6.2f} ms,"
            f" on {row['on_ms']:6.2f} ms, ratio {row['on_ms'] / row['off_ms']:5.2f}"
        )
    result["estimator"], result["compared"] = options.estimator, compare(options)
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
