"""Inverse kinematics on the test subjects of data/cmu: error, time, rotation jumps; a per-frame optimiser beside it.

    python benchmarks/inverse_kinematics.py --data ../shared/data/cmu --json inverse_kinematics.json

Two kinds of targets:
``prior``  what a motion prior hands over: the test motions as HumanML3D features on the body's own skeleton, recovered
           to joints. This is what ``MotionSynthesizer`` solves.
``mocap``  the mocap's joints with the person's own bone lengths; scale and betas are fitted. Ten betas cannot follow
           CMU's proportions; ``floor`` is what remains when rotations are entirely free (no stiffness, 40 steps).

A rotation jump is a turn of one local rotation by more than 60 degrees between two frames (20 fps). The joints show it
when the bone that ends there, one that starts there and one after it turn by as much in sum, to 15 degrees; else it is
hidden. The per-frame optimiser is torch's L-BFGS (strong Wolfe search, 50 iterations, autograd) on one frame's
rotations and root, started from the frame before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import roma
import torch

from posesyn import skeletons
from posesyn.body import inverse_kinematics, load_body
from posesyn.body.inverse_kinematics import body_scale, fit_pose
from posesyn.data.motions.bvh import bvh_joints
from posesyn.geometry.kinematics import forward_kinematics, offsets_from_joints
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.synthesis.motion.prior.features import body_offsets, motion_features, recover_joints

PARENTS = skeletons.get("humanml3d22").parents
JUMP = 60.0  # degrees
SLACK = 15.0  # degrees by which a turn may exceed what the bones show, our own choice


def posed(body, pose_rotvec, betas, transl) -> np.ndarray:
    with torch.no_grad():
        rotations = rotvec_to_matrix(torch.as_tensor(pose_rotvec))
        joints = body.joints_only(rotations, torch.as_tensor(betas)[None], torch.as_tensor(transl))
    return joints[:, :22].numpy()


def bone_turns(joints: np.ndarray) -> np.ndarray:
    """(T - 1, 22) degrees by which the bone that ends at each joint turns between frames."""
    bones = joints - joints[:, [max(parent, 0) for parent in PARENTS]]
    bones = bones / np.maximum(np.linalg.norm(bones, axis=-1, keepdims=True), 1e-9)
    return np.degrees(np.arccos(np.clip((bones[1:] * bones[:-1]).sum(-1), -1, 1)))


def jumps(pose_rotvec: np.ndarray, joints: np.ndarray) -> tuple[int, int, float]:
    """Number of jumps, of those that the joints do not show, and the largest turn in degrees."""
    rotations = roma.rotvec_to_rotmat(torch.as_tensor(pose_rotvec[:, :22]))
    turn = np.degrees(roma.rotmat_geodesic_distance(rotations[1:], rotations[:-1]).numpy())
    bones = bone_turns(joints)
    start, beyond = np.zeros_like(bones), np.zeros_like(bones)
    for joint in range(1, 22):
        above = PARENTS[joint]
        start[:, above] = np.maximum(start[:, above], bones[:, joint])
        if above > 0:
            beyond[:, PARENTS[above]] = np.maximum(beyond[:, PARENTS[above]], bones[:, joint])
    shown = bones + start + beyond
    large = turn > JUMP
    return int(large.sum()), int((large & (turn > shown + SLACK)).sum()), float(turn.max(initial=0.0))


def per_frame(joints: np.ndarray, body, betas: np.ndarray, frames: int) -> dict:
    """L-BFGS on single frames, each from the solution of the one before."""
    rest = body.rest_joints(torch.as_tensor(betas)[None])[0].double()
    offsets = offsets_from_joints(rest, body.parents)
    pose = torch.zeros(24, 3, dtype=torch.float64, requires_grad=True)
    root = torch.as_tensor(joints[0, 0], dtype=torch.float64).clone().requires_grad_()
    errors, start, busy = [], time.perf_counter(), time.process_time()
    for target in torch.as_tensor(joints[:frames], dtype=torch.float64):
        optimiser = torch.optim.LBFGS([pose, root], max_iter=50, line_search_fn="strong_wolfe")

        def distance(target: torch.Tensor = target) -> torch.Tensor:
            own, _ = forward_kinematics(rotvec_to_matrix(pose), offsets, body.parents, root)
            return own[:22] - target

        def closure(optimiser=optimiser, distance=distance) -> torch.Tensor:
            optimiser.zero_grad()
            loss = distance().square().sum() + 1e-6 * pose.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        errors.append(float(distance().detach().norm(dim=1).mean()))
    return {
        "frames": frames,
        "seconds_per_frame": (time.perf_counter() - start) / frames,
        "cpu_seconds_per_frame": (time.process_time() - busy) / frames,
        "mean_mm": 1e3 * float(np.mean(errors)),
    }


def floor_error(joints: np.ndarray, body) -> float:
    """Mean joint error in mm that remains with free rotations."""
    kept = inverse_kinematics.STIFF, inverse_kinematics.LOOSE
    inverse_kinematics.STIFF = inverse_kinematics.LOOSE = 1e-6
    try:
        fit = fit_pose(joints, body, fit_betas=True, iterations=40)
    finally:
        inverse_kinematics.STIFF, inverse_kinematics.LOOSE = kept
    return 1e3 * float(np.linalg.norm(posed(body, *_fields(fit)) - joints, axis=-1).mean())


def _fields(fit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return fit.pose_rotvec, fit.betas, fit.transl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/cmu", type=Path)
    parser.add_argument("--json", default="inverse_kinematics.json", help="where the figures are written")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="take every n-th test clip")
    parser.add_argument("--optimiser-frames", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    body = load_body("anny", "small")
    names = json.loads((options.data / "split.json").read_text())["files"]["test"][:: options.every]
    kinds: dict[str, list[dict]] = {"prior": [], "mocap": []}
    floors, longest = [], None
    for name in names:
        source = bvh_joints(options.data / name)
        own = recover_joints(torch.from_numpy(motion_features(source, body_offsets(body)))).numpy()
        scaled = source * body_scale(source, body)
        if longest is None or len(own) > len(longest):
            longest = own
        for kind, joints, shape in (("prior", own, {"betas": np.zeros(10)}), ("mocap", scaled, {"fit_betas": True})):
            fit = fit_pose(joints, body, **shape)
            error = 1e3 * np.linalg.norm(posed(body, *_fields(fit)) - joints, axis=-1)
            count, hidden, largest = jumps(fit.pose_rotvec, joints)
            kinds[kind].append(
                {"clip": Path(name).name.split(".")[0], "frames": len(joints), "mean_mm": float(error.mean()),
                 "p95_mm": float(np.percentile(error, 95)), "jumps": count, "hidden_jumps": hidden,
                 "largest_deg": largest}
            )  # fmt: skip
        floors.append(floor_error(scaled[:: max(1, len(scaled) // 40)], body))
    joints = np.resize(longest, (196, 22, 3)) if len(longest) < 196 else longest[:196]
    fit_pose(joints, body)
    wall, cpu = [], []
    for _ in range(5):
        start, busy = time.perf_counter(), time.process_time()
        fit_pose(joints, body)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    slow = per_frame(joints, body, np.zeros(10, np.float32), options.optimiser_frames)
    seconds = statistics.median(wall)
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load_average": os.getloadavg()[0],
        "clips": kinds,
        "mocap_floor_mm": float(np.mean(floors)),
        "frames_196": {"seconds": seconds, "range": [min(wall), max(wall)], "cpu_seconds": statistics.median(cpu)},
        "per_frame_optimiser": slow,
        "ratio": slow["seconds_per_frame"] * 196 / seconds,
        "cpu_ratio": slow["cpu_seconds_per_frame"] * 196 / statistics.median(cpu),
    }
    print(f"{len(names)} test clips, {options.threads} thread(s), load average {os.getloadavg()[0]:.1f}")
    print(f"{'targets':<9}{'mean mm':>9}{'worst clip':>12}{'p95 mm':>8}{'jumps > 60':>12}{'hidden':>8}{'clips':>7}")
    for kind, rows in kinds.items():
        mean = np.array([row["mean_mm"] for row in rows])
        total, hidden = (sum(row[key] for row in rows) for key in ("jumps", "hidden_jumps"))
        with_hidden = sum(row["hidden_jumps"] > 0 for row in rows)
        p95 = np.mean([row["p95_mm"] for row in rows])
        print(f"{kind:<9}{mean.mean():>9.2f}{mean.max():>12.2f}{p95:>8.1f}{total:>12}{hidden:>8}{with_hidden:>7}")
        result[kind] = {
            "mean_mm": mean.mean(), "worst_clip_mm": mean.max(), "p95_mm": p95, "jumps": total, "hidden_jumps": hidden,
            "clips_with_hidden_jumps": with_hidden,
        }  # fmt: skip
    print(
        f"mocap, rotations entirely free: {result['mocap_floor_mm']:.2f} mm (bone lengths that ten betas cannot give)"
    )
    print(
        f"196 frames: {seconds:.3f} s ({min(wall):.3f}-{max(wall):.3f}), {statistics.median(cpu):.2f} CPU s; "
        f"per-frame optimiser {slow['seconds_per_frame'] * 196:.1f} s at {slow['mean_mm']:.2f} mm "
        f"({slow['frames']} frames measured): {result['ratio']:.0f} x, {result['cpu_ratio']:.0f} x in CPU seconds"
    )
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1, default=float)
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
