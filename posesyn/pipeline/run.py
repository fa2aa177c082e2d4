"""The order of the stages, and nothing else: extract → synthesize → render → filter → fine-tune → report.

Every stage writes into the run's folder before the next begins, so that a run can be killed at any moment and continued
with the same command. The single stages live in classes that know nothing of each other.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from posesyn.cli.build import PipelineSettings
from posesyn.data.motions.amass import load_motion, save_motion
from posesyn.data.persons.rendered import RenderedClips
from posesyn.errors import InputError
from posesyn.interfaces import Captioner, TargetEstimator
from posesyn.report import RunSummary, clips_to_show
from posesyn.storage.checkpoints import load_into, load_weights
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.clip_writer import ClipWriter
from posesyn.storage.files import read_json, write_json
from posesyn.storage.ledger import Finished, RunLedger
from posesyn.storage.reports import load_report
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.extraction.extractor import ErrorExtractor, estimator_fingerprint
from posesyn.synthesis.filtering.clip_filter import ClipFilter
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer, clip_id
from posesyn.training.estimators.fine_tuning import fine_tune, train_side_by_side
from posesyn.types import ErrorReport, Motion, Person, ScoredPerson, batched

AFTER = "extraction_after"
# What of the scoring says how wrong a person is, and not who is picked.
_ERROR_OPTIONS = ("joint_weights", "normalizer", "min_joints", "occluded_weight", "crowded_weight")


class Pipeline:
    """One run in one folder.

    Args:
        estimator: The estimator to improve. It is not changed: :meth:`fine_tune` trains a copy.
        persons: The 2D data set that is searched for failures; also the real part of the fine-tuning.
        out: Folder of the run; made if absent, continued if it holds the same run.
        settings: See :class:`PipelineSettings`.
        captions: person_id → text, which wins over the data set's own captions and the captioner's.
        captioner: Describes the challenging persons without a text in ``captions``, such as
            :class:`~posesyn.synthesis.motion.captions.VisionCaptioner`; None: the data set's captions count.
        real: Real data for the fine-tuning if it is more than ``persons``.
        synthesizer, renderer: Made from the shipped prior and body if not given.
        scoring: Further arguments of the :class:`~posesyn.synthesis.extraction.extractor.ErrorExtractor`.
        source: What identifies the data, for the check that a continued run is the same one.
        progress: Whether progress bars are shown.

    Raises:
        RunError: The folder holds something else, or a run with other settings.
    """

    def __init__(
        self,
        estimator: TargetEstimator,
        persons: Sequence[Person],
        out: str | Path,
        settings: PipelineSettings | None = None,
        *,
        captions: Mapping[str, str] | None = None,
        captioner: Captioner | None = None,
        real: Sequence[Sequence[Person]] | None = None,
        synthesizer: MotionSynthesizer | None = None,
        renderer: AnimationRenderer | None = None,
        scoring: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        self.estimator, self.persons, self.out = estimator, persons, Path(out)
        self.settings = settings or PipelineSettings()
        self.captions, self.captioner = dict(captions or {}), captioner
        self.real = list(real) if real is not None else [persons]
        self.progress = progress
        self._synthesizer, self._renderer, self._scoring = synthesizer, renderer, dict(scoring or {})
        config = {
            "kind": "run",
            "settings": _plain(asdict(self.settings)),
            "estimator": estimator.spec.name,
            "estimator_fingerprint": estimator_fingerprint(estimator),
            "persons": len(persons),
            "captions": self.captions,
            "source": _plain(dict(source or {})),
        }
        self.ledger = RunLedger(self.out, config)

    def close(self) -> None:
        """Releases the folder."""
        self.ledger.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @cached_property
    def synthesizer(self) -> MotionSynthesizer:
        return self._synthesizer or MotionSynthesizer.from_pretrained()

    @cached_property
    def renderer(self) -> AnimationRenderer:
        size = self.settings.image_size
        return self._renderer or AnimationRenderer(
            "mesh", image_size=(size, size), backgrounds=self.settings.backgrounds
        )

    @property
    def timings(self) -> dict[str, float]:
        """Stage → seconds of work, summed over interrupted tries."""
        path = self.out / "timings.json"
        return dict(read_json(path)) if path.exists() else {}

    # -- stages -------------------------------------------------------------------------------------------------

    def extract(self) -> ErrorReport:
        """Scores all persons; continues inside the extraction after a kill."""
        folder = self.out / "extraction"

        def make() -> None:
            ErrorExtractor(
                self.estimator,
                num_challenging=self.settings.num_challenging,
                num_non_challenging=self.settings.num_non_challenging,
                batch_size=self.settings.batch_size,
                **self._scoring,
            ).extract(self.persons, progress=self.progress, out=folder)

        self._once("extract", make)
        return load_report(folder, self.persons)

    def synthesize(self, report: ErrorReport) -> list[Motion]:
        """Motions for the challenging persons, best first per person; saved person by person."""
        with self._timed("synthesize"):
            synthesize_into(
                self.out / "motions",
                self.ledger,
                self.synthesizer,
                report,
                self.settings.num_motions,
                self.settings.seed,
                self.captions,
                self.progress,
                self.captioner,
            )
        return self.motions()

    def motions(self) -> list[Motion]:
        """The motions saved so far."""
        return [load_motion(path) for path in sorted((self.out / "motions").glob("*.npz"))]

    def render(self, motions: Sequence[Motion], report: ErrorReport) -> ClipStore:
        """Labelled clips of the motions, dressed as the non-challenging persons, in tar shards."""
        seed, folder = self.settings.seed, self.out / "clips"
        by_id = {clip_id(motion.motion_id, seed): self.dressed(motion) for motion in motions}
        with self._timed("render"), ClipWriter(folder, plan=list(by_id), config={"seed": seed}) as writer:
            pending = [by_id[name] for name in writer.pending()]
            clips = self.renderer.render(pending, appearances=report.non_challenging, seed=seed, progress=self.progress)
            for clip in clips:
                writer.write(clip)
        return ClipStore(folder)

    def dressed(self, motion: Motion) -> Motion:
        """The frames to render (``frames_per_motion``, ``frame_stride`` apart, around the best-fitting one), on a body
        drawn from the run's seed and the motion's name."""
        thin = thin_motion(motion, self.settings.frames_per_motion, self.settings.frame_stride)
        rng = rng_of(self.settings.seed, motion.motion_id)
        return replace(thin, betas=rng.normal(0, self.settings.shape_spread, 10).astype(np.float32), joints_world=None)

    def filter(self, clips: ClipStore) -> RenderedClips:
        """Marks the frames that the paper's rule drops and returns the kept ones as labelled persons."""

        def make() -> None:
            clips.reset_keep()  # a filter that was killed half-way has left its marks
            rule = ClipFilter(self.estimator).calibrate(clips, self.settings.filter_quantile)
            with tqdm(total=len(clips), desc="filter", unit="clip", disable=not self.progress) as bar:
                statistics = rule.filter(clips).run(lambda _: bar.update(1))
            write_json(self.out / "filter.json", statistics)

        self._once("filter", make)
        return RenderedClips(ClipStore(clips.folder))

    def fine_tune(self, synthetic: Sequence[Person] | None, name: str = "fine_tuned") -> TargetEstimator:
        """A copy of the estimator, trained on real and synthetic persons (``None``: the control, real only)."""
        return self.fine_tune_all({name: synthetic})[name]

    def fine_tune_all(
        self, arms: Mapping[str, Sequence[Person] | None], processes: int = 1
    ) -> dict[str, TargetEstimator]:
        """Several copies of the estimator, each trained on its own synthetic persons.

        Args:
            arms: Name (also of the folder) → synthetic persons, or None for real ones only.
            processes: Trainings at the same time, the machine's threads divided among them. Small networks train
                faster so: two processes of one thread do more steps than one process of two.
        """
        jobs = [
            {
                "estimator": copy.deepcopy(self.estimator),
                "real": self.real,
                "synthetic": synthetic,
                "out": self.out / name,
                "settings": self.settings.fine_tuning,
                "seed": self.settings.seed,
                "name": name.replace("_", " "),
                "progress": self.progress,
            }
            for name, synthetic in arms.items()
        ]
        with self._timed("+".join(arms)):
            if processes > 1:
                weights = train_side_by_side(jobs, processes)
            else:
                weights = [fine_tune(**job) for job in jobs]
        for job, path in zip(jobs, weights):
            # Another process has trained a copy of its own.
            load_into(job["estimator"], load_weights(path), where=path)
        return {name: job["estimator"] for name, job in zip(arms, jobs)}

    def run(self) -> TargetEstimator:
        """All stages; returns the fine-tuned estimator, or the given one if no training is asked for."""
        report = self.extract()
        motions = self.synthesize(report)
        kept = self.filter(self.render(motions, report))
        if self.settings.fine_tuning.steps == 0:
            return self.estimator
        trained = self.fine_tune(kept)
        self.rescore(trained, report)
        return trained

    def rescore(self, trained: TargetEstimator, report: ErrorReport) -> None:
        """Scores the selected persons again, with the trained estimator, for the run report."""
        chosen = [scored.person for scored in (*report.challenging, *report.non_challenging)]
        same = {name: value for name, value in self._scoring.items() if name in _ERROR_OPTIONS}
        with self._timed("rescore"):
            ErrorExtractor(trained, num_challenging=len(chosen), num_non_challenging=0, **same).extract(
                chosen, progress=self.progress, out=self.out / AFTER
            )

    def funnel(self) -> dict[str, int]:
        """What is left after each stage that has run."""
        report, counts = load_report(self.out / "extraction", self.persons), {}
        counts["2D persons"] = len(self.persons)
        counts["persons scored"] = len(report)
        counts["challenging persons"] = len(report.challenging)
        counts["motions"] = len(list((self.out / "motions").glob("*.npz")))
        store = ClipStore(self.out / "clips")
        counts["rendered frames"] = sum(store.header(row).shape[0] for row in range(len(store)))
        counts["kept frames"] = sum(int(store.labels(row)["keep"].sum()) for row in range(len(store)))
        return counts

    def summary(self) -> RunSummary:
        """What the run report shows."""
        report = load_report(self.out / "extraction", self.persons)
        store = ClipStore(self.out / "clips")
        clips, rejected = clips_to_show(store)
        errors = {"2D error": np.array([scored.error for scored in report.scored])}
        notes = [f"{len(report.skipped)} persons were not scored: {report.skipped[:5]}"] if report.skipped else []
        rows, improved = [], []
        if (self.out / AFTER / "report.json").exists():
            chosen = [scored.person for scored in (*report.challenging, *report.non_challenging)]
            after = {scored.person.person_id: scored for scored in load_report(self.out / AFTER, chosen).scored}
            rows = [
                _change(name, part, after)
                for name, part in (("challenging", report.challenging), ("non-challenging", report.non_challenging))
                if part
            ]
            pairs = [(scored, after[scored.person.person_id]) for scored in report.challenging if _known(scored, after)]
            improved = sorted(pairs, key=lambda pair: pair[1].error - pair[0].error)[:8]
            notes.append(
                "The errors after training are on persons that it was trained with: they show what was learnt, not "
                "what carries over. Score data that the training has not seen with `posesyn evaluate`."
            )
        return RunSummary(
            title="posesyn run",
            subtitle=f"Estimator {self.estimator.spec.name}",
            funnel=self.funnel(),
            rows=rows,
            table_note="Mean 2D error of the selected persons, in box sizes.",
            improved=improved,
            error_series=errors,
            error_unit="box sizes",
            worst=report.challenging[:12],
            best=report.non_challenging[:12],
            clips=clips,
            rejected=rejected,
            settings=_plain(asdict(self.settings)),
            timings=self.timings,
            notes=notes,
        )

    # -- inside -------------------------------------------------------------------------------------------------

    def _once(self, stage: str, make: Callable[[], None]) -> None:
        self.ledger.plan(stage, [stage])
        if self.ledger.pending(stage):
            with self._timed(stage):
                make()
            self.ledger.commit(stage, [Finished(stage, stage, "")])

    def _timed(self, stage: str) -> _Timer:
        return _Timer(self, stage)


