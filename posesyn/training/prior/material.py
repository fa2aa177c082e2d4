"""What a motion prior is trained on: recorded motions as features, and motions made of them.

Motions are made of motions by slower and faster play, limbs that turn, and actions that are put together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from posesyn.data.motions.captions import CaptionedMotion
from posesyn.errors import InputError
from posesyn.settings.training import PriorSettings
from posesyn.storage.files import atomic_file
from posesyn.synthesis.motion.prior.features import (
    JOINTS,
    PARENTS,
    bone_offsets,
    motion_features,
    recover_joints,
    still_features,
)
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.training.prior.data import FeatureClip, features_of, warped
from posesyn.training.prior.sources import normalised

MADE = "made_up.npz"
_SHORTEST_MADE = 64  # frames: a window of the tokeniser's training


@dataclass(frozen=True, eq=False)
class CaptionedJoints:
    """Joints (T, 22, 3) in metres, y up, 20 fps, and descriptions."""

    joints: np.ndarray
    captions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Material:
    """Training material; all features are normalised."""

    normalizer: Normalizer  # statistics of the recorded motions
    own: list[FeatureClip]  # recorded motions at their own speed
    recorded: list[FeatureClip]  # the same at all speeds
    validation: list[FeatureClip]  # motions of other people
    composed: list[FeatureClip]  # motions put together, with captions
    perturbed: list[FeatureClip]  # motions without captions, for the tokeniser
    held: np.ndarray  # (N, 263) poses held still

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
            what, got = f"there is no {name} motion with a caption", f"{len(clips)} clips"
            raise InputError(what, where="train_prior", got=got)
    recorded = _at_speeds(motions, own, offsets, settings.speeds)
    normalizer = Normalizer.from_features(settings.name, [clip.features for clip in recorded])
    joints = [CaptionedJoints(recover_joints(clip.features), clip.captions) for clip in own]
    put_together = composed(joints, settings.composed, seed) if settings.composed else []
    made = [FeatureClip.of(f"composed{i}", one.joints, None, one.captions) for i, one in enumerate(put_together)]
    frames, lengths, held = _made_up([one.joints for one in joints], settings, seed, folder / MADE)
    parts = np.split(frames, np.cumsum(lengths)[:-1])
    bent_ones = [FeatureClip(f"perturbed{i}", part, ()) for i, part in enumerate(parts)]
    every = (own, recorded, held_out, made, bent_ones)
    own, recorded, held_out, made, bent_ones = (normalised(clips, normalizer) for clips in every)
    held = normalizer.normalize(held).astype(np.float32)
    return Material(normalizer, own, recorded, held_out, made, bent_ones, held)


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
            name = f"{clip.clip_id}x{speed:g}"
            if speed == 1:
                clips.append(FeatureClip(name, clip.features, clip.captions))
            else:
                clips.append(FeatureClip.of(name, warped(recover_joints(clip.features), speed), None, clip.captions))
    return clips


def _made_up(
    joints: Sequence[np.ndarray], settings: PriorSettings, seed: int, path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of perturbed motions, one after the other, their lengths, and features of held poses."""
    if not path.is_file():
        rng = np.random.default_rng(seed)
        if max(map(len, joints)) <= _SHORTEST_MADE + 1:
            expected = f"> {_SHORTEST_MADE + 1} frames"
            raise InputError("all motions are too short", where="train_prior", expected=expected)
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


# Joints at which a limb may be turned, roots before leaves: hips, spine, knees, ankles, neck, shoulders, elbows.
_TURNABLE = (1, 2, 3, 9, 4, 5, 7, 8, 12, 16, 17, 18, 19)
_LEGS = (1, 2, 4, 5, 7, 8, 10, 11)
_UPPER = tuple(joint for joint in range(1, JOINTS) if joint not in _LEGS)
_UP = np.array([0.0, 1.0, 0.0])


def below(joint: int) -> list[int]:
    """The joints that move when ``joint`` turns."""
    found = [joint]
    for child in range(joint + 1, JOINTS):
        if PARENTS[child] in found:
            found.append(child)
    return found[1:]


