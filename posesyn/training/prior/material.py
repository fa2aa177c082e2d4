"""What a motion prior is trained on: recorded motions as features, and motions made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posesyn.data.motions.captions import CaptionedMotion
from posesyn.errors import InputError
from posesyn.settings.prior import PriorSettings
from posesyn.storage.files import atomic_file
from posesyn.synthesis.motion.prior.features import bone_offsets, motion_features, recover_joints, still_features
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.training.prior.augmentation import CaptionedJoints, composed, perturbed
from posesyn.training.prior.data import FeatureClip, features_of, warped
from posesyn.training.prior.sources import normalised

MADE = "made_up.npz"
_SHORTEST_MADE = 64  # frames: a window of the tokeniser's training


@dataclass(frozen=True, eq=False)
class Material:
    """Training material; all features are normalised.

    Attributes:
        normalizer: Statistics of the recorded motions.
        own: Recorded motions at their own speed.
        recorded: The same at all speeds.
        validation: Motions of other people.
        composed: Motions put together, with captions.
        perturbed: Motions without captions, for the tokeniser.
        held: (N, 263) poses held still.
    """

    normalizer: Normalizer
    own: list[FeatureClip]
    recorded: list[FeatureClip]
    validation: list[FeatureClip]
    composed: list[FeatureClip]
    perturbed: list[FeatureClip]
    held: np.ndarray

    def scaled(self, features: np.ndarray) -> np.ndarray:
        """(..., 263) features brought to unit size."""
        return self.normalizer.normalize(features).astype(np.float32)


def fingerprint(motions: Sequence[FeatureClip | CaptionedMotion]) -> str:
    """SHA-256 of names, captions and numbers."""
    digest = hashlib.sha256()
    for motion in motions:
        captioned = isinstance(motion, CaptionedMotion)
        name, array = (motion.motion_id, motion.joints_world) if captioned else (motion.clip_id, motion.features)
        digest.update(repr((name, tuple(motion.captions), array.shape)).encode())
        digest.update(np.ascontiguousarray(array, np.float32).tobytes())
    return digest.hexdigest()


def gather(
    motions: Sequence[FeatureClip | CaptionedMotion],
    validation: Sequence[FeatureClip | CaptionedMotion],
    offsets: np.ndarray,
    settings: PriorSettings,
    seed: int,
    folder: Path,
) -> Material:
    """Statistics, recorded features and made-up ones. What takes minutes to make is kept in ``folder``.

    Args:
        motions, validation: With features as they are (not normalised), or joints at 20 frames per second.
        offsets: (22, 3) bone vectors that motions given as joints get.
        settings: Speeds, and how much is made up.
        seed: Decides what is made up.
        folder: Holds ``made_up.npz`` afterwards.

    Raises:
        InputError: No motion for training or validation, none with a caption, or nothing to compose from.
    """
    own, held_out = _features(motions, offsets), _features(validation, offsets)
    for name, clips in (("training", own), ("validation", held_out)):
        if not any(clip.captions for clip in clips):
            raise InputError(
                f"there is no {name} motion with a caption", where="train_prior", got=f"{len(clips)} clips"
            )
    recorded = _at_speeds(motions, own, offsets, settings.speeds)
    normalizer = Normalizer.from_features(settings.name, [clip.features for clip in recorded])
    joints = [CaptionedJoints(recover_joints(clip.features), clip.captions) for clip in own]
    put_together = composed(joints, settings.composed, seed) if settings.composed else []
    made = [
        FeatureClip(f"composed{i}", motion_features(one.joints, None, continuous_heading=True), one.captions)
        for i, one in enumerate(put_together)
    ]
    frames, lengths, held = _made_up([one.joints for one in joints], settings, seed, folder / MADE)
    parts = np.split(frames, np.cumsum(lengths)[:-1])
    return Material(
        normalizer,
        normalised(own, normalizer),
        normalised(recorded, normalizer),
        normalised(held_out, normalizer),
        normalised(made, normalizer),
        normalised([FeatureClip(f"perturbed{i}", part, ()) for i, part in enumerate(parts)], normalizer),
        normalizer.normalize(held).astype(np.float32),
    )


def _features(motions: Sequence[FeatureClip | CaptionedMotion], offsets: np.ndarray) -> list[FeatureClip]:
    clips: list[FeatureClip] = []
    for motion in motions:
        clips += features_of([motion], offsets) if isinstance(motion, CaptionedMotion) else [motion]
    return clips


def _at_speeds(
    motions: Sequence[FeatureClip | CaptionedMotion],
    own: Sequence[FeatureClip],
    offsets: np.ndarray,
    speeds: Sequence[float],
) -> list[FeatureClip]:
    """Every motion at every speed; from the recorded joints where they are known."""
    if all(isinstance(motion, CaptionedMotion) for motion in motions):
        return features_of(motions, offsets, speeds)
    clips = []
    for clip in own:
        for speed in speeds:
            features = clip.features
            if speed != 1:
                joints = warped(recover_joints(features), speed)
                features = motion_features(joints, None, continuous_heading=True).astype(np.float32)
            clips.append(FeatureClip(f"{clip.clip_id}x{speed:g}", features, clip.captions))
    return clips


def _made_up(
    joints: Sequence[np.ndarray], settings: PriorSettings, seed: int, path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of perturbed motions, one after the other, their lengths, and features of held poses."""
    if not path.is_file():
        rng = np.random.default_rng(seed)
        if max(map(len, joints)) <= _SHORTEST_MADE + 1:
            raise InputError(
                "all motions are too short", where="train_prior", expected=f"> {_SHORTEST_MADE + 1} frames"
            )
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < settings.perturbed_frames:
            made = perturbed(joints, rng)
            if len(made) > _SHORTEST_MADE:
                parts.append(motion_features(made, None, continuous_heading=True))
        poses = []
        for number in range(settings.held_poses):
            if number % 2:
                source = joints[rng.integers(len(joints))]
                poses.append(source[rng.integers(len(source))])
            else:
                part = parts[rng.integers(len(parts))]
                frame = rng.integers(len(part))
                poses.append(recover_joints(part[frame : frame + 1])[0])
        noisy = rng.random(len(poses)) < 0.6  # as estimators' poses are
        noise = rng.normal(size=(len(poses), 22, 3)) * (noisy * rng.uniform(0.01, 0.06, len(poses)))[:, None, None]
        held = still_features(np.stack(poses) + noise, bone_offsets(joints[0][0]))
        with atomic_file(path) as handle:
            np.savez(handle, frames=np.concatenate(parts), lengths=[len(part) for part in parts], held=held)
    with np.load(path, allow_pickle=False) as stored:
        return stored["frames"], stored["lengths"], stored["held"]