class _Timer:
    def __init__(self, pipeline: Pipeline, stage: str) -> None:
        self._pipeline, self._stage = pipeline, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        timings = self._pipeline.timings
        timings[self._stage] = timings.get(self._stage, 0.0) + time.perf_counter() - self._start
        write_json(self._pipeline.out / "timings.json", timings)


def _known(scored: ScoredPerson, after: Mapping[str, ScoredPerson]) -> bool:
    return scored.person.person_id in after


def _change(name: str, part: Sequence[ScoredPerson], after: Mapping[str, ScoredPerson]) -> dict[str, Any]:
    """One row of the table: the part's mean error before and after, on persons scored both times."""
    both = [(scored.error, after[scored.person.person_id].error) for scored in part if _known(scored, after)]
    before, now = np.mean(both, axis=0) if both else (np.nan, np.nan)
    return {"persons": name, "count": str(len(both)), "before": float(before), "after": float(now)}


def synthesize_into(
    folder: Path,
    ledger: RunLedger,
    synthesizer: MotionSynthesizer,
    report: ErrorReport,
    num_motions: int,
    seed: int,
    captions: Mapping[str, str],
    progress: bool = True,
    captioner: Captioner | None = None,
) -> None:
    """Samples motions for the challenging persons that the ledger has not noted yet; saves them person by person."""
    found = {scored.person.person_id: scored for scored in report.challenging}
    order = {name: row for row, name in enumerate(found)}
    ledger.plan("motions", list(found))
    pending = ledger.pending("motions")
    folder.mkdir(exist_ok=True)
    made = len(found) - len(pending)
    with tqdm(total=len(found), initial=made, desc="synthesize", unit="person", disable=not progress) as bar:
        for names in batched(pending, 16):
            motions = synthesizer.synthesize(
                [found[name] for name in names],
                num_motions=num_motions,
                seed=seed,
                captions=[captions.get(name) for name in names],
                progress=False,
                captioner=captioner,
            )
            for name in names:
                for rank, motion in enumerate(motion for motion in motions if motion.person_id == name):
                    save_motion(folder / f"{order[name]:06d}_{rank:03d}.npz", motion)
                ledger.commit("motions", [Finished(name, f"{folder.name}/{order[name]:06d}_*.npz", "")])
            bar.update(len(names))


def thin_motion(motion: Motion, frames: int, stride: int) -> Motion:
    """Every ``stride``-th frame, at most ``frames`` of them, as evenly around the anchor frame as the ends allow."""
    if frames < 1 or stride < 1:
        raise InputError("frames and stride must be at least 1", where="thin_motion", got=(frames, stride))
    length = len(motion)
    anchor = motion.anchor_frame if motion.anchor_frame is not None else length // 2
    candidates = np.arange(anchor % stride, length, stride)
    position = int(np.searchsorted(candidates, anchor))
    start = max(0, min(position - frames // 2, len(candidates) - frames))
    rows = candidates[start : start + frames]
    return motion.take(rows)


def _plain(value: Any) -> Any:
    """JSON values of settings: paths become text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