def _rotated(points: np.ndarray, turn: np.ndarray, about: np.ndarray | float = 0.0) -> np.ndarray:
    """(T, K, 3) points turned by rotation vectors (T, 3) about points (T, 1, 3)."""
    return about + np.einsum("tij,tkj->tki", Rotation.from_rotvec(turn).as_matrix(), points - about)


def _lowest_as(joints: np.ndarray, source: np.ndarray) -> np.ndarray:
    """(T, 22, 3) raised, in place, so that the lowest joint of each frame is as high as that of ``source``."""
    joints[..., 1] += (np.asarray(source)[..., 1].min(1) - joints[..., 1].min(1))[:, None]
    return joints


def _smooth_noise(rng: np.random.Generator, frames: int, dims: int, sigma: float) -> np.ndarray:
    """(frames, dims) Gaussian noise of unit variance, smoothed over ``sigma`` frames."""
    pad = int(3 * sigma) + 1
    noise = gaussian_filter1d(rng.standard_normal((frames + 2 * pad, dims)), sigma, axis=0)[pad : pad + frames]
    return noise * np.sqrt(2 * np.sqrt(np.pi) * sigma)  # a Gaussian kernel leaves 1 / (2 sqrt(pi) sigma) of variance


def bent(joints: np.ndarray, rng: np.random.Generator, most: float = 0.7) -> np.ndarray:
    """(T, 22, 3) with some limbs turned by random rotations that change slowly (sd up to ``most`` rad per axis)."""
    result = np.array(joints, np.float64)
    for joint in _TURNABLE:
        if rng.random() < 0.5:
            continue
        turn = rng.uniform(0.1, most) * _smooth_noise(rng, len(joints), 3, rng.uniform(6, 40))
        moved = below(joint)
        result[:, moved] = _rotated(result[:, moved], turn, result[:, joint, None])
    return result


def tipped(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, 22, 3) with the whole body tipped over about a level axis, as in a fall; lowest joints keep their height."""
    joints = np.asarray(joints, np.float64)
    direction = rng.uniform(0, 2 * np.pi)
    angle = rng.uniform(0.3, 1.8) * _smooth_noise(rng, len(joints), 1, rng.uniform(12, 50)) + rng.uniform(-0.8, 0.8)
    result = _rotated(joints, angle * np.array([[np.cos(direction), 0.0, np.sin(direction)]]), joints[:, :1])
    return _lowest_as(result, joints)


def grafted(legs: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """(T, 22, 3): the legs and path of one motion with the upper body of another, turned to the same heading."""
    frames = min(len(legs), len(upper))
    legs, upper = np.array(legs[:frames], np.float64), np.asarray(upper[:frames], np.float64)

    def yaw(joints: np.ndarray) -> np.ndarray:
        across = joints[:, 1] - joints[:, 2]
        return np.arctan2(-across[:, 2], across[:, 0])

    turn = (yaw(legs) - yaw(upper))[:, None] * _UP
    legs[:, _UPPER] = _rotated(upper[:, _UPPER] - upper[:, :1], turn) + legs[:, :1]
    return legs


def perturbed(motions: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One motion (T, 22, 3) made of random ones of ``motions``: grafted, bent or tipped, or several of these."""
    if not len(motions):
        raise InputError("there is no motion to perturb", where="perturbed")
    joints = motions[rng.integers(len(motions))]
    if rng.random() < 0.35:
        joints = grafted(joints, motions[rng.integers(len(motions))])
    if rng.random() < 0.7:
        joints = bent(joints, rng)
    if rng.random() < 0.25:
        joints = tipped(joints, rng)
    return joints


# (hip, knee, shoulder, elbow, wrist) of either side and the sign of the outward direction along right minus left
_SIDES = {"left": (1, 4, 16, 18, 20, -1.0), "right": (2, 5, 17, 19, 21, 1.0)}


