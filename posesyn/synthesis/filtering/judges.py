"""Reasons to drop a rendered frame: impossible labels, an estimator or a detector that disagrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from posesyn import metrics, skeletons
from posesyn.data.persons.rendered import RenderedClips
from posesyn.errors import InputError
from posesyn.geometry.devices import halving, on_cpu
from posesyn.interfaces import KeypointDetector, TargetEstimator
from posesyn.metrics.pose2d_error import root_of
from posesyn.storage.clip_codec import frame_boxes
from posesyn.types import Clip

LABELS = "smpl45"
# BEDLAM keeps persons with at least 8 of joints[:22] inside the image (pixelite1201/BEDLAM, data_processing).
MIN_INSIDE, _BODY_JOINTS = 8, 22


def label_problems(clip: Clip, min_inside: int = MIN_INSIDE, min_side_px: float = 16.0) -> list[str | None]:
    """Per frame what is wrong with its labels, or None.

    Args:
        clip: A rendered clip.
        min_inside: Joints (of SMPL's first 22) that must lie inside the image.
        min_side_px: Shortest acceptable longer side of the person's box; our own choice.
    """
    height, width = clip.frames.shape[1:3]
    boxes = frame_boxes(clip)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1)
    problems: list[str | None] = []
    for frame in range(len(clip)):
        points, joints = clip.keypoints_px[frame, :_BODY_JOINTS], clip.joints_cam[frame, :_BODY_JOINTS]
        if not (np.isfinite(points).all() and np.isfinite(joints).all() and np.isfinite(clip.pose_rotvec[frame]).all()):
            problems.append("labels are not finite")
            continue
        inside = ((points > -0.5) & (points < (width - 0.5, height - 0.5))).all(1) & (joints[:, 2] > 0)
        if inside.sum() < min_inside:
            problems.append("person outside the image")
        elif sides[frame] < min_side_px:
            problems.append("person too small")
        else:
            problems.append(None)
    return problems


Answers = tuple[str, np.ndarray, np.ndarray]  # skeleton, (F, J, 3 or 2) joints, (F, J) scores of a detector


def estimator_answers(clip: Clip, frames: Sequence[int], estimator: TargetEstimator, batch_size: int = 32) -> Answers:
    """(F, J, 3) joints that an estimator sees in some frames, in its skeleton; NaN where there is no body to crop."""
    persons = {p.frame: p for p in RenderedClips([clip], only_kept=False, min_visible=0)}
    skeleton = estimator.spec.skeleton
    known = [row for row, frame in enumerate(frames) if frame in persons]

    def asked(rows: list[int]) -> np.ndarray:
        nonlocal skeleton
        predictions = estimator.predict([persons[frames[row]] for row in rows])
        if len(predictions) != len(rows):
            problem = "an estimator must answer for every person"
            raise InputError(problem, where="ClipFilter", expected=len(rows), got=len(predictions))
        skeleton = predictions.skeleton
        return predictions.joints_cam

    found = np.concatenate(halving(asked, known, batch_size, on_cpu(estimator, asked))) if known else None
    joints = np.full((len(frames), len(skeletons.get(skeleton)), 3), np.nan)
    if found is not None:
        joints[known] = found
    return skeleton, joints, np.ones(joints.shape[:2])


def estimator_errors(
    clip: Clip,
    frames: Sequence[int],
    estimator: TargetEstimator,
    reduce: Literal["mean", "sum"] = "mean",
    batch_size: int = 32,
) -> np.ndarray:
    """PoseSyn's filter error of some frames, metres.

    ``Err3D_l = sum_{n>=2} |(pred_n - pred_1) - (label_n - label_1)|_2`` (arXiv 2503.13025), over the joints that
    both skeletons have; finger tips are left out.

    Args:
        clip: A rendered clip.
        frames: F frame numbers.
        estimator: What is run on them.
        reduce: ``"sum"`` as in the paper, or ``"mean"`` over the joints: the same ranking for one estimator, and a
            threshold that does not depend on its number of joints.
        batch_size: Frames per call.

    Returns:
        (F,) float64; infinite where the estimator returns NaN.
    """
    return rooted_errors(estimator_answers(clip, frames, estimator, batch_size), clip, frames, reduce)


def rooted_errors(answers: Answers, clip: Clip, frames: Sequence[int], reduce: str = "mean") -> np.ndarray:
    """(F,) metres between an estimator's answers and the clip's labels, both from their roots; infinite for NaN."""
    skeleton, joints, _ = answers
    labels, present = skeletons.convert(clip.joints_cam[list(frames)], LABELS, skeleton)
    tips = np.array(["tip" in name.split("_") for name in skeletons.get(skeleton).joints])
    used = present[0] & ~tips
    _, root = root_of(skeleton, used)
    if len(root) == 1:
        used = used.copy()
        used[root[0]] = False
    if not used.any():
        raise InputError("the estimator's skeleton shares no joints with the labels", where="ClipFilter", got=skeleton)
    rooted = [points - points[:, list(root)].mean(1, keepdims=True) for points in (joints, labels)]
    distances = np.linalg.norm(rooted[0].astype(np.float64) - rooted[1], axis=-1)[:, used]
    values = distances.mean(1) if reduce == "mean" else distances.sum(1)
    return np.where(np.isfinite(values), values, np.inf)


def detector_answers(clip: Clip, frames: Sequence[int], detector: KeypointDetector, batch_size: int = 32) -> Answers:
    """(F, J, 2) keypoints in pixels and (F, J) scores that a detector finds in some frames, in its skeleton."""
    boxes = frame_boxes(clip)

    def asked(rows: list[int]) -> np.ndarray:
        found, confidence = detector.detect(clip.frames[rows], boxes[rows])
        wanted = (len(rows), len(skeletons.get(detector.skeleton)), 2)
        if np.shape(found) != wanted or np.shape(confidence) != wanted[:2]:
            problem = "a detector must give keypoints (T, J, 2) and scores (T, J)"
            where = f"skeleton '{detector.skeleton}'"
            raise InputError(problem, where=where, expected=wanted, got=np.shape(found))
        return np.concatenate([found, np.asarray(confidence)[..., None]], axis=-1)

    rows = list(frames)
    parts = halving(asked, rows, batch_size, on_cpu(detector, asked))
    found = np.concatenate(parts) if parts else np.zeros((0, len(skeletons.get(detector.skeleton)), 3))
    return detector.skeleton, found[..., :2], found[..., 2]


def detector_scores(
    clip: Clip,
    frames: Sequence[int],
    detector: KeypointDetector,
    measure: Literal["oks", "pck"] = "oks",
    min_score: float = 0.3,
    pck_fraction: float = 0.1,
) -> np.ndarray:
    """Agreement of an independent 2D detector with the labels, 0 to 1; our own choice.

    Compared are the COCO joints that are labelled visible and that the detector found.

    Args:
        clip: A rendered clip.
        frames: F frame numbers.
        detector: Not derived from the estimator being improved.
        measure: ``"oks"`` with COCO's sigmas and the area of the mask, or ``"pck"``: the share of joints within
            ``pck_fraction`` of the longer side of the box.
        min_score: Detections below are missing; a missing joint counts as wrong. Our own choice.
        pck_fraction: Our own choice.

    Returns:
        (F,) float64; 0 where no joint is visible.
    """
    return agreement(detector_answers(clip, frames, detector), clip, frames, measure, min_score, pck_fraction)


def agreement(
    answers: Answers,
    clip: Clip,
    frames: Sequence[int],
    measure: str = "oks",
    min_score: float = 0.3,
    pck_fraction: float = 0.1,
) -> np.ndarray:
    """:func:`detector_scores` (F,) of what a detector answered."""
    rows, (skeleton, found, confidence) = list(frames), answers
    boxes = frame_boxes(clip)[rows]
    detected = (confidence >= min_score) & np.isfinite(found).all(-1)
    points, present = skeletons.convert(np.nan_to_num(found), skeleton, "coco17", detected)
    has = skeletons.mapping(skeleton, "coco17") >= 0
    labels, visible = skeletons.convert(clip.keypoints_px[rows], LABELS, "coco17", np.asarray(clip.visible[rows], bool))
    visible = visible & has
    # A joint that the detector misses is infinitely far away for both measures.
    points = np.where(present[..., None], points, 1e9)
    scores = np.zeros(len(rows))
    good = visible.any(1)
    if not good.any():
        return scores
    if measure == "oks":
        area = np.array([clip.mask[row].sum() for row in rows], np.float64)
        box_area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        area = np.maximum(np.where(area > 0, area, box_area), 1.0)
        points, labels = points.astype(np.float64), labels.astype(np.float64)
        scores[good] = metrics.oks(points[good], labels[good], visible[good], area[good])
        return scores
    reach = pck_fraction * (boxes[:, 2:] - boxes[:, :2]).max(1)
    hit = (np.linalg.norm(points - labels, axis=-1) <= reach[:, None]) & visible
    scores[good] = hit[good].sum(1) / visible[good].sum(1)
    return scores


def refuse_own_network(judge: object, improved: object, where: str = "ClipFilter") -> None:
    """A detector that is the network which it judges for finds nothing wrong with what that network gets wrong.

    Compared are families (:attr:`posesyn.interfaces.EstimatorSpec.family`), also those of detectors that a lifter
    reads. Of a detector that names none nothing is known, and it is taken.

    Raises:
        InputError: Both hold weights of one family.
    """
    shared = _families(judge) & _families(improved)
    if shared:
        raise InputError(
            f"the detector and the estimator that is improved are one network ({', '.join(sorted(shared))})",
            where=where,
            expected="an independent judge",
            fix="take another detector, such as posesyn.load_detector('movenet_thunder')",
        )


def _families(thing: object) -> set[str]:
    """Whose weights are in it."""
    spec = getattr(thing, "spec", None)
    own = getattr(thing, "family", None) or getattr(spec, "family", None) or getattr(spec, "name", None)
    found: set[str] = set() if own is None else {str(own)}
    for part in (getattr(thing, name, None) for name in ("detector", "estimator")):
        found |= set() if part is None else _families(part)
    return found
