"""The order of the stages, and nothing else: extract → synthesize → render → filter → train → score again.

Every stage writes into a folder of the run before the next begins, so that a run can be killed at any moment and
continued with the same command. The stages themselves are in :mod:`posesyn.pipeline.stages`. Further rounds go through
the same stages in folders of their own, ``round_2`` ...; a round is a :class:`Pipeline`, too.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from posesyn.data.persons.lifted import LiftedPersons, check_liftable
from posesyn.data.persons.rendered import RenderedClips
from posesyn.evaluation.results import Evaluation
from posesyn.evaluation.scoring import evaluate
from posesyn.interfaces import Captioner, KeypointDetector, TargetEstimator
from posesyn.pipeline import stages
from posesyn.pipeline.summary import (
    AFTER,
    COLUMNS,
    CONTROL,
    FINE_TUNED,
    FIRST_AFTER,
    funnel,
    note_held_out,
    note_round,
    round_folder,
    selected,
    summarise,
)
from posesyn.report import RunSummary
from posesyn.settings.base import identity, plain
from posesyn.settings.stages import RunSettings
from posesyn.settings.training import TrainerSettings
from posesyn.storage.checkpoints import load_into, load_weights
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.files import read_json, write_json
from posesyn.storage.ledger import RunLedger
from posesyn.storage.reports import load_report
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.extraction.extractor import estimator_fingerprint
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer
from posesyn.training.estimators.fine_tuning import fine_tune, train_side_by_side
from posesyn.training.estimators.mixed_data import as_persons
from posesyn.types import ErrorReport, Motion, Person

EXTRACTION, LIFTED, TIMINGS = "extraction", "lifted_labels", "timings.json"


@dataclass(frozen=True, eq=False)
class Arm:
    """One of several trainings of a run.

    Args:
        synthetic: Rendered persons, or several sequences of them, that fill their share of every batch; None: real
            persons alone, as the control has.
        lifted: Whether real persons without labels have lifted ones; None: as ``RunSettings.lifted_labels`` says.
            ``Arm(lifted=True)`` is the arm of real pictures with lifted labels and nothing synthetic.
        start: Where it starts from; None: the run's estimator.
    """

    synthetic: Sequence[Person] | Sequence[Sequence[Person]] | None = None
    lifted: bool | None = None
    start: TargetEstimator | None = None


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
        InputError: The detector is the estimator's own network, or does not fit the filter's rule; or labels shall be
            lifted and cannot be.
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
        if self.settings.lifted_labels:
            check_liftable(as_persons(self.real, "real"), estimator)
        self.others, self.source = tuple(others), plain(dict(source or {}))
        self.device, self.progress = device, progress
        self._synthesizer, self._renderer = synthesizer, renderer
        self.trained: Mapping[str, TargetEstimator] = {}  # by arm, of the last round
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
        path = self.out / TIMINGS
        return dict(read_json(path)) if path.exists() else {}

    def extract(self) -> ErrorReport:
        """See :func:`~posesyn.pipeline.stages.extract`."""
        with self._timed("extract"):
            where = self.out / EXTRACTION
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

    @cached_property
    def lifted(self) -> LiftedPersons:
        """The real persons with lifted labels, see :func:`~posesyn.pipeline.stages.lift_labels`."""
        with self._timed("lift"):
            persons, where = as_persons(self.real, "real"), self.out / LIFTED
            return stages.lift_labels(persons, where, estimator=self.estimator, progress=self.progress)

    def fine_tune(self, synthetic: Sequence[Person] | None, name: str = FINE_TUNED) -> TargetEstimator:
        """A copy of the estimator, trained on real and synthetic persons (``None``: the control, real only)."""
        return self.fine_tune_all({name: synthetic})[name]

    def fine_tune_all(
        self, arms: Mapping[str, Sequence[Person] | Arm | None], processes: int = 1
    ) -> dict[str, TargetEstimator]:
        """Several copies of the estimator, each trained on its own synthetic persons.

        Args:
            arms: Name (also of the folder) → synthetic persons, None for real ones only, or an :class:`Arm`. All train
                with the same settings, seed and number of steps, on the same real persons.
            processes: Trainings at the same time, the machine's threads divided among them. Small networks train
                faster so: two processes of one thread do more steps than one process of two.
        """
        same = {"settings": self.settings.training, "seed": self.settings.seed}
        same |= {"progress": self.progress, "trainer": TrainerSettings.on(self.device)}
        jobs: list[dict[str, Any]] = []
        for name, given in arms.items():
            arm = given if isinstance(given, Arm) else Arm(given)
            lifted = self.settings.lifted_labels if arm.lifted is None else arm.lifted
            seen = {"real": [self.lifted] if lifted else self.real, "synthetic": arm.synthetic}
            start = self.estimator if arm.start is None else arm.start
            place = {"out": self.out / name, "name": name.replace("_", " ")}
            jobs.append({"estimator": copy.deepcopy(start), **seen, **place, **same})
        with self._timed("+".join(arms)):
            weights = train_side_by_side(jobs, processes) if processes > 1 else [fine_tune(**job) for job in jobs]
        for job, path in zip(jobs, weights):
            # Another process has trained a copy of its own.
            load_into(job["estimator"], load_weights(path), where=path)
        return {name: job["estimator"] for name, job in zip(arms, jobs)}

    def run(self) -> TargetEstimator:
        """All stages of all rounds; returns the fine-tuned estimator, or the given one if no training is asked for.

        What each round added stands in ``rounds.json``.
        """
        clips: list[RenderedClips] = []
        trained: dict[str, TargetEstimator] = {}
        for number in range(1, self.settings.rounds + 1):
            with nullcontext(self) if number == 1 else self._next(number, trained) as one:
                report = one.extract()
                motions = one.synthesize(report)
                clips.append(one.filter(one.render(motions, report)))
                if self.settings.training.steps == 0:
                    return self.estimator
                starts = trained or {CONTROL: self.estimator}
                arms = {FINE_TUNED: Arm(clips[0] if number == 1 else list(clips))}
                if self.settings.control:
                    arms[CONTROL] = Arm(start=starts[CONTROL])
                trained = one.fine_tune_all(arms)
                for arm, estimator in trained.items():
                    one.rescore(estimator, report, AFTER[arm])
                    if number > 1:
                        one.rescore(estimator, load_report(self.out / EXTRACTION, self.persons), FIRST_AFTER[arm])
                note_round(self.out, number, self.persons, one.settings.seed, sum(map(len, clips)))
        self.trained = trained
        return trained[FINE_TUNED]

    def score_held_out(self, persons: Sequence[Person], protocol: str = "smpl24") -> dict[str, Evaluation]:
        """The estimator as shipped and what :meth:`run` has trained, on labelled persons that no training has seen.

        The means are written into ``held_out.json``, from where the summary takes them.

        Args:
            persons: Labelled.
            protocol: A name of ``posesyn.evaluation.PROTOCOLS`` that needs neither a regressor nor licensed bodies.

        Returns:
            ``before``, ``control`` and ``after``, as far as there is such an estimator.

        Raises:
            InputError: As :func:`posesyn.evaluation.scoring.evaluate`.
        """
        models = {"before": self.estimator, **{COLUMNS[arm]: one for arm, one in self.trained.items()}}
        asked: dict[str, Any] = {"protocol": protocol, "progress": self.progress}
        with self._timed("held out"):
            found = {name: evaluate(one, persons, **asked) for name, one in models.items()}
        note_held_out(self.out, found, self.settings.rounds)
        return found

    def _next(self, number: int, trained: Mapping[str, TargetEstimator]) -> Pipeline:
        """A later round: a run of its own, in a folder of this one, on the same persons, of the estimator as tuned."""
        extraction, name = self.settings.extraction, f"round/{number}"
        if extraction.selection in ("random", "mixed"):
            extraction = replace(extraction, selection_seed=seed_of(extraction.selection_seed, name))
        seed = seed_of(self.settings.seed, name)
        settings = replace(self.settings, extraction=extraction, seed=seed, rounds=1, lifted_labels=False)
        return Pipeline(
            trained[FINE_TUNED], self.persons, round_folder(self.out, number), settings,
            captions=self.captions, captioner=self.captioner, others=self.others, detector=self.detector,
            # Lifted once, by the estimator as it was given.
            real=[self.lifted] if self.settings.lifted_labels else self.real,
            synthesizer=self.synthesizer, renderer=self.renderer, source=self.source, device=self.device,
            progress=self.progress,
        )  # fmt: skip

    def rescore(self, trained: TargetEstimator, report: ErrorReport, name: str = AFTER[FINE_TUNED]) -> None:
        """Scores the selected persons again, with the trained estimator, into the folder ``name``: for the report."""
        chosen = selected(report)
        # As wrong as before is measured the same way; who is picked is known.
        picked: dict[str, Any] = {"num_challenging": len(chosen), "num_non_challenging": 0, "selection": "rank"}
        settings = replace(self.settings.extraction, **picked, rank_by="error", keep="all")
        with self._timed("rescore"):
            stages.extract(chosen, settings, self.out / name, estimator=trained, progress=self.progress)

    def funnel(self) -> dict[str, int]:
        """What is left after each stage that has run, in round 1."""
        return funnel(self.out, self.persons)

    def summary(self) -> RunSummary:
        """What the run report shows."""
        notes = []
        if (self.out / "clips" / stages.FILTERED).exists():
            notes.append(stages.describe_filter(self.out / "clips", self.settings.filtering))
        if self.settings.lifted_labels and (self.out / LIFTED / stages.LIFTED).exists():
            found = self.lifted
            share = f"used in {found.trust.mean():.0%} of the passes."
            missed = f" {len(found.missed)} could not be lifted: {found.missed[:5]}" if found.missed else ""
            notes.append(f"{len(found.trust)} real persons have lifted labels, {share}{missed}")
        timings = self.timings
        for number in range(2, self.settings.rounds + 1):
            path = round_folder(self.out, number) / TIMINGS
            own = read_json(path) if path.exists() else {}
            timings |= {f"round {number}: {stage}": seconds for stage, seconds in own.items()}
        return summarise(
            self.out, self.persons, self.settings.rounds, self.settings.control,
            subtitle=f"Estimator {self.estimator.spec.name}", settings=plain(self.settings), timings=timings,
            notes=notes,
        )  # fmt: skip

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            timings = self.timings
            timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - start
            write_json(self.out / TIMINGS, timings)
