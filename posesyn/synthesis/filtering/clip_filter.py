"""Keeps the frames of rendered clips whose picture shows what their labels say."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from posesyn.errors import InputError
from posesyn.geometry.devices import device_of, moved
from posesyn.interfaces import KeypointDetector, TargetEstimator
from posesyn.settings.base import with_changes
from posesyn.settings.stages import FilterSettings
from posesyn.synthesis.filtering.calibration import WRONG_LABELS, Calibration, choose_threshold, wrong_labels
from posesyn.synthesis.filtering.judges import (
    Answers,
    agreement,
    detector_answers,
    estimator_answers,
    label_problems,
    refuse_own_network,
    rooted_errors,
)
from posesyn.types import Clip
from posesyn.types.arguments import check_several
from posesyn.types.looks import changes_of, short_repr

if TYPE_CHECKING:
    import torch

Mode = Literal["estimator", "detector", "labels"]
# Both are our own choice (PoseSyn does not state its tau). 0.2 m mean joint distance is about twice the MPJPE
# that PoseSyn's table of results has; OKS 0.5 is COCO's loosest threshold.
TAU_M, MIN_OKS = 0.2, 0.5


@dataclass(frozen=True, eq=False)
class ClipYield:
    """What the filter did with one clip: frames in it, frames kept, number of frames per reason, and the judge's value
    per frame (metres for an estimator, 0 to 1 for a detector; NaN where it was not asked)."""

    clip_id: str
    person_id: str | None
    frames: int
    kept: int
    reasons: Mapping[str, int]
    values: np.ndarray = field(repr=False)


class ClipFilter:
    """Decides per frame.

    Every frame is checked for sane labels. Then, if there is one, a judge looks at the picture:

    - a **detector** of 2D keypoints, not derived from the estimator that is improved: drop frame l if its agreement
      with the labels is below ``threshold``;
    - an **estimator** (PoseSyn's rule, arXiv 2503.13025): drop frame l if ``Err3D_l > threshold``. With the
      estimator being improved this deletes frames that are right but hard for it, which it should learn from;
    - nobody: labels only, which is enough for pictures whose labels are exact, as those of rendered meshes.

    Args:
        judge: A ``KeypointDetector``, a ``TargetEstimator`` or None.
        settings: What is kept; see :class:`~posesyn.settings.stages.FilterSettings`. Of its ``rule`` ``auto`` means
            here: by the methods of the judge.
        device: Where the judge is moved if it is a ``torch.nn.Module``: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``;
            None leaves it where it is.
        improves: The estimator that is trained on what is kept, if known: a detector of its own family is refused.
        changes: Single settings in place of those of ``settings``.

    Attributes:
        settings: As given, with the changes.
        mode: ``"labels"``, ``"detector"`` or ``"estimator"``: who judges.
        threshold: That of the settings; where they have none, :data:`TAU_M` for an estimator's mean error and
            :data:`MIN_OKS` for a detector, both our own choice; :meth:`calibrate` finds one that fits the judge. None
            for an estimator's sum over joints, for which there is no default.
        calibration: What :meth:`calibrate` found, or None.

    Raises:
        InputError: A judge without the needed method or where none is asked, settings that make no sense, no such
            device, or a detector that is the estimator which it judges for.

    Example:
        >>> standing = ps.Motion("stand", np.zeros((2, 24, 3)), np.zeros((2, 3)), np.zeros(10), fps=20.0)
        >>> clips = ps.AnimationRenderer(image_size=64).render([standing], progress=False)
        >>> [clip.keep.tolist() for clip in ClipFilter().filter(clips)]
        [[True, True]]
    """

    def __init__(
        self,
        judge: TargetEstimator | KeypointDetector | None = None,
        settings: FilterSettings | None = None,
        *,
        device: str | torch.device | None = None,
        improves: TargetEstimator | None = None,
        **changes: Any,
    ) -> None:
        self.settings = with_changes(FilterSettings, settings, changes)
        rule = self.settings.rule
        self.mode: Mode = _mode_of(judge) if rule == "auto" else rule
        method = {"estimator": "predict", "detector": "detect", "labels": None}[self.mode]
        if method is None and judge is not None:
            fix = "leave the judge out, or take another rule"
            raise InputError("the rule 'labels' asks nobody", where="ClipFilter", got=type(judge).__name__, fix=fix)
        if method is not None and not callable(getattr(judge, method, None)):
            raise InputError(f"the rule '{self.mode}' needs a judge with `{method}`", got=type(judge).__name__)
        if self.mode == "detector" and improves is not None:
            refuse_own_network(judge, improves)
        self.judge = judge if device is None else moved(judge, device)
        summed = self.mode == "estimator" and self.settings.reduce == "sum"
        default = None if summed else {"estimator": TAU_M, "detector": MIN_OKS, "labels": 0.0}[self.mode]
        self.threshold: float | None = default if self.settings.threshold is None else float(self.settings.threshold)
        self.calibration: Calibration | None = None
        self._calibrated_on: frozenset[bytes] = frozenset()

    def __repr__(self) -> str:
        judge = getattr(getattr(self.judge, "spec", self.judge), "name", type(self.judge).__name__)
        asked = {} if self.judge is None else {"judge": judge, "device": str(device_of(self.judge))}
        return short_repr(self, mode=self.mode, **asked, **{**changes_of(self.settings), "threshold": self.threshold})

    def filter(self, clips: Iterable[Clip], drop_empty: bool = True) -> FilteredClips:
        """The clips with :attr:`Clip.keep` updated, decided one by one as they are asked for.

        Args:
            clips: Clips, a store, or a generator (which can be gone through only once).
            drop_empty: Leave out clips of which no frame is kept; the statistics list them all the same.
        """
        check_several(clips, Clip, "filter")
        return FilteredClips(self, clips, drop_empty)

    def decide(self, clip: Clip) -> tuple[np.ndarray, ClipYield]:
        """(T,) bool frames to keep (never more than the clip keeps already), and why."""
        reasons: Counter[str] = Counter()
        keep = np.asarray(clip.keep, bool).copy()
        if not keep.all():
            reasons["dropped before"] = int((~keep).sum())
        for frame, problem in enumerate(label_problems(clip, self.settings.min_inside)):
            if keep[frame] and problem is not None:
                keep[frame] = False
                reasons[problem] += 1
        values = np.full(len(clip), np.nan)
        asked = np.flatnonzero(keep)
        if len(asked) and self.mode != "labels":
            if self.threshold is None:
                fix = "pass threshold=... in metres, or use the filter that calibrate(other clips) returns"
                raise InputError("a sum over joints has no default threshold", where="ClipFilter", fix=fix)
            if self._calibrated_on and not self._calibrated_on.isdisjoint(_pictures(clip)):
                problem = "a clip that is filtered was used for the calibration: the threshold would be learnt from it"
                fix = "calibrate with clips that are never filtered, such as others rendered for it"
                raise InputError(problem, where=f"ClipFilter, clip '{clip.clip_id}'", fix=fix)
            values[asked] = self._values(clip, asked, self._ask(clip, asked))
            bad = values[asked] > self.threshold if self.mode == "estimator" else values[asked] < self.threshold
            keep[asked[bad]] = False
            if bad.any():
                reasons[f"{self.mode} disagrees"] = int(bad.sum())
        return keep, ClipYield(clip.clip_id, clip.person_id, len(clip), int(keep.sum()), dict(reasons), values)

    def calibrate(self, clips: Iterable[Clip], quantile: float | None = None, seed: int = 0) -> ClipFilter:
        """A filter whose threshold tells right from wrong labels, learnt from clips that are never filtered.

        The judge sees each frame with its own label and with labels that are wrong in five ways
        (:func:`~posesyn.synthesis.filtering.calibration.wrong_labels`); how the threshold follows from that says
        :func:`~posesyn.synthesis.filtering.calibration.choose_threshold`. 60 to 100 frames are enough for the default.

        Args:
            clips: With labels that are right by construction (rasterised, exact labels); neither those that are
                filtered later nor a test set.
            quantile: Share of their frames that must pass; None takes the settings' one.
            seed: Decides the wrong labels.

        Returns:
            A filter with :attr:`calibration`. It refuses clips that hold a picture of ``clips``.

        Raises:
            InputError: No frame to judge, no judge, or a quantile outside 0 to 1.
        """
        if self.mode == "labels":
            raise InputError("calibration needs a judge", where="ClipFilter.calibrate", fix="pass a detector")
        settings = self.settings if quantile is None else replace(self.settings, quantile=quantile)
        check_several(clips, Clip, "calibrate")
        trusted = [self._sane(clip) for clip in clips]
        rows = [_kept(clip) for clip in trusted]
        answers = [self._ask(clip, frames) if len(frames) else None for clip, frames in zip(trusted, rows)]
        right = [self._values(*one) for one in zip(trusted, rows, answers) if one[2] is not None]
        wrong = {}
        for kind in WRONG_LABELS:
            values = []
            for clip, asked, known, spoilt in zip(trusted, rows, answers, wrong_labels(trusted, kind, seed)):
                # Of those that are wrong by their numbers alone nobody is asked.
                frames = _kept(self._sane(spoilt))
                if known is None or not len(frames):
                    continue
                if spoilt.mask is clip.mask and not self._reads_keypoints:
                    # The same pictures and boxes: the judge would say the same again.
                    some = np.isin(asked, frames)
                    said = known[0], known[1][some], known[2][some]
                else:
                    said = self._ask(spoilt, frames)
                values.append(self._values(spoilt, frames, said))
            wrong[kind] = np.concatenate(values) if values else np.zeros(0)
        found = choose_threshold(
            np.concatenate(right) if right else np.zeros(0), wrong, settings.quantile, above=self.mode == "estimator"
        )
        calibrated = ClipFilter(self.judge, replace(settings, rule=self.mode, threshold=found.threshold))
        calibrated.calibration = found
        calibrated._calibrated_on = frozenset(one for clip in trusted for one in _pictures(clip))
        return calibrated

    def _sane(self, clip: Clip) -> Clip:
        """Keeps the frames whose labels are possible."""
        problems = label_problems(clip, self.settings.min_inside)
        return replace(clip, keep=np.array([one is None for one in problems]) & np.asarray(clip.keep, bool))

    @property
    def _reads_keypoints(self) -> bool:
        """Whether the judge is told the labelled keypoints, so that another label changes what it says."""
        return getattr(getattr(self.judge, "spec", None), "keypoints_skeleton", None) is not None

    def _ask(self, clip: Clip, frames: np.ndarray) -> Answers:
        judge: Any = self.judge
        ask = estimator_answers if self.mode == "estimator" else detector_answers
        return ask(clip, frames.tolist(), judge, self.settings.batch_size)

    def _values(self, clip: Clip, frames: np.ndarray, answers: Answers) -> np.ndarray:
        if self.mode == "estimator":
            return rooted_errors(answers, clip, frames.tolist(), self.settings.reduce)
        return agreement(answers, clip, frames.tolist(), self.settings.measure)


def _kept(clip: Clip) -> np.ndarray:
    """Numbers of the frames that a clip keeps."""
    return np.flatnonzero(np.asarray(clip.keep, bool))


def _pictures(clip: Clip) -> list[bytes]:
    """A hash of each frame."""
    return [hashlib.blake2b(frame.tobytes(), digest_size=16).digest() for frame in clip.frames]


def _mode_of(judge: object) -> Mode:
    if judge is None:
        return "labels"
    if callable(getattr(judge, "detect", None)):
        return "detector"
    if callable(getattr(judge, "predict", None)):
        return "estimator"
    problem = "a filter's judge needs `predict(persons)` or `detect(images, boxes)`"
    raise InputError(problem, where="ClipFilter", got=type(judge).__name__)


class FilteredClips:
    """Clips that passed a filter. Going through it a second time does not ask the judge again.

    Attributes:
        yields: What happened to each clip seen so far, by clip name.
        masks: Frames kept of each clip seen so far.
    """

    def __init__(self, rule: ClipFilter, clips: Iterable[Clip], drop_empty: bool = True) -> None:
        self.yields: dict[str, ClipYield] = {}
        self.masks: dict[str, np.ndarray] = {}
        self._rule, self._clips, self._drop_empty = rule, clips, drop_empty
        self._once = isinstance(clips, Iterator)
        self._started = False

    def __repr__(self) -> str:
        return f"FilteredClips({self._rule.mode!r} filter, {len(self.yields)} clips seen so far)"

    def __iter__(self) -> Iterator[Clip]:
        if self._once and self._started:
            problem = "these clips come from a generator and were gone through already"
            raise InputError(problem, where="FilteredClips", fix="filter a list or a ClipStore, or keep list(filtered)")
        self._started = True
        for clip in self._clips:
            if clip.clip_id not in self.masks:
                self.masks[clip.clip_id], self.yields[clip.clip_id] = self._rule.decide(clip)
            kept = replace(clip, keep=self.masks[clip.clip_id])
            if kept.keep.any() or not self._drop_empty:
                yield kept
        found = self.statistics()
        if found["frames"] and not found["frames_kept"]:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in found["reasons"].items())
            threshold = f"; threshold {self._rule.threshold:g}" if self._rule.mode != "labels" else ""
            warnings.warn(
                f"the filter kept none of {found['frames']} frames of {found['clips']} clips ({reasons}{threshold}). "
                "Look at some of them, choose another threshold or calibrate the filter on trusted clips",
                stacklevel=2,
            )

    def run(self, on_clip: Callable[[ClipYield], None] | None = None) -> dict[str, Any]:
        """Decides all clips without keeping them, and returns :meth:`statistics`.

        Warns, with the number of frames per reason, if no frame is left. If the clips come from a ``ClipStore``, the
        masks are recorded in it, so that ``RenderedClips(store)`` sees kept frames only.
        """
        for clip in self:
            if on_clip is not None:
                on_clip(self.yields[clip.clip_id])
        record = getattr(self._clips, "set_keep", None)
        if record is not None:
            record(self.masks)
        return self.statistics()

    def statistics(self) -> dict[str, Any]:
        """Yield of the clips seen so far, as JSON values: totals, frames per reason, and one entry per clip."""
        reasons: Counter[str] = Counter()
        per_clip = []
        for item in self.yields.values():
            reasons.update(item.reasons)
            finite = item.values[np.isfinite(item.values)]
            entry = {name: getattr(item, name) for name in ("clip_id", "person_id", "frames", "kept")}
            per_clip.append({**entry, "value": float(finite.mean()) if len(finite) else None})
        calibration = self._rule.calibration
        frames, kept = (sum(entry[name] for entry in per_clip) for name in ("frames", "kept"))
        return {
            "mode": self._rule.mode,
            "threshold": self._rule.threshold,
            **({} if calibration is None else {"calibration": asdict(calibration)}),
            "clips": len(per_clip),
            "clips_kept": sum(entry["kept"] > 0 for entry in per_clip),
            "frames": frames,
            "frames_kept": kept,
            "yield": kept / frames if frames else 0.0,
            "reasons": dict(sorted(reasons.items())),
            "per_clip": per_clip,
        }
