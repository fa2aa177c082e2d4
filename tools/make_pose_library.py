"""Makes posesyn/assets/pose_library.safetensors from the train split of the CMU pack.

    python tools/make_pose_library.py --data ../shared/data/cmu

Examples are chosen by farthest-point sampling over every fourth frame (and, implicitly, its mirror image): they cover
rare poses as well as frequent ones. The spread is measured between people: of each subject's poses against the nearest
example of the other subjects. Nothing is fitted by gradient; a few minutes on one core, most of it reading BVH.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from posesyn.body import load_body
from posesyn.body.pose_library import PoseLibrary, body_points, facing_forward, mirror
from posesyn.data.motions.bvh import bvh_to_motion


def read_poses(data: Path, body, every: int) -> tuple[Tensor, list[str]]:
    """(N, 27, 3) poses of the train split and their subjects."""
    files = set(json.loads((data / "split.json").read_text())["files"]["train"])
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["file"] in files and row["max_joint_speed"] < 13]  # above: glitches
    poses, subjects = [], []
    for row in tqdm(rows, desc="train captures", mininterval=10):
        motion = bvh_to_motion(data / row["file"], body, source_fps=row["fps"], unit_to_m=row["unit_to_m"])
        poses.append(facing_forward(body_points(body, motion.pose_rotvec[::every])))
        subjects += [row["subject"]] * len(poses[-1])
    return torch.cat(poses), subjects


def spread_out(poses: Tensor, count: int) -> Tensor:
    """(count,) rows, each the farthest from those before it or their mirror images."""
    flat, flipped = poses.flatten(1), mirror(poses).flatten(1)
    chosen = [int((flat - flat.mean(0)).square().sum(1).argmin())]
    distance = torch.full((len(flat),), torch.inf)
    for _ in tqdm(range(count - 1), desc="examples", mininterval=10):
        for table in (flat, flipped):
            distance = torch.minimum(distance, (flat - table[chosen[-1]]).square().sum(1))
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)


def spread_between_people(poses: Tensor, subjects: list[str], chosen: Tensor, directions: int) -> Tensor:
    """(directions, 27, 3) principal directions of the differences to the nearest example of other people, scaled."""
    names, flat = np.array(subjects), poses.flatten(1)
    differences = []
    for name in sorted(set(subjects)):
        own = flat[torch.from_numpy(np.flatnonzero(names == name))][::2]
        others = poses[chosen[torch.from_numpy(names[chosen.numpy()] != name)]]
        table = torch.cat([others, mirror(others)]).flatten(1)
        differences.append(own - table[torch.cdist(own, table).argmin(1)])
    found = torch.cat(differences)
    found = torch.cat([found, mirror(found.unflatten(1, (-1, 3))).flatten(1)])
    values, vectors = torch.linalg.eigh((found.T @ found).double() / len(found))
    values, vectors = values.flip(0)[:directions], vectors.flip(1)[:, :directions]
    print(f"distance to the nearest example: {found.unflatten(1, (-1, 3)).norm(dim=-1).mean() * 1000:.0f} mm per point")
    print(f"{directions} directions hold {values.sum() / found.square().sum(1).mean():.3f} of the variance")
    return (vectors * values.sqrt()).T.unflatten(1, (-1, 3)).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cmu"))
    parser.add_argument("--out", type=Path, default=Path("posesyn/assets/pose_library.safetensors"))
    parser.add_argument("--examples", type=int, default=1500)
    parser.add_argument("--directions", type=int, default=40)
    parser.add_argument("--every", type=int, default=4)
    options = parser.parse_args()
    body = load_body("anny", size="small")
    poses, subjects = read_poses(options.data, body, options.every)
    chosen = spread_out(poses, options.examples)
    spread = spread_between_people(poses, subjects, chosen, options.directions)
    about = "mocap.cs.cmu.edu, train split of data/cmu; the database was created with funding from NSF EIA-0196217"
    PoseLibrary(poses[chosen], spread).save(options.out, about)
    print(f"{len(poses)} poses, {len(chosen)} examples, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