def kicking(joints: np.ndarray, side: str, kind: str, rng: np.random.Generator) -> np.ndarray:
    """(T, 22, 3) with a ``front``, ``side`` or ``roundhouse`` kick about every 1.5 s."""
    result = np.array(joints, np.float64)
    hip, knee, _, _, _, outward = _SIDES[side]
    lift, fold, turn = np.zeros((3, len(result)))
    start, length = int(rng.integers(4, 14)), int(rng.integers(12, 18))
    while start + length < len(result):
        phase, part = np.linspace(0, 1, length), slice(start, start + length)
        turn[part] = np.sin(np.pi * phase)
        lift[part] = np.sin(np.pi * phase) ** 0.8
        back = np.sin(np.pi * np.clip((phase - 0.6) / 0.4, 0, 1))
        fold[part] = np.sin(np.pi * np.clip(phase / 0.45, 0, 1)) + 0.6 * back
        start += length + int(rng.integers(8, 26))
    high = rng.uniform(1.1, 1.7)
    across, forward = _axes(result)
    if kind == "front":
        _turn(result, hip, across, high * lift)
    else:
        _turn(result, hip, -outward * forward, (0.9 if kind == "side" else 0.7) * high * lift)
        _turn(result, 0, outward * forward, -0.35 * lift, joints=[3, *below(3)])  # the trunk leans away
        if kind == "roundhouse":
            _turn(result, hip, across, 0.6 * high * lift)
            _turn(result, 0, outward * np.broadcast_to(_UP, across.shape), 0.7 * turn, joints=list(range(1, 22)))
    _turn(result, knee, across, -1.5 * fold)
    return result


def cartwheeling(joints: np.ndarray, side: str, rng: np.random.Generator) -> np.ndarray:
    """(T, 22, 3): around its middle the body turns once about its forward axis and travels sideways."""
    result = np.array(joints, np.float64)
    length = min(int(rng.integers(22, 32)), len(result) - 6)
    start = (len(result) - length) // 2
    share = np.clip((np.arange(len(result)) - start) / length, 0, 1)
    eased = share * share * (3 - 2 * share)
    frames = np.arange(len(result))
    spread = np.clip(np.minimum((frames - start + 8) / 8, (start + length + 4 - frames) / 8), 0, 1)
    outward = _SIDES[side][5]
    across, forward = _axes(result)
    axis, direction = forward[start], across[start] * outward
    for hip, _, shoulder, _, _, out in _SIDES.values():
        _turn(result, shoulder, -out * forward, 2.6 * spread)
        _turn(result, hip, -out * forward, 0.55 * spread)
    result = _rotated(result, outward * eased[:, None] * 2 * np.pi * axis, result[:, :1])
    result += (direction * rng.uniform(1.2, 2.0))[None, None] * eased[:, None, None]
    return _lowest_as(result, joints)


def dribbling(joints: np.ndarray, side: str, rng: np.random.Generator) -> np.ndarray:
    """(T, 22, 3) with one forearm going down and up in front, about twice a second, and the trunk bent a little."""
    result = np.array(joints, np.float64)
    _, _, shoulder, elbow, wrist, outward = _SIDES[side]
    across, forward = _axes(result)
    _turn(result, 3, across, np.full(len(result), -rng.uniform(0.1, 0.4)))
    upper = np.linalg.norm(result[:, elbow] - result[:, shoulder], axis=-1, keepdims=True)
    lower = np.linalg.norm(result[:, wrist] - result[:, elbow], axis=-1, keepdims=True)
    beat = np.sin(2 * np.pi * (rng.uniform(1.5, 2.3) * np.arange(len(result)) / 20 + rng.random()))[:, None]
    angle = 0.65 + 0.55 * beat
    hang = 0.3 * forward + 0.2 * outward * across - (1 + 0.15 * beat) * _UP
    result[:, elbow] = result[:, shoulder] + upper * hang / np.linalg.norm(hang, axis=-1, keepdims=True)
    result[:, wrist] = result[:, elbow] + lower * (np.cos(angle) * forward - np.sin(angle) * _UP)
    return result


