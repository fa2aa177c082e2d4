"""What a motion keeps on its way through files, rates and windows.

    python benchmarks/motion_formats.py --data ../shared/data/cmu --json motion_formats.json

* BVH → posesyn → BVH: distance of the 22 joints between a file of data/cmu (both skeletons) and the file that
  ``write_bvh(bvh_to_motion(file), source_size=True)`` makes, in metres of the source, without any alignment; with the
  bones of the mocap (default) and with the hierarchy of the body's rest joints.
* AMASS npz: largest difference of the body's vertices between the motion and a plain smplx forward of the file.
* Any rate: mocap of 30 fps of which every second frame is kept, brought back to 30 by ``Motion.resampled``; distance
  of the joints at all frames.
* Any length: change of joint velocity where the prior's windows meet, against elsewhere (1 is invisible), and the same
  at other borders of tokens, half a window later, which are no seams.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from posesyn.body import load_body
from posesyn.data.motions.amass import save_motion
from posesyn.data.motions.bvh import bvh_joints, bvh_to_motion, write_bvh
from posesyn.data.motions.bvh_file import read_bvh
from posesyn.data.motions.bvh_skeletons import bvh_skeleton
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.synthesis.motion.long_motions import long_motions, seam_jump
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer

CAPTIONS = (
    "a person walks forward", "a person runs", "a person dances", "a person boxes", "a person jumps", "a person turns",
)  # fmt: skip


def bvh_round_trip(path: Path, body, folder: Path) -> dict:
    start = time.process_time()
    motion = bvh_to_motion(path, body)
    read = time.process_time() - start
    source, row = bvh_joints(path), {}
    for bones in ("joints", "body"):
        write_bvh(folder / "m.bvh", motion, body, bones=bones, source_size=True)
        clip = read_bvh(folder / "m.bvh")
        error = 1e3 * np.linalg.norm(bvh_skeleton(clip).joints_world(clip) - source, axis=-1)
        row[bones] = {"mean_mm": error.mean(), "p95_mm": np.percentile(error, 95), "max_mm": error.max(),
                      "worst_joint_mm": error.mean(0).max()}  # fmt: skip
    return {"clip": path.name.split(".")[0], "skeleton": motion.meta["skeleton"], "frames": len(motion),
            "read_cpu_seconds": read, "cpu_seconds": time.process_time() - start, **row}  # fmt: skip


def amass_difference(path: Path, body, folder: Path) -> float:
    """Largest vertex difference in mm, the file's SMPL part through smplx, turned back to y up."""
    motion = bvh_to_motion(path, body)
    motion = motion.take(range(min(40, len(motion))))
    save_motion(folder / "m.npz", motion, body=body)
    with np.load(folder / "m.npz", allow_pickle=False) as file:
        poses, trans, betas = (torch.from_numpy(file[key]).float() for key in ("poses", "trans", "betas"))
    with torch.no_grad():
        ours = body(
            rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec)),
            torch.from_numpy(motion.betas)[None],
            torch.from_numpy(motion.transl_world),
        ).vertices
        rotations = rotvec_to_matrix(torch.cat([poses[:, :66], torch.zeros(len(poses), 6)], 1).reshape(-1, 24, 3))
        theirs = body.smpl(  # smplx's own module
            betas=betas[None, :10].expand(len(poses), -1),
            global_orient=rotations[:, :1],
            body_pose=rotations[:, 1:],
            transl=trans,
        ).vertices
    return 1e3 * float((theirs[..., [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0]) - ours).abs().max())


