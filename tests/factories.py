"""Small but complete values for tests: each factory makes one that is valid, and takes any field by keyword.

Everything is drawn from ``seed``, so two calls with the same arguments give equal values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from posesyn import skeletons
from posesyn.body.pose_library import ROWS
from posesyn.estimators import CallableEstimator
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.interfaces import EstimatorSpec
from posesyn.storage.clip_writer import ClipWriter
from posesyn.synthesis.motion.prior.features import motion_features
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.text import HashTextConfig, HashTextEncoder
from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig
from posesyn.synthesis.motion.steering.steering import CAM_TO_WORLD
from posesyn.types import ArrayImage, BodyLabels, Clip, ErrorReport, Motion, Person, PoseBatch, ScoredPerson

# A standing figure in units of body height, y down, in the order of SMPL's 24 joints.
STANDING = np.array(
    "0 .48;.06 .53;-.06 .53;0 .42;.06 .75;-.06 .75;0 .35;.06 .95;-.06 .95;0 .3;.08 .98;-.08 .98;0 .18;.05 .22;-.05 .22;"
    "0 .1;.11 .22;-.11 .22;.16 .38;-.16 .38;.18 .54;-.18 .54;.18 .58;-.18 .58".replace(";", " ").split(),
    float,
).reshape(24, 2)


def make_image(height: int = 60, width: int = 80, seed: int | None = None, name: str = "image") -> ArrayImage:
    """A gradient, or noise where a seed is given."""
    if seed is None:
        ramp = np.linspace(60, 200, width)[None, :, None] * np.ones((height, 1, 3)) * (0.8, 1.0, 0.9)
        return ArrayImage(ramp.astype(np.uint8), name)
    return ArrayImage(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8), name)


def make_person(person_id: str = "set/1#0", *, seed: int = 0, **fields: Any) -> Person:
    """A person with random annotated joints in the middle of a gradient of 80 x 60 pixels, without labels."""
    joints = len(skeletons.get(fields.get("skeleton", "coco17")))
    values = {
        "image": make_image(),
        "box_xyxy": np.array([15, 5, 65, 55]),
        "keypoints_px": np.random.default_rng(seed).uniform((20, 10), (60, 50), (joints, 2)),
        "visible": np.ones(joints, bool),
        "skeleton": "coco17",
    }
    return Person(person_id, **{**values, **fields})


def make_labelled(
    body: Any,
    person_id: str = "labelled",
    *,
    pose_rotvec: np.ndarray | None = None,
    betas: np.ndarray | None = None,
    transl_cam: Sequence[float] = (0.0, 0.0, 3.0),
    intrinsics: Sequence[Sequence[float]] = ((20, 0, 15.5), (0, 20, 15.5), (0, 0, 1)),
    **fields: Any,
) -> Person:
    """A person whose 3D labels, ``smpl45`` keypoints and box agree; upright and facing the camera without a pose."""
    if pose_rotvec is None:
        pose_rotvec = np.zeros((24, 3), np.float32)
        pose_rotvec[0, 0] = np.pi
    pose = rotvec_to_matrix(torch.from_numpy(np.asarray(pose_rotvec, np.float32)))
    shape = torch.zeros(10) if betas is None else torch.from_numpy(np.asarray(betas, np.float32))
    transl = torch.tensor(transl_cam, dtype=torch.float32)
    joints = body(pose[None], shape[None], transl[None]).joints[0].numpy()
    camera = np.array(intrinsics, np.float32)
    points = joints @ camera.T
    keypoints = points[:, :2] / points[:, 2:]
    width, height = (2 * camera[:2, 2] + 1).astype(int)
    values = {
        "image": make_image(int(height), int(width), seed=0),
        "box_xyxy": np.concatenate([keypoints.min(0), keypoints.max(0)]),
        "keypoints_px": keypoints,
        "visible": np.ones(45, bool),
        "skeleton": "smpl45",
        "labels": BodyLabels(pose.numpy(), shape.numpy(), transl.numpy(), joints, camera),
    }
    return Person(person_id, **{**values, **fields})


def make_batch(person_ids: Sequence[str] = ("p0",), skeleton: str = "smpl45", **fields: Any) -> PoseBatch:
    """Zeros for every person; ``fields`` of :class:`PoseBatch` replace them."""
    joints = np.zeros((len(person_ids), len(skeletons.get(skeleton)), 3), np.float32)
    values = {"joints_cam": joints, "keypoints_px": joints[..., :2]}
    return PoseBatch(tuple(person_ids), skeleton, **{**values, **fields})


def figure45(rng: np.random.Generator, noise: float = 0.0) -> np.ndarray:
    """(45, 2): the standing figure with face, toes, heels and finger tips near their parents."""
    known = skeletons.get("smpl45")
    points = np.zeros((45, 2))
    points[:24] = STANDING
    for joint in range(24, 45):
        points[joint] = points[known.parents[joint]] + rng.normal(0, 0.015, 2)
    return points + rng.normal(0, noise, (45, 2)) if noise else points


def make_scored(index: int = 0, error: float = 0.2, size: tuple[int, int] = (240, 320), **fields: Any) -> ScoredPerson:
    """A standing person with a COCO annotation, and a prediction that is wrong by about ``error``; fields of Person."""
    rng = np.random.default_rng(index)
    height, width = size
    place = np.array([width / 2, 0.1 * height])
    body, wrong = (figure45(rng, noise) * 0.8 * height + place for noise in (0.0, error / 10))
    keypoints, visible = skeletons.convert(body, "smpl45", "coco17")
    values = {
        "person_id": f"mock/{index:03d}",
        "image": make_image(*size, name=f"{index:03d}.jpg"),
        "box_xyxy": np.array([width / 2 - 60, 10, width / 2 + 60, height - 10]),
        "keypoints_px": keypoints,
        "visible": visible,
        "captions": (f"a person stands, number {index}",),
    }
    person = make_person(**{**values, **fields})
    lifted = np.concatenate([wrong / height * 2, rng.normal(0, 0.1, (45, 1))], -1)
    seen = {"joints_cam": lifted[None].astype("f4"), "keypoints_px": wrong[None].astype("f4")}
    prediction = make_batch((person.person_id,), **seen)
    return ScoredPerson(person, prediction, error, rng.uniform(0, 2 * error, 17), person.visible, index)


def make_seen(
    points: np.ndarray,
    wrong: np.ndarray,
    name: str = "a",
    *,
    skeleton: str = "coco17",
    view: np.ndarray | None = None,
    distance: float = 4.0,
    noise: float = 0.0,
    hide: Sequence[int] = (),
    seed: int = 0,
    captions: tuple[str, ...] = (),
) -> ScoredPerson:
    """A person in pose ``points`` (27, 3; world axes, rows of the pose library), whom an estimator takes to be in pose
    ``wrong``, before a level camera (or one turned by ``view``); ``noise`` is the annotator's, in pixels."""
    view = np.diag(CAM_TO_WORLD) if view is None else view

    def placed(pose: np.ndarray) -> np.ndarray:
        full = np.zeros((45, 3))
        full[list(ROWS)] = np.asarray(pose) @ view.T + [0, 0, distance]
        return full

    pixels = placed(points)
    pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 0.1) * 500 + 200
    keypoints = np.zeros((len(skeletons.get(skeleton)), 2))
    source = skeletons.mapping("smpl45", skeleton)
    visible = np.isin(source, ROWS)
    keypoints[visible] = pixels[source[visible]]
    keypoints[visible] += np.random.default_rng(seed).normal(0, noise, (visible.sum(), 2))
    visible[list(hide)] = False
    box = np.concatenate([keypoints[visible].min(0) - 5, keypoints[visible].max(0) + 5])
    person = Person(name, make_image(4, 4), box, keypoints, visible, skeleton, captions)
    prediction = make_batch((name,), joints_cam=placed(wrong)[None].astype(np.float32))
    return ScoredPerson(person, prediction, 0.4, np.zeros(len(visible)), visible)