def _axes(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (T, 3) to the right and forward, both level."""
    across = (joints[:, 2] - joints[:, 1]) * (1.0, 0.0, 1.0)
    across = across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-9)
    return across, np.cross(_UP, across)


def _turn(
    result: np.ndarray, joint: int, axis: np.ndarray, angle: np.ndarray, joints: Sequence[int] | None = None
) -> None:
    """Turns what hangs on a joint, in place, about world axes (T, 3) by angles (T,)."""
    moved = list(below(joint) if joints is None else joints)
    result[:, moved] = _rotated(result[:, moved], axis * angle[:, None], result[:, joint, None])


_KICKS = {
    "front": ("a person kicks with the {side} leg", "someone kicks forward several times", "a karate kick to the front",
              "a man kicks a ball with the {side} foot"),
    "side": ("a person kicks sideways", "a karate fighter kicks to the {side} side with a straight leg"),
    "roundhouse": ("a fighter swings the {side} leg in a roundhouse kick", "a person spins and kicks",
                   "a round kick in karate"),
}  # fmt: skip
_WHEELS = ("someone turns a cartwheel", "a gymnast cartwheels to the {side}", "an acrobat turns over sideways")
_DRIBBLES = ("someone bounces a basketball {doing}", "a person bounces a ball with the {side} hand {doing}",
             "a basketball player dribbles {doing}")  # fmt: skip


def composed(recorded: Sequence[CaptionedJoints], count: int, seed: int = 0) -> list[CaptionedJoints]:
    """``count`` new motions out of captioned ones.

    Raises:
        InputError: There is no recording of walking, or none with the feet in place.
    """
    rng = np.random.default_rng(seed)
    walks = [m for m in recorded if m.captions and " walk" in m.captions[0] and len(m.joints) >= 40]
    still = [
        m
        for m in recorded
        if m.captions and len(m.joints) >= 60 and np.linalg.norm(np.ptp(m.joints[:, 0, [0, 2]], 0)) < 1
    ]
    if not walks or not still:
        raise InputError("composing needs recorded walking, and motions that stay in place", where="composed")
    boxing = [m for m in still if "box" in m.captions[0]] or still
    made = []
    for number in range(count):
        side = "left" if rng.random() < 0.5 else "right"
        kind = number % 6
        base, walk = still[rng.integers(len(still))], walks[rng.integers(len(walks))]
        if kind in (0, 1):  # kicks, out of boxing or standing
            style = ("front", "side", "roundhouse")[rng.integers(3)]
            source = _cut(boxing[rng.integers(len(boxing))].joints, rng, 140)
            joints, texts = kicking(source, side, style, rng), _KICKS[style]
        elif kind == 2:
            source = _cut(walk.joints if rng.random() < 0.5 else base.joints, rng, 70)
            joints, texts = cartwheeling(source, side, rng), _WHEELS
        elif kind == 3:
            back = rng.random() < 0.35
            source = walk.joints[::-1] if back else walk.joints
            doing = "going backward" if back else "going forward"
            joints = dribbling(_cut(source, rng, 160), side, rng)
            texts = tuple(text.replace("{doing}", doing) for text in _DRIBBLES)
        elif kind == 4:
            joints, texts = _cut(walk.joints[::-1], rng, 160), ("a person walks backward", "someone steps back")
        else:
            upper = _cut(base.joints, rng, 160)
            joints = grafted(walk.joints, upper)
            deed = " ".join(base.captions[0].split()[2:])
            texts = (f"{walk.captions[0]} and {deed}",)
        made.append(CaptionedJoints(joints.astype(np.float32), tuple(text.replace("{side}", side) for text in texts)))
    return made


def _cut(joints: np.ndarray, rng: np.random.Generator, frames: int) -> np.ndarray:
    """At most ``frames`` frames from a random place."""
    start = int(rng.integers(max(1, len(joints) - frames + 1)))
    return np.asarray(joints[start : start + frames])
