"""Do PoseAug's poses stay within human range? Augmented poses against recorded ones.

    python benchmarks/poseaug_plausibility.py --runs runs/poseaug_bench/runs/*/augmentor.safetensors

Limits of each joint are read off recorded poses (posesyn.synthesis.augmentation.joint_range), once of the actions that
the augmentor was trained on (half of "train") and once of all that is there, sports, dance and floor work too (half of
"train", "cross" and "validation"): the range of humans. Baselines: recorded poses that the limits were not read off,
and random noise on bone directions with the same mean turn as the augmentor's. Printed: share of poses with a joint
beyond the limits, share of joints, the worst joint, mean turn, largest change of a bone's length. Writes JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from poseaug_scenarios import scenarios

from posesyn.synthesis.augmentation.augmentor import LENGTH_LIMIT, Augmentor
from posesyn.synthesis.augmentation.bones import FROZEN_BONES, bone_lengths, bone_vectors, joints_from_bones, unit_bones
from posesyn.synthesis.augmentation.joint_range import JointLimits, plausibility


def jittered(joints: torch.Tensor, turn: float, seed: int) -> tuple[torch.Tensor, float]:
    """Bone directions with Gaussian noise whose mean 1 - cosine is ``turn``, frozen bones kept; the turn reached."""
    bones = bone_vectors(joints)
    unit, noise = unit_bones(bones), torch.randn(bones.shape, generator=torch.Generator().manual_seed(seed))
    noise[:, list(FROZEN_BONES)] = 0
    low, high = 0.0, 5.0
    for _ in range(30):
        size = (low + high) / 2
        made = unit_bones(unit + size * noise)
        found = float((1 - (made * unit).sum(-1)).mean())
        low, high = (size, high) if found < turn else (low, size)
    return joints_from_bones(made * bone_lengths(bones)[..., None]) + joints[:, :1], found


def row(name: str, joints: np.ndarray, limits: JointLimits, **more: float) -> dict:
    found = plausibility(joints, limits)
    worst = max(found.shares, key=found.shares.get)
    return {"poses": name, "beyond_poses": found.poses, "beyond_joints": found.joints, "worst": worst,
            "worst_share": found.shares[worst], "shares": found.shares, **more}  # fmt: skip


def augmented(files: list[Path], held: torch.Tensor, limits: JointLimits, seed: int) -> list[dict]:
    rows = []
    for path in files:
        network = Augmentor.load(path)
        with torch.no_grad():
            made = network(held, generator=torch.Generator().manual_seed(seed))
        turn = float(made.angle_change.mean())
        old, new = (bone_lengths(bone_vectors(x)) for x in (made.pose_ba, made.pose_bl))
        change = float((new / old - 1).abs().max())
        name = path.parent.name
        rows.append(
            row(f"augmented, {name}", made.pose_ba.numpy(), limits, turn=turn, largest_length_change=change,
                length_limit=LENGTH_LIMIT)
        )  # fmt: skip
        noisy, reached = jittered(held, turn, seed)
        rows.append(row(f"noise of the same turn, {name}", noisy.numpy(), limits, turn=reached))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("runs/poseaug_bench/pairs"))
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="augmentor.safetensors files")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/poseaug_plausibility.json"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    pairs = scenarios(options.data, options.cache)
    draw = np.random.default_rng(options.seed)
    halves = {}
    for name in ("train", "cross", "validation"):
        joints = pairs[name].joints_cam
        halves[name] = [joints[rows] for rows in np.array_split(draw.permutation(len(joints)), 2)]
    held = torch.from_numpy(halves["train"][1])
    rows = []
    for range_of, names in (("trained actions", ("train",)), ("all", tuple(halves))):
        limits = JointLimits.of(np.concatenate([halves[name][0] for name in names]), options.seed)
        found = [
            row("recorded, trained actions, held out", halves["train"][1], limits),
            row("recorded, other people and actions", halves["cross"][1], limits),
            *augmented(options.runs, held, limits, options.seed),
        ]
        rows += [{"limits": range_of, **one} for one in found]

    print(
        f"{'limits':<16}{'poses':<52} {'beyond: poses':>13} {'joints':>8}  "
        f"{'worst joint':<24} {'turn':>6} {'length':>7}"
    )
    for one in rows:
        print(
            f"{one['limits']:<16}{one['poses']:<52} {one['beyond_poses']:>12.1%} {one['beyond_joints']:>8.2%}  "
            f"{one['worst']:<16} {one['worst_share']:>7.1%} {one.get('turn', 0):>6.3f} "
            f"{one.get('largest_length_change', 0):>7.3f}"
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"seed": options.seed, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