def make_report(persons: int = 12, challenging: int = 4, non_challenging: int = 3, **fields: Any) -> ErrorReport:
    """Scored persons, largest error first, and the two selections."""
    scored = tuple(make_scored(index, 0.6 * 0.8**index) for index in range(persons))
    return ErrorReport(scored, scored[:challenging], scored[persons - non_challenging :], **fields)


def make_motion(frames: int = 10, motion_id: str = "mock/motion", **fields: Any) -> Motion:
    """A figure that slides along +x with swinging arms; the joints are given, the pose parameters are all zero."""
    # Picture plane to world: y up; SMPL faces +z, so the person's left is at +x as in the table above.
    flat = np.concatenate([STANDING * (1.75, -1.75) + (0, 1.72), np.zeros((24, 1))], -1)[:22]
    joints = np.tile(flat, (frames, 1, 1))
    swing = np.sin(np.linspace(0, 2 * np.pi, frames))
    joints[:, 20, 2], joints[:, 21, 2] = 0.3 * swing, -0.3 * swing
    joints[..., 0] += np.linspace(0, 1.0, frames)[:, None]
    values = {
        "pose_rotvec": np.zeros((frames, 24, 3)),
        "transl_world": joints[:, 0],
        "betas": np.zeros(10),
        "fps": 20.0,
        "joints_world": joints,
    }
    return Motion(motion_id, **{**values, **fields})


