"""PoseAug to look at: what an augmentor does to poses and views, and how a training went."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from posesyn import skeletons
from posesyn.errors import FileError, InputError
from posesyn.report.plots import SERIES

if TYPE_CHECKING:
    from posesyn.synthesis.augmentation.augmentor import Augmentor


_SKELETON = "poseaug16"
_COLOURS = {"left": "tab:blue", "right": "tab:red", "middle": "0.15"}
_AROUND = 1.3  # metres from the person at which a camera is drawn, whatever its distance
# Column of curves.csv → its line's name.
_HEALTH = {
    "gan/usable": "inside the picture",
    "gan/variety": "variety of poses",
    "gan/variety_2d": "variety of 2D poses",
    "gan/views": "spread of views",
    "gan/beyond": "beyond human range",
}


def augmentation_figure(augmentor: Augmentor, joints_cam: np.ndarray, copies: int = 3, seed: int = 0) -> Figure:
    """Poses in 3D and what an augmentor makes of each, one row per pose.

    Grey is the recorded pose, in colours (left blue, right red) the one with new bones; both stand in the frame of the
    recorded camera, which is the grey pyramid. The green pyramid is the camera that would see the person as the
    augmented pose is placed; its distance is written beside it.

    Args:
        augmentor: Drawn in eval mode, which keeps poses within human range if it knows that range.
        joints_cam: (N, 16, 3) absolute camera frame, metres.
        copies: Augmentations of each pose.
        seed: Draws them.

    Raises:
        InputError: No poses or copies, or not finite (N, 16, 3).
    """
    import torch

    from posesyn.synthesis.augmentation.augmentor import NOISE

    joints_cam = np.asarray(joints_cam, np.float32)
    shaped = joints_cam.ndim == 3 and joints_cam.shape[1:] == (16, 3) and len(joints_cam) > 0
    if not shaped or not np.isfinite(joints_cam).all() or copies < 1:
        raise InputError(
            "augmentation_figure needs finite poses (N, 16, 3) and at least one copy",
            where="augmentation_figure",
            got=(joints_cam.shape, copies),
        )
    generator = torch.Generator().manual_seed(seed)
    figure = Figure(figsize=(3.2 * copies, 2.9 * len(joints_cam)), layout="constrained")
    device, was_training = next(augmentor.parameters()).device, augmentor.training
    augmentor.eval()
    with torch.no_grad():
        pose, made = torch.from_numpy(joints_cam).to(device), []
        for _ in range(copies):  # noise from the CPU, so that a seed draws the same on every device
            noise = [torch.randn(len(pose), NOISE, generator=generator).to(device) for _ in range(4)]
            made.append(augmentor(pose, noise))
    augmentor.train(was_training)
    for row, source in enumerate(joints_cam):
        for column, one in enumerate(made):
            axes = figure.add_subplot(
                len(joints_cam), copies, row * copies + column + 1, projection="3d", proj_type="persp"
            )
            bones, turn, move = (part[row].cpu().numpy() for part in (one.pose_bl, one.rotvec, one.translation))
            _scene(axes, source, bones, turn, move)
    return figure


def _scene(axes, source: np.ndarray, made: np.ndarray, rotvec: np.ndarray, translation: np.ndarray) -> None:
    from scipy.spatial.transform import Rotation

    back = Rotation.from_rotvec(rotvec).inv()
    _skeleton(axes, source - source[0], coloured=False)
    _skeleton(axes, made - made[0], coloured=True)
    _camera(axes, -source[0], np.eye(3), "0.6")
    _camera(axes, back.apply(-translation), back.as_matrix(), "tab:green")
    reach = 1.25
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    axes.set_box_aspect((1, 1, 1), zoom=1.6)
    axes.view_init(elev=18, azim=-60)
    axes.set_axis_off()
    floor = -float(max(source[:, 1].max() - source[0, 1], 0.1))
    ring = np.linspace(0, 2 * np.pi, 60)
    for radius in (0.45, 0.9):
        axes.plot(radius * np.cos(ring), radius * np.sin(ring), floor, color="0.85", lw=0.8)


def _skeleton(axes, joints: np.ndarray, *, coloured: bool) -> None:
    skeleton = skeletons.get(_SKELETON)
    for parent, child in skeleton.bones:
        ends = joints[[parent, child]]
        colour = _COLOURS[skeleton.sides[child]] if coloured else "0.7"
        axes.plot(
            ends[:, 0], ends[:, 2], -ends[:, 1],
            color=colour, lw=2.4 if coloured else 3.4, solid_capstyle="round",
        )  # fmt: skip


def _camera(axes, place: np.ndarray, axes_of: np.ndarray, colour: str) -> None:
    """A pyramid that opens towards the person; ``axes_of`` holds the camera's x, y, z in its columns."""
    distance = float(np.linalg.norm(place))
    eye = place / max(distance, 1e-6) * _AROUND
    corners = [eye + axes_of @ np.array((x, y, 0.22)) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)) * np.array(0.12)]
    lines = [(eye, corner) for corner in corners] + list(zip(corners, corners[1:] + corners[:1]))
    for start, end in lines:
        axes.plot(*np.stack((start, end))[:, [0, 2, 1]].T * np.array([[1], [1], [-1]]), color=colour, lw=1.1)
    axes.text(*(eye[[0, 2, 1]] * (1, 1, -1) + (0, 0, 0.24)), f"{distance:.1f} m", color=colour, fontsize=8, ha="center")


