"""The order of the stages, and nothing else: extract → synthesize → render → filter → train → score again.

Every stage writes into a folder of the run before the next begins, so that a run can be killed at any moment and
continued with the same command. The stages themselves are in :mod:`posesyn.pipeline.stages`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from posesyn.data.persons.rendered import RenderedClips
from posesyn.interfaces import Captioner, KeypointDetector, TargetEstimator
from posesyn.pipeline import stages
from posesyn.report import RunSummary, clips_to_show
from posesyn.settings.base import identity, plain
from posesyn.settings.stages import RunSettings
from posesyn.settings.training import TrainerSettings
from posesyn.storage.checkpoints import load_into, load_weights
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.files import read_json, write_json
from posesyn.storage.ledger import RunLedger
from posesyn.storage.reports import load_report
from posesyn.synthesis.extraction.extractor import estimator_fingerprint
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer
from posesyn.training.estimators.fine_tuning import fine_tune, train_side_by_side
from posesyn.types import ErrorReport, Motion, Person, ScoredPerson

AFTER, FINE_TUNED = "extraction_after", "fine_tuned"


class Pipeline:
    """One run in one folder.

    Args:
        estimator: The estimator to improve. It is not changed: :meth:`fine_tune` trains a copy.
        persons: The 2D data set that is searched for failures; also the real part of the fine-tuning.
        out: Folder of the run; made if absent, continued if it holds the same run.
        settings: See :class:`~posesyn.settings.RunSettings`.
        captions: person_id → text, which wins over the data set's own captions and the captioner's.
        captioner: Describes the challenging persons without a text in ``captions``, such as
            :class:`~posesyn.synthesis.motion.captions.VisionCaptioner`; None: the data set's captions count.
        real: Real data for the fine-tuning if it is more than ``persons``.
        others: Further estimators, whose disagreement with ``estimator`` is written down.
        detector: Judges the clips, unless the filter's ``rule`` says otherwise; of another family than the estimator.
        synthesizer, renderer: Made from the settings if not given.
        source: What identifies the data and the captioner, for the check that a continued run is the same one.
        device: Where a synthesizer and a renderer run that are made here: ``auto``, ``cpu``, ``cuda`` ...
        progress: Whether progress is shown.

    Raises:
        RunError: The folder holds something else, or a run with other settings.
        InputError: The detector is the estimator's own network, or does not fit the filter's rule.
    """

    def __init__(
        self,
        estimator: TargetEstimator,
        persons: Sequence[Person],
        out: str | Path,
        settings: RunSettings | None = None,
        *,
        captions: Mapping[str, str] | None = None,
        captioner: Captioner | None = None,
        real: Sequence[Sequence[Person]] | None = None,
        others: Sequence[TargetEstimator] = (),
        detector: KeypointDetector | None = None,
        synthesizer: MotionSynthesizer | None = None,
        renderer: AnimationRenderer | None = None,
        source: Mapping[str, Any] | None = None,
        device: str = "auto",
        progress: bool = True,
    ) -> None:
        self.estimator, self.persons, self.out = estimator, persons, Path(out)
        self.settings = settings or RunSettings()
        self.captions, self.captioner = dict(captions or {}), captioner
        self.real = list(real) if real is not None else [persons]
        self.detector = detector
        stages.check_rule(self.settings.filtering.rule, detector, estimator)  # now, not after hours of rendering
        self.others, self.source = tuple(others), plain(dict(source or {}))
        self.device, self.progress = device, progress
        self._synthesizer, self._renderer = synthesizer, renderer
        config = {
            "kind": "run",
            "layout": stages.LAYOUT,
            "settings": identity(self.settings),
            "estimator": estimator.spec.name,
            "estimator_fingerprint": estimator_fingerprint(estimator),
            "others": [[one.spec.name, estimator_fingerprint(one)] for one in self.others],
            "persons": len(persons),
            "captions": self.captions,
            "source": self.source,
        }
        if detector is not None:
            config["detector"] = stages.judge_identity(detector)
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
        """Makes the motions."""
        settings = self.settings.synthesis
        return self._synthesizer or MotionSynthesizer.from_pretrained(settings=settings, device=self.device)

    @cached_property
    def renderer(self) -> AnimationRenderer:
        """Draws the clips."""
        return self._renderer or AnimationRenderer(settings=self.settings.rendering, device=self.device)

    @property
    def timings(self) -> dict[str, float]:
        """Stage → seconds of work, summed over interrupted tries."""
        path = self.out / "timings.json"
        return dict(read_json(path)) if path.exists() else {}

    def extract(self) -> ErrorReport:
        """See :func:`~posesyn.pipeline.stages.extract`."""
        with self._timed("extract"):
            where = self.out / "extraction"
            asked: dict[str, Any] = {"others": self.others, "progress": self.progress}
            return stages.extract(self.persons, self.settings.extraction, where, estimator=self.estimator, **asked)

    def synthesize(self, report: ErrorReport) -> list[Motion]:
        """See :func:`~posesyn.pipeline.stages.synthesize`."""
        with self._timed("synthesize"):
            return stages.synthesize(
                report, self.settings.synthesis, self.out / "motions", seed=self.settings.seed,
                synthesizer=self.synthesizer, captions=self.captions, captioner=self.captioner,
                source={key: value for key, value in self.source.items() if key == "captioner"},
                progress=self.progress,
            )  # fmt: skip

    def render(self, motions: Sequence[Motion], report: ErrorReport) -> ClipStore:
        """See :func:`~posesyn.pipeline.stages.render`; dressed as the non-challenging persons."""
        with self._timed("render"):
            return stages.render(
                motions, self.settings.rendering, self.out / "clips", seed=self.settings.seed, renderer=self.renderer,
                appearances=report.non_challenging, progress=self.progress,
            )  # fmt: skip

    def filter(self, clips: ClipStore) -> RenderedClips:
        """See :func:`~posesyn.pipeline.stages.filter_clips`."""
        with self._timed("filter"):
            return stages.filter_clips(
                clips.folder,
                self.settings.filtering,
                estimator=self.estimator,
                detector=self.detector,
                device=self.device,
                progress=self.progress,
            )

    def fine_tune(self, synthetic: Sequence[Person] | None, name: str = FINE_TUNED) -> TargetEstimator:
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
        same = {"real": self.real, "settings": self.settings.training, "seed": self.settings.seed}
        same |= {"progress": self.progress, "trainer": TrainerSettings.on(self.device)}
        jobs: list[dict[str, Any]] = []
        for name, synthetic in arms.items():
            arm = {"synthetic": synthetic, "out": self.out / name, "name": name.replace("_", " ")}
            jobs.append({"estimator": copy.deepcopy(self.estimator), **arm, **same})
        with self._timed("+".join(arms)):
            weights = train_side_by_side(jobs, processes) if processes > 1 else [fine_tune(**job) for job in jobs]
        for job, path in zip(jobs, weights):
            # Another process has trained a copy of its own.
            load_into(job["estimator"], load_weights(path), where=path)
        return {name: job["estimator"] for name, job in zip(arms, jobs)}

    def run(self) -> TargetEstimator:
        """All stages; returns the fine-tuned estimator, or the given one if no training is asked for."""
        report = self.extract()
        motions = self.synthesize(report)
        kept = self.filter(self.render(motions, report))
        if self.settings.training.steps == 0:
            return self.estimator
        trained = self.fine_tune(kept)
        self.rescore(trained, report)
        return trained

    def rescore(self, trained: TargetEstimator, report: ErrorReport) -> None:
        """Scores the selected persons again, with the trained estimator, for the run report."""
        chosen = [scored.person for scored in (*report.challenging, *report.non_challenging)]
        # As wrong as before is measured the same way; who is picked is known.
        picked: dict[str, Any] = {"num_challenging": len(chosen), "num_non_challenging": 0, "selection": "rank"}
        settings = replace(self.settings.extraction, **picked, rank_by="error", keep="all")
        with self._timed("rescore"):
            stages.extract(chosen, settings, self.out / AFTER, estimator=trained, progress=self.progress)

    def funnel(self) -> dict[str, int]:
        """What is left after each stage that has run."""
        report, store = load_report(self.out / "extraction", self.persons), ClipStore(self.out / "clips")
        return {
            "2D persons": len(self.persons),
            "persons scored": len(report),
            "challenging persons": len(report.challenging),
            "motions": len(list((self.out / "motions").glob("*.npz"))),
            "rendered frames": sum(store.header(row).shape[0] for row in range(len(store))),
            "kept frames": sum(int(store.labels(row)["keep"].sum()) for row in range(len(store))),
        }

    def summary(self) -> RunSummary:
        """What the run report shows."""
        report = load_report(self.out / "extraction", self.persons)
        store = ClipStore(self.out / "clips")
        clips, rejected = clips_to_show(store)
        errors = {"2D error": np.array([scored.error for scored in report.scored])}
        notes = [f"{len(report.skipped)} persons were not scored: {report.skipped[:5]}"] if report.skipped else []
        if (self.out / "clips" / stages.FILTERED).exists():
            notes.append(stages.describe_filter(self.out / "clips", self.settings.filtering))
        rows, improved = [], []
        if (self.out / AFTER / "report.json").exists():
            chosen = [scored.person for scored in (*report.challenging, *report.non_challenging)]
            after = {scored.person.person_id: scored for scored in load_report(self.out / AFTER, chosen).scored}
            parts = {"challenging": report.challenging, "non-challenging": report.non_challenging}
            rows = [_change(name, part, after) for name, part in parts.items() if part]
            pairs = [(one, after[name]) for one in report.challenging if (name := one.person.person_id) in after]
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
            settings=plain(self.settings),
            timings=self.timings,
            notes=notes,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            timings = self.timings
            timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - start
            write_json(self.out / "timings.json", timings)


def _change(name: str, part: Sequence[ScoredPerson], after: Mapping[str, ScoredPerson]) -> dict[str, Any]:
    """One row of the table: the part's mean error before and after, on persons scored both times."""
    both = [(one.error, after[one.person.person_id].error) for one in part if one.person.person_id in after]
    before, now = np.mean(both, axis=0) if both else (np.nan, np.nan)
    return {"persons": name, "count": str(len(both)), "before": float(before), "after": float(now)}