def make_clip(clip_id: str = "clip-0", frames: int = 5, size: int = 48, seed: int = 0, **fields: Any) -> Clip:
    """A stick body in front of a camera, with labels that project exactly; the pictures move to the right."""
    rng = np.random.default_rng(seed)
    joints = rng.normal(0, 0.25, (frames, 45, 3)) + np.array([0, 0, 3.0])
    intrinsics = np.array([[1.2 * size, 0, (size - 1) / 2], [0, 1.2 * size, (size - 1) / 2], [0, 0, 1.0]])
    keypoints = joints[..., :2] / joints[..., 2:] * 1.2 * size + (size - 1) / 2
    mask = np.zeros((frames, size, size), bool)
    for index, points in enumerate(keypoints):
        low = np.clip(points.min(0), 0, size - 2).astype(int)
        high = np.clip(points.max(0), 1, size - 1).astype(int)
        mask[index, low[1] : high[1] + 1, low[0] : high[0] + 1] = True
    rows, columns = np.mgrid[:size, :size]
    smooth = np.stack([rows * 4 % 255, columns * 4 % 255, (rows + columns) * 2 % 255], -1).astype(np.uint8)
    values = {
        "frames": np.stack([np.roll(smooth, index, 1) for index in range(frames)]),
        "pose_rotvec": rng.normal(0, 0.3, (frames, 24, 3)).astype(np.float32),
        "betas": rng.normal(0, 1, 10).astype(np.float32),
        "transl_cam": joints[:, 0].astype(np.float32),
        "joints_cam": joints.astype(np.float32),
        "keypoints_px": keypoints.astype(np.float32),
        "visible": ((keypoints >= 0) & (keypoints < size)).all(-1),
        "mask": mask,
        "depth": np.where(mask, 3.0, 0.0).astype(np.float16),
        "intrinsics": intrinsics.astype(np.float32),
        "fps": 20.0,
    }
    return Clip(clip_id, **{**values, **fields})


class TinyNetwork(torch.nn.Module):
    """The mean colour of the crop, through one linear layer, as 45 joints and their pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 45 * 5)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        joints, keypoints = self.layer(images.mean((2, 3))).view(-1, 45, 5).split((3, 2), -1)
        return {"joints": joints, "keypoints_px": keypoints}


def joint_loss(output: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"joints": (output["joints"] - batch["joints"]).square().mean()}


def make_estimator(name: str = "tiny", losses: Any = joint_loss, seed: int = 0) -> CallableEstimator:
    """A trainable estimator on crops of 16 x 16 pixels, with the same weights for the same seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return CallableEstimator(TinyNetwork(), EstimatorSpec(name, input_size=(16, 16)), losses)


def standing_joints() -> np.ndarray:
    """(22, 3) a person standing with the arms hanging, facing +z, pelvis at the origin."""
    half = {
        0: (0, 0), 3: (0, 0.12), 6: (0, 0.26), 9: (0, 0.31), 12: (0, 0.52), 15: (0, 0.62), 1: (0.07, -0.09),
        4: (0.1, -0.47), 7: (0.09, -0.87), 10: (0.1, -0.92), 13: (0.08, 0.43), 16: (0.19, 0.45), 18: (0.25, 0.2),
        20: (0.27, -0.05),
    }  # fmt: skip
    mirror = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21}
    joints = np.zeros((22, 3))
    for index, (x, y) in half.items():
        joints[index, :2] = x, y
        if index in mirror:
            joints[mirror[index], :2] = -x, y
    joints[[10, 11], 2] = 0.13
    return joints


def make_prior(seed: int = 0) -> MotionPriorModel:
    """A whole prior with random weights, small enough for milliseconds; its motions are near a standing pose."""
    torch.manual_seed(seed)
    vqvae = MotionVQVAE(VQVAEConfig(codes=24, code_dim=8, width=12))
    vqvae.vqvae.quantizer.codebook.normal_()
    transformer = MotionTransformer(TransformerConfig(codes=24, width=16, text_dim=10, layers=1, heads=2))
    for parameter in transformer.parameters():
        parameter.data.mul_(6)
    encoder = HashTextEncoder(HashTextConfig(buckets=64, width=8, dim=10))
    mean = motion_features(np.repeat(standing_joints()[None], 2, 0))[0]
    return MotionPriorModel(vqvae, transformer, encoder, Normalizer("test", mean, np.full(263, 0.05)), "tiny")


def write_clips(folder, clips, **options) -> int:
    """Stores clips in the order they come; returns how many the folder holds."""
    with ClipWriter(folder, **options) as writer:
        for clip in clips:
            if clip.clip_id not in writer:
                writer.write(clip)
        return len(writer.ledger.finished("clips"))