def resampling_error(path: Path, body) -> tuple[float, float]:
    """Mean and largest distance in mm of the joints at 30 fps after keeping 15 fps only."""
    fine = bvh_to_motion(path, body, fps=30.0)
    coarse = fine.take(range(0, len(fine), 2)).resampled(30.0)

    def joints(motion) -> np.ndarray:
        with torch.no_grad():
            rotations = rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec))
            transl = torch.from_numpy(motion.transl_world)
            return body.joints_only(rotations, torch.from_numpy(motion.betas)[None], transl)[:, :22].numpy()

    error = 1e3 * np.linalg.norm(joints(coarse) - joints(fine)[: len(coarse)], axis=-1)
    return float(error.mean()), float(error.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/cmu", type=Path)
    parser.add_argument("--json", default="motion_formats.json", help="where the figures are written")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--every", type=int, default=4, help="every n-th test clip; the second skeleton has no test clips"
    )
    parser.add_argument("--frames", type=int, default=600, help="length of the long motions")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    body = load_body("anny", "small")
    test = json.loads((options.data / "split.json").read_text())["files"]["test"][:: options.every]
    paths = [options.data / name for name in test]
    paths += [options.data / "bvh" / f"{name}.bvh.gz" for name in ("60_03", "60_09", "60_10", "61_04", "61_10")]
    print(f"{options.threads} thread(s), load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [bvh_round_trip(path, body, folder) for path in paths]
        print(f"\n{'BVH round trip':<16}{'clips':>6}{'bones':>8}{'mean mm':>9}{'worst clip':>12}{'p95':>7}{'max':>7}")
        for skeleton in sorted({row["skeleton"] for row in rows}):
            own = [row for row in rows if row["skeleton"] == skeleton]
            for bones in ("joints", "body"):
                mean = [row[bones]["mean_mm"] for row in own]
                p95, most = (np.max([row[bones][key] for row in own]) for key in ("p95_mm", "max_mm"))
                print(
                    f"{skeleton:<16}{len(own):>6}{bones:>8}{np.mean(mean):>9.2f}{max(mean):>12.2f}{p95:>7.1f}{most:>7.1f}"
                )
        amass = max(amass_difference(path, body, folder) for path in paths[:3])
    resampled = [resampling_error(path, body) for path in paths[:6]]
    synthesizer = MotionSynthesizer.from_pretrained(body=body)
    start = time.process_time()
    long = long_motions(synthesizer, CAPTIONS, options.frames, num_motions=2, seed=0)
    seconds = (time.process_time() - start) / len(long)
    seams = np.array([seam_jump(motion.joints_world, motion.meta["seams"]) for motion in long])
    ratio = seams[:, 0].mean() / seams[:, 1].mean()
    half = synthesizer.prior.frames_per_token * (synthesizer.prior.max_tokens // 4)
    control = [
        seam_jump(motion.joints_world, [seam + half for seam in motion.meta["seams"] if seam + half < len(motion)])
        for motion in long
    ]
    control_ratio = float(np.mean([at for at, _ in control]) / np.mean([elsewhere for _, elsewhere in control]))
    print(f"\nAMASS npz through smplx: largest vertex difference {amass:.4f} mm")
    print(f"30 -> 15 -> 30 fps: {np.mean(resampled, 0)[0]:.2f} mm mean, {np.max(resampled, 0)[1]:.1f} mm at most")
    print(
        f"{len(long)} motions of {options.frames} frames: velocity change at seams {1e3 * seams[:, 0].mean():.2f}, "
        f"elsewhere {1e3 * seams[:, 1].mean():.2f} mm/frame^2, ratio {ratio:.2f} "
        f"(single motions {np.min(seams[:, 0] / seams[:, 1]):.2f}-{np.max(seams[:, 0] / seams[:, 1]):.2f}), "
        f"at other token borders {control_ratio:.2f}; {seconds:.2f} CPU s each"
    )
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "bvh": rows,
        "amass_vertex_difference_mm": amass,
        "resampling": {"mean_mm": np.mean(resampled, 0)[0], "max_mm": np.max(resampled, 0)[1]},
        "seams": {
            "at": seams[:, 0].tolist(),
            "elsewhere": seams[:, 1].tolist(),
            "ratio": ratio,
            "other_borders_ratio": control_ratio,
            "cpu_seconds": seconds,
        },
    }
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1, default=float)
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
