"""Factories of small but complete values, so that the report is tested without the stages that feed it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from posesyn import skeletons
from posesyn.types import ArrayImage, Clip, ErrorReport, Motion, Person, PoseBatch, ScoredPerson

# A standing figure in units of body height, y down, in the order of SMPL's 24 joints.
_STANDING = np.array(
    "0 .48;.06 .53;-.06 .53;0 .42;.06 .75;-.06 .75;0 .35;.06 .95;-.06 .95;0 .3;.08 .98;-.08 .98;0 .18;.05 .22;-.05 .22;"
    "0 .1;.11 .22;-.11 .22;.16 .38;-.16 .38;.18 .54;-.18 .54;.18 .58;-.18 .58".replace(";", " ").split(),
    float,
).reshape(24, 2)


def _figure45(rng: np.random.Generator, noise: float) -> np.ndarray:
    """(45, 2): the standing figure with face, toes, heels and finger tips near their parents."""
    known = skeletons.get("smpl45")
    points = np.zeros((45, 2))
    points[:24] = _STANDING
    for joint in range(24, 45):
        points[joint] = points[known.parents[joint]] + rng.normal(0, 0.015, 2)
    return points + rng.normal(0, noise, (45, 2)) if noise else points


@pytest.fixture
def make_scored(rng: np.random.Generator) -> Callable[..., ScoredPerson]:
    """``make_scored(index, error, **fields of Person)`` → ScoredPerson with a COCO annotation on a gradient image."""

    def make(index: int = 0, error: float = 0.2, size: tuple[int, int] = (240, 320), **fields) -> ScoredPerson:
        height, width = size
        ramp = np.linspace(60, 200, width)[None, :, None] * np.ones((height, 1, 3)) * (0.8, 1.0, 0.9)
        body = _figure45(rng, 0.0) * 0.8 * height + (width / 2, 0.1 * height)
        wrong = _figure45(rng, error / 10) * 0.8 * height + (width / 2, 0.1 * height)
        keypoints, visible = skeletons.convert(body, "smpl45", "coco17")
        lifted = np.concatenate([wrong / height * 2, rng.normal(0, 0.1, (45, 1))], -1)
        values = {
            "person_id": f"mock/{index:03d}",
            "image": ArrayImage(ramp.astype(np.uint8), f"{index:03d}.jpg"),
            "box_xyxy": np.array([width / 2 - 60, 10, width / 2 + 60, height - 10]),
            "keypoints_px": keypoints,
            "visible": visible,
            "skeleton": "coco17",
            "captions": (f"a person stands, number {index}",),
        }
        person = Person(**{**values, **fields})
        prediction = PoseBatch((person.person_id,), "smpl45", lifted[None].astype("f4"), wrong[None].astype("f4"))
        errors = rng.uniform(0, 2 * error, 17)
        return ScoredPerson(person, prediction, error, errors, person.visible, index)

    return make


@pytest.fixture
def make_report(make_scored: Callable[..., ScoredPerson]) -> Callable[..., ErrorReport]:
    """``make_report(persons, challenging, non_challenging)`` → ErrorReport, largest error first."""

    def make(persons: int = 12, challenging: int = 4, non_challenging: int = 3, **fields) -> ErrorReport:
        scored = tuple(make_scored(i, 0.6 * 0.8**i) for i in range(persons))
        easy = scored[persons - non_challenging :]
        return ErrorReport(scored, scored[:challenging], easy, **fields)

    return make


@pytest.fixture
def make_clip(rng: np.random.Generator) -> Callable[..., Clip]:
    """``make_clip(frames, size, **fields of Clip)`` → a figure that wanders over a gradient, with consistent labels."""

    def make(frames: int = 8, size: int = 96, noise: bool = False, **fields) -> Clip:
        shift = np.linspace(0.3, 0.6, frames) * size
        keypoints = np.stack([_figure45(rng, 0.01) * 0.9 * size + (s, 0.05 * size) for s in shift])
        columns = np.arange(size)
        mask = (np.abs(columns[None, None] - shift[:, None, None]) < 0.1 * size) & np.ones((1, size, 1), bool)
        if noise:
            pictures = rng.integers(0, 256, (frames, size, size, 3), np.uint8)
        else:
            ground = np.linspace(80, 180, size)[:, None, None] * np.ones((1, size, 3))
            pictures = np.where(mask[..., None], (190, 120, 90), ground[None]).astype(np.uint8)
        values = {
            "clip_id": "mock/clip",
            "frames": pictures,
            "pose_rotvec": np.zeros((frames, 24, 3), np.float32),
            "betas": np.zeros(10, np.float32),
            "transl_cam": np.tile(np.float32([0, 0, 4]), (frames, 1)),
            "joints_cam": np.zeros((frames, 45, 3), np.float32),
            "keypoints_px": keypoints.astype(np.float32),
            "visible": np.ones((frames, 45), bool),
            "mask": mask,
            "depth": np.where(mask, 4, 0).astype(np.float16),
            "intrinsics": np.diag([size, size, 1]).astype(np.float32),
            "fps": 20.0,
            "caption": "a person walks",
        }
        return Clip(**{**values, **fields})

    return make


@pytest.fixture
def make_motion() -> Callable[..., Motion]:
    """``make_motion(frames)`` → a figure that slides along +x with swinging arms, joints given."""

    def make(frames: int = 10, **fields) -> Motion:
        # Picture plane to world: y up; SMPL faces +z, so the person's left is at +x as in the table above.
        flat = np.concatenate([_STANDING * (1.75, -1.75) + (0, 1.72), np.zeros((24, 1))], -1)[:22]
        joints = np.tile(flat, (frames, 1, 1))
        swing = np.sin(np.linspace(0, 2 * np.pi, frames))
        joints[:, 20, 2], joints[:, 21, 2] = 0.3 * swing, -0.3 * swing
        joints[..., 0] += np.linspace(0, 1.0, frames)[:, None]
        values = {
            "motion_id": "mock/motion",
            "pose_rotvec": np.zeros((frames, 24, 3)),
            "transl_world": joints[:, 0],
            "betas": np.zeros(10),
            "fps": 20.0,
            "joints_world": joints,
        }
        return Motion(**{**values, **fields})

    return make
