"""How a filter's threshold is found: labels made wrong on purpose, and the value that tells them from right ones.

A quantile of the judge's values on the clips that are filtered drops that share of them whatever they are. Here nothing
is learnt from those clips: the judge is tried on others, once with their own labels and once with wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import mannwhitneyu

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.geometry.cameras import project
from posesyn.storage.seeds import rng_of
from posesyn.types import Clip
from posesyn.types.looks import short_repr

# All our own choice. Degrees by which a limb is turned, and shares of the longer side of the joints' box by which the
# person is moved.
TURN_DEG, SHIFT = (40.0, 120.0), (0.25, 0.5)
# A label is wrong where one of the first 22 joints is so many metres away, seen from the root: the mirror image of a
# person with symmetric arms is none.
MIN_WRONG_M = 0.2
_BODY, _FRAME_JOINTS = 22, 24  # without finger tips and face; those that draw the box
_SKELETON = skeletons.get("smpl45")
_FLIP = list(_SKELETON.flip)
_LIMBS = tuple(_SKELETON.index(f"{side}_{part}") for side in ("left", "right") for part in ("shoulder", "hip"))


@dataclass(frozen=True)
class Calibration:
    """What a judge made of right and of wrong labels.

    Attributes:
        frames: Right labels that it saw.
        threshold: The value that was chosen.
        kept_right: Share of them that pass.
        dropped_wrong: Kind of wrong label → share that does not pass.
        auc: Kind → chance that the judge finds a wrong label worse than a right one; 0.5 is a guess, 1 is never wrong.
    """

    frames: int
    threshold: float
    kept_right: float
    dropped_wrong: Mapping[str, float] = field(default_factory=dict)
    auc: Mapping[str, float] = field(default_factory=dict)

    __repr__ = short_repr

    def describe(self) -> str:
        """One line for people."""
        kinds = ", ".join(f"{kind.replace('_', ' ')} {share:.0%}" for kind, share in self.dropped_wrong.items())
        wrong = f", drops of wrong ones: {kinds}" if kinds else ""
        return f"keeps {self.kept_right:.0%} of {self.frames} right labels{wrong}"


def choose_threshold(
    right: np.ndarray, wrong: Mapping[str, np.ndarray], quantile: float, above: bool = True
) -> Calibration:
    """The threshold that tells right from wrong labels best, of those that keep ``quantile`` of the right ones.

    Best is the largest ``share of right kept + share of wrong dropped`` (Youden's J, each kind of wrong label counts
    the same); of equal ones the one that drops least, so that a judge who cannot tell them apart drops nothing. Tried
    is the middle between each two neighbouring values. The rule is our own choice.

    Args:
        right: (N,) values of the judge for right labels; infinite where it had no answer.
        wrong: Kind → (M,) values for wrong ones.
        quantile: Share of the right labels that must pass; a judge that has no answer to more of them lets the others
            pass.
        above: Whether values above the threshold are dropped (an error in metres), or those below (an agreement).

    Raises:
        InputError: No value of a right label.
    """
    sign = 1.0 if above else -1.0
    worse = {kind: sign * values for kind, values in wrong.items() if len(values)}
    mine = sign * right
    levels = np.unique(np.concatenate([mine, *worse.values()])) if len(mine) else np.zeros(0)
    levels = levels[np.isfinite(levels)]
    if not np.isfinite(mine).any():
        raise InputError("there is no frame to calibrate the filter with", where="ClipFilter.calibrate")
    tried = np.append((levels[:-1] + levels[1:]) / 2, levels[-1])
    kept = np.searchsorted(np.sort(mine), tried, side="right") / len(mine)
    dropped = {
        kind: 1 - np.searchsorted(np.sort(values), tried, side="right") / len(values) for kind, values in worse.items()
    }
    told_apart = kept + (np.mean(list(dropped.values()), axis=0) if dropped else 0.0)
    # Shares are fractions of small numbers: 0.95 of 20 is 19.
    told_apart[kept < min(quantile, kept[-1]) - 1e-9] = -1
    best = len(tried) - 1 - int(np.argmax(np.round(told_apart[::-1], 9)))
    return Calibration(
        len(mine),
        float(sign * tried[best]),
        float(kept[best]),
        {kind: float(shares[best]) for kind, shares in dropped.items()},
        {kind: float(_auc(values, mine)) for kind, values in worse.items()},
    )


def _auc(worse: np.ndarray, better: np.ndarray) -> float:
    """Chance that a value of the first is larger than one of the second, ties half."""
    statistic = mannwhitneyu(worse, better, method="asymptotic").statistic
    return float(statistic / len(worse) / len(better))


def wrong_labels(clips: Sequence[Clip], kind: str, seed: int = 0) -> list[Clip]:
    """The same pictures with labels that are wrong in one way.

    What a judge reads is changed and fits together: joints, keypoints, visibility, and the mask where the person moves;
    the pose parameters stay. ``keep`` is False where a frame has no wrong label of this kind, for example the mirror
    image of a symmetric pose.

    Args:
        clips: With right labels. Frames that they do not keep are left out.
        kind: ``other_frame``, the label of another frame, of another clip where there is one, moved and scaled into the
            same box; ``sides_swapped``, left and right exchanged; ``limb_turned``, one arm or leg turned about its
            shoulder or hip by 40 to 120 degrees, across itself; ``shifted``, the whole person moved by 0.25 to 0.5 of
            the box's longer side; ``mirrored``, the label of the mirror image, in the same box.
        seed: With names of clips and frames it decides what is drawn.

    Raises:
        InputError: No such kind.
    """
    if kind not in WRONG_LABELS:
        raise InputError("unknown kind of wrong label", expected=", ".join(WRONG_LABELS), got=kind)
    pool = [(clip, frame) for clip in clips for frame in map(int, np.flatnonzero(np.asarray(clip.keep)))]
    return [_spoilt(clip, kind, seed, pool) for clip in clips]


Pool = Sequence[tuple[Clip, int]]
Label = tuple[np.ndarray, np.ndarray]  # (45, 3) joints_cam, (45,) visible


def _spoilt(clip: Clip, kind: str, seed: int, pool: Pool) -> Clip:
    height, width = clip.frames.shape[1:3]
    joints, visible, mask = clip.joints_cam.copy(), np.array(clip.visible, bool), clip.mask
    keypoints, keep = clip.keypoints_px.copy(), np.array(clip.keep, bool)
    for frame in map(int, np.flatnonzero(keep)):
        rng = rng_of(seed, f"{kind}/{clip.clip_id}/{frame}")
        label = WRONG_LABELS[kind](clip, frame, rng, pool)
        if label is None or (kind != "shifted" and not _is_wrong(label[0], clip.joints_cam[frame])):
            keep[frame] = False
            continue
        joints[frame], visible[frame] = label
        points = _pixels(joints[frame], clip)
        visible[frame] &= ((points > -0.5) & (points < (width - 0.5, height - 0.5))).all(1)
        if kind == "shifted":
            mask = mask.copy() if mask is clip.mask else mask
            step = np.rint(points[0] - keypoints[frame, 0]).astype(int)
            mask[frame] = _moved(clip.mask[frame], *step)
        keypoints[frame] = points
    return replace(clip, joints_cam=joints, keypoints_px=keypoints, visible=visible, mask=mask, keep=keep)


def _other_frame(clip: Clip, frame: int, rng: np.random.Generator, pool: Pool) -> Label | None:
    order = [pool[row] for row in rng.permutation(len(pool))]
    # Frames of one clip resemble each other.
    for other, row in sorted(order, key=lambda one: one[0] is clip):
        if _is_wrong(other.joints_cam[row], clip.joints_cam[frame]):
            return _into_box(other.joints_cam[row], clip, frame), np.asarray(other.visible[row])
    return None


def _sides_swapped(clip: Clip, frame: int, rng: np.random.Generator, pool: Pool) -> Label:
    return clip.joints_cam[frame][_FLIP], np.asarray(clip.visible[frame])[_FLIP]


def _limb_turned(clip: Clip, frame: int, rng: np.random.Generator, pool: Pool) -> Label:
    joints = clip.joints_cam[frame].astype(np.float64)
    limb = int(rng.choice(_LIMBS))
    moving = [row for row in range(len(joints)) if limb in _ancestors(row)]
    along = joints[moving[-1]] - joints[limb]
    across = np.cross(along, rng.normal(size=3))
    across /= max(float(np.linalg.norm(across)), 1e-9)
    turn = Rotation.from_rotvec(np.radians(rng.uniform(*TURN_DEG)) * across)
    joints[moving] = turn.apply(joints[moving] - joints[limb]) + joints[limb]
    return joints, np.asarray(clip.visible[frame])


def _shifted(clip: Clip, frame: int, rng: np.random.Generator, pool: Pool) -> Label:
    low, high = _extent(clip.keypoints_px[frame])
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(*SHIFT) * (high - low).max()
    joints = clip.joints_cam[frame].astype(np.float64)
    focal = clip.intrinsics[[0, 1], [0, 1]]
    joints[:, :2] += np.array([np.cos(angle), np.sin(angle)]) * far * joints[0, 2] / focal
    return joints, np.asarray(clip.visible[frame])


def _mirrored(clip: Clip, frame: int, rng: np.random.Generator, pool: Pool) -> Label:
    joints = clip.joints_cam[frame][_FLIP] * (-1.0, 1.0, 1.0)
    return _into_box(joints, clip, frame), np.asarray(clip.visible[frame])[_FLIP]


WRONG_LABELS: Mapping[str, Callable[[Clip, int, np.random.Generator, Pool], Label | None]] = {
    "other_frame": _other_frame,
    "sides_swapped": _sides_swapped,
    "limb_turned": _limb_turned,
    "shifted": _shifted,
    "mirrored": _mirrored,
}


def _is_wrong(joints: np.ndarray, truth: np.ndarray) -> bool:
    rooted = [points[:_BODY] - points[0] for points in (joints, truth)]
    return bool(np.linalg.norm(rooted[0] - rooted[1], axis=-1).max() >= MIN_WRONG_M)


def _into_box(joints: np.ndarray, clip: Clip, frame: int) -> np.ndarray:
    """(45, 3) joints of another picture, moved so that the body fills the same box as the frame's own label."""
    low, high = _extent(clip.keypoints_px[frame])
    focal = clip.intrinsics[[0, 1], [0, 1]]
    moved = np.asarray(joints, np.float64) - joints[0] + clip.joints_cam[frame, 0]
    for _ in range(4):  # perspective: the size changes a little with the place
        first, last = _extent(_pixels(moved, clip))
        moved[:, 2] += moved[0, 2] * ((last - first).max() / max((high - low).max(), 1.0) - 1)
        first, last = _extent(_pixels(moved, clip))
        moved[:, :2] += ((low + high) - (first + last)) / 2 * moved[0, 2] / focal
    return moved


def _extent(keypoints_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners (2,), (2,) around the body's joints."""
    points = keypoints_px[:_FRAME_JOINTS].astype(np.float64)
    return points.min(0), points.max(0)


def _pixels(joints: np.ndarray, clip: Clip) -> np.ndarray:
    camera = torch.as_tensor(np.asarray(clip.intrinsics, np.float64))
    return project(torch.from_numpy(np.asarray(joints, np.float64)), camera).numpy()


def _ancestors(joint: int) -> list[int]:
    parents: Sequence[int] = _SKELETON.parents or ()
    found: list[int] = []
    while parents[joint] >= 0:
        joint = parents[joint]
        found.append(joint)
    return found


def _moved(mask: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """(H, W) moved to the right and down; what leaves the image is lost."""
    out = np.zeros_like(mask)
    height, width = mask.shape
    into = [slice(max(step, 0), max(size + min(step, 0), 0)) for step, size in ((rows, height), (columns, width))]
    outof = [slice(max(-step, 0), max(size - max(step, 0), 0)) for step, size in ((rows, height), (columns, width))]
    out[tuple(into)] = mask[tuple(outof)]
    return out
