"""Speed of the z-buffer and of the whole renderer.

    python benchmarks/rendering.py [--json rendering.json] [--frames 64] [--threads 1 2]

The z-buffer is compared, within one run on the same meshes, with the plain loop over triangles that it replaces
(one triangle after the other, each vectorised over the pixels of its box, NumPy). The renderer is timed with everything
it does for a clip: posing, scene, light, shadow, picture and labels.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from posesyn.body import load_body
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.synthesis.rendering.mesh.backend import MeshBackend
from posesyn.synthesis.rendering.mesh.rasterizer import rasterize
from posesyn.types import Motion


def walking(frames: int) -> Motion:
    """Swinging arms and legs on the spot."""
    swing = np.sin(np.linspace(0, 4 * np.pi, frames))
    pose = np.zeros((frames, 24, 3), np.float32)
    pose[:, 16, 2], pose[:, 17, 2] = -1.2, 1.2
    pose[:, 1, 0], pose[:, 2, 0] = -0.5 * swing, 0.5 * swing
    pose[:, 4, 0], pose[:, 5, 0] = 0.4 + 0.4 * swing, 0.4 - 0.4 * swing
    return Motion("walking", pose, np.zeros((frames, 3)), np.zeros(10), fps=20.0)


def triangle_loop(vertices: np.ndarray, faces: np.ndarray, camera: np.ndarray, size: int) -> np.ndarray:
    """Depth of one image: the baseline."""
    depth = np.full((size, size), np.inf)
    pixels = vertices[:, :2] / vertices[:, 2:] * camera[[0, 1], [0, 1]] + camera[:2, 2]
    for face in faces:
        corner, z = pixels[face], vertices[face, 2]
        (ax, ay), (bx, by), (cx, cy) = corner
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0:
            continue
        left, top = np.maximum(np.ceil(corner.min(0)), 0).astype(int)
        right, bottom = np.minimum(np.floor(corner.max(0)), size - 1).astype(int)
        if right < left or bottom < top:
            continue
        x, y = np.arange(left, right + 1), np.arange(top, bottom + 1)[:, None]
        first = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
        second = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
        third = 1 - first - second
        seen = 1 / (first / z[0] + second / z[1] + third / z[2])
        inside = (first >= 0) & (second >= 0) & (third >= 0)
        box = depth[top : bottom + 1, left : right + 1]
        np.minimum(box, np.where(inside, seen, np.inf), out=box)
    return depth


def bench_rasterizer(size: str, pixels: int, frames: int) -> dict[str, float | str | int]:
    body, motion = load_body("anny", size=size), walking(frames)
    with torch.no_grad():
        vertices = body(rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec)), torch.zeros(1, 10)).vertices
    # Half a turn around x (y down), 3 m in front of the camera, about 80 % of the image high.
    centre = vertices.mean((0, 1), keepdim=True)
    seen = (vertices - centre) * torch.tensor([1.0, -1, -1]) + torch.tensor([0.0, 0, 3.0])
    camera = torch.tensor([[1.4 * pixels, 0, pixels / 2], [0, 1.4 * pixels, pixels / 2], [0, 0, 1]])
    matrices = camera.expand(frames, 3, 3)
    passes = [slice(i, i + 16) for i in range(0, frames, 16)]
    rasterize(seen[:4], body.faces, matrices[:4], (pixels, pixels), cull_back_faces=True)
    start = time.perf_counter()
    depth = [rasterize(seen[p], body.faces, matrices[p], (pixels, pixels), cull_back_faces=True).depth for p in passes]
    ours = (time.perf_counter() - start) / frames
    start = time.perf_counter()
    looped = triangle_loop(seen[0].double().numpy(), body.faces, camera.double().numpy(), pixels)
    loop = time.perf_counter() - start
    both = (depth[0][0].numpy() > 0) & np.isfinite(looped)
    return {
        "body": size,
        "pixels": pixels,
        "frames_per_s": 1 / ours,
        "loop_frames_per_s": 1 / loop,
        "ratio": loop / ours,
        "largest_depth_difference_mm": float(np.abs(depth[0][0].numpy() - looped)[both].max() * 1000),
    }


def bench_renderer(size: str, pixels: int, style: str, frames: int) -> dict[str, float | str | int]:
    backend, motion = MeshBackend((pixels, pixels), load_body("anny", size=size), style=style), walking(frames)
    backend.render(motion.cut(0, 4), seed=0)
    wall, processor, clips = time.perf_counter(), time.process_time(), 3
    for seed in range(clips):
        backend.render(motion, seed=seed)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "body": size,
        "pixels": pixels,
        "style": style,
        "frames_per_s": clips * frames / wall,
        "frames_per_cpu_s": clips * frames / processor,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="rendering.json", help="where the figures are written")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    cases = [("small", 128), ("small", 256), ("full", 256)]
    result = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "runs": []}
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(f"\n{threads} thread(s), load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"{'z-buffer':<18}{'frames/s':>10}{'loop':>10}{'ratio':>8}{'max mm':>9}")
        rasterizer, renderer = [], []
        for size, pixels in cases:
            row = bench_rasterizer(size, pixels, options.frames)
            rasterizer.append(row)
            print(
                f"{size + ' ' + str(pixels):<18}{row['frames_per_s']:>10.1f}{row['loop_frames_per_s']:>10.2f}"
                f"{row['ratio']:>8.0f}{row['largest_depth_difference_mm']:>9.3f}"
            )
        print(f"{'labelled clips':<18}{'frames/s':>10}{'per CPU s':>10}")
        for size, pixels in [("small", 128), ("small", 160), ("small", 256), ("full", 256)]:
            row = bench_renderer(size, pixels, "wild", options.frames)
            renderer.append(row)
            print(f"{size + ' ' + str(pixels):<18}{row['frames_per_s']:>10.1f}{row['frames_per_cpu_s']:>10.1f}")
        result["runs"].append({"threads": threads, "rasterizer": rasterizer, "renderer": renderer})
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(f"\nwritten to {options.json}")


if __name__ == "__main__":
    main()