def learning_curves(runs: Mapping[str, str | os.PathLike[str]] | str | os.PathLike[str]) -> Figure:
    """How trainings of ``train_lifter`` and ``train_poseaug`` went: validation error and, of PoseAug, its health.

    Args:
        runs: Folder of a run or its ``curves.csv``; several by name are drawn together. The health is the last one's
            that has it.

    Raises:
        FileError: No curves there, or none with an epoch. InputError: No runs.
    """
    if not isinstance(runs, Mapping):
        runs = {Path(runs).name: runs}
    if not runs:
        raise InputError("learning_curves needs at least one run", where="learning_curves")
    tables = {name: _curves(Path(path)) for name, path in runs.items()}
    healthy = [table for table in tables.values() if any(len(table.get(key, ())) for key in _HEALTH)]
    figure = Figure(figsize=(9.5 if healthy else 5, 3.4), layout="constrained")
    panels = figure.subplots(1, 2 if healthy else 1, squeeze=False)[0]
    for (name, table), colour in zip(tables.items(), SERIES[False] * len(tables)):
        points = table.get("val/mpjpe", np.zeros((0, 2)))
        if not len(points):  # trained without validation
            continue
        # A run of more epochs, such as a baseline of two passes for each of PoseAug's, is drawn over the same width.
        panels[0].plot(
            points[:, 0] / points[-1, 0] if points[-1, 0] else points[:, 0], points[:, 1], label=name, color=colour
        )
    panels[0].set(xlabel="share of the training", ylabel="validation MPJPE [mm]")
    if panels[0].lines:
        panels[0].legend(fontsize=8)
    if healthy:
        for (key, label), colour in zip(_HEALTH.items(), SERIES[False]):
            points = healthy[-1].get(key, np.zeros((0, 2)))
            if len(points):
                panels[1].plot(points[:, 0], points[:, 1], label=label, color=colour)
        panels[1].set(xlabel="epoch", ylabel="share")
        panels[1].set_ylim(bottom=0)
        panels[1].legend(fontsize=8)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return figure


def _curves(path: Path) -> dict[str, np.ndarray]:
    """Column → (epochs, 2): epoch and value, rows without a finite value left out."""
    file = path / "curves.csv" if path.is_dir() else path
    if not file.is_file():
        raise FileError(
            "there are no learning curves", where=file, expected="curves.csv of train_lifter or train_poseaug"
        )
    with file.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    found: dict[str, list] = {}
    try:
        for row in rows:
            for key, text in row.items():
                if key and text and np.isfinite(value := float(text)):
                    found.setdefault(key, []).append((float(row["epoch"]), value))
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            "learning curves cannot be read", where=file, expected="numbers, an epoch in every row"
        ) from error
    if not found.keys() - {"epoch"}:
        raise FileError("learning curves hold no epoch", where=file, expected="values beside the epochs")
    return {key: np.array(points) for key, points in found.items()}
