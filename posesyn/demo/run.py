"""The demo from start to end: build a world, find the failures, synthesize, retrain, compare with the control."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import report as reports
from posesyn.demo.world import DemoWorld, WorldSettings, build_world
from posesyn.estimators import load_estimator
from posesyn.evaluation.scoring import PROTOCOL, Evaluation, evaluate
from posesyn.interfaces import TargetEstimator
from posesyn.pipeline.run import FINE_TUNED, Pipeline
from posesyn.report import RunSummary
from posesyn.settings import ExtractionSettings, FineTuningSettings, RenderingSettings, RunSettings, SynthesisSettings
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.files import write_json
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.types import ErrorReport, ScoredPerson

BEFORE, CONTROL, OURS = "as shipped", "control: real data only", "posesyn: real + synthetic"


def demo_settings(seed: int) -> RunSettings:
    """Sizes that end within minutes on two cores; tried on the worlds of seeds 100 and 101, which are not reported."""
    return RunSettings(
        ExtractionSettings(num_challenging=256, num_non_challenging=64),
        # The wild set climbs, jumps and does gymnastics: here motions may leave the floor.
        SynthesisSettings(num_motions=2, airborne=None),
        RenderingSettings(frames_per_motion=4, frame_stride=8, image_size=192),
        # Ten times the pipeline's rate: the shipped network is far from done, and the demo has minutes.
        training=FineTuningSettings(steps=400, batch_size=32, learning_rate=5e-4, schedule="cosine"),
        seed=seed,
    )


@dataclass(frozen=True)
class DemoResult:
    """What the demo found: one evaluation per model on the same held-out persons."""

    evaluations: Mapping[str, Evaluation]
    funnel: Mapping[str, int]
    timings: Mapping[str, float]
    report: Path
    held_out_persons: int = 0
    wall_s: float = 0.0
    peak_memory_gb: float = field(default_factory=lambda: _peak_memory_gb())

    def rows(self) -> list[dict[str, Any]]:
        """The table: one row per model."""
        control = self.evaluations[CONTROL].summary()
        rows = []
        for name, evaluation in self.evaluations.items():
            values = evaluation.summary()
            row = {"model": name, "MPJPE [mm]": values["MPJPE [mm]"], "PA-MPJPE [mm]": values["PA-MPJPE [mm]"]}
            for key in ("MPJPE [mm]", "PA-MPJPE [mm]"):
                change = 100 * (values[key] / control[key] - 1)
                row[f"{key.split()[0]} vs control"] = "" if name == CONTROL else f"{change:+.1f} %"
            rows.append(row)
        return rows

    def table(self) -> str:
        """The rows as a Markdown table."""
        rows = [{k: f"{v:.1f}" if isinstance(v, float) else str(v) for k, v in row.items()} for row in self.rows()]
        names = list(rows[0])
        widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
        lines = [names, ["-" * width for width in widths], *([row[name] for name in names] for row in rows)]
        return "\n".join("| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths)) + " |" for line in lines)


def _peak_memory_gb() -> float:
    """Of this process, and beside it twice its largest child: the two trainings run at the same time."""
    own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (own + 2 * child) / 2**20


def run_demo(
    out: Path,
    seed: int = 0,
    progress: bool = True,
    sizes: WorldSettings | None = None,
    settings: RunSettings | None = None,
    device: str = "auto",
) -> DemoResult:
    """Runs or resumes the demo in ``out``; writes ``results.json`` and ``report.html``.

    Args:
        sizes, settings: Other sizes than the demo's own, e.g. tiny ones for a test.
    """
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    settings = settings or demo_settings(seed)
    estimator = load_estimator("hmr_small", device=device)
    synthesizer = MotionSynthesizer.from_pretrained(settings=settings.synthesis, device=device)
    world = build_world(out / "world", synthesizer, sizes or WorldSettings(), seed, progress)
    built = time.perf_counter() - start
    with Pipeline(
        estimator,
        world.wild,
        out / "run",
        settings,
        real=[world.lab, world.wild],
        synthesizer=synthesizer,
        source={"demo": seed},
        device=device,
        progress=progress,
    ) as pipeline:
        found = pipeline.extract()
        motions = pipeline.synthesize(found)
        store = pipeline.render(motions, found)
        kept = pipeline.filter(store)
        trained = pipeline.fine_tune_all({FINE_TUNED: kept, "control": None}, processes=2)
        ours, control = trained[FINE_TUNED], trained["control"]
        timings = {"world": built, **pipeline.timings}
    models = {BEFORE: estimator, CONTROL: control, OURS: ours}
    evaluations = {name: evaluate(model, world.held_out) for name, model in models.items()}
    funnel = {
        "2D persons": len(world.wild),
        "challenging": len(found.challenging),
        "motions": len(motions),
        "rendered frames": sum(store.header(row).shape[0] for row in range(len(store))),
        "kept frames": len(kept),
    }
    result = DemoResult(
        evaluations, funnel, timings, out / "report.html", len(world.held_out), time.perf_counter() - start
    )
    write_json(
        out / "results.json",
        {
            "seed": seed,
            "protocol": PROTOCOL,
            "held_out_persons": len(world.held_out),
            "rows": result.rows(),
            "funnel": funnel,
            "timings_s": timings,
            "wall_s": result.wall_s,
            "peak_memory_gb": result.peak_memory_gb,
        },
    )
    _write_report(result, found, store, world, estimator, ours, seed)
    return result


def _write_report(
    result: DemoResult,
    found: ErrorReport,
    store: ClipStore,
    world: DemoWorld,
    before: TargetEstimator,
    after: TargetEstimator,
    seed: int,
) -> None:
    errors = {name: evaluation.mpjpe_mm for name, evaluation in result.evaluations.items()}
    gain = errors[BEFORE] - errors[OURS]
    chosen = np.argsort(-gain, kind="stable")[:8]
    clips, rejected = reports.clips_to_show(store)
    summary = RunSummary(
        title="posesyn demo",
        subtitle="An estimator trained on lab images meets an in-the-wild 2D data set. posesyn finds where it fails, "
        "synthesizes training data for those poses and retrains it; the control trains as long on the real data only.",
        rows=result.rows(),
        highlight=OURS,
        table_note=f"{len(world.held_out)} held-out persons, {PROTOCOL}. Seed {seed}. No choice was made on them.",
        funnel=result.funnel,
        error_series=errors,
        improved=[_pair(world.held_out[int(row)], before, after, errors, int(row)) for row in chosen],
        worst=found.challenging[:12],
        best=found.non_challenging[:12],
        clips=clips,
        rejected=rejected,
        settings={"seed": seed, **{k: v for k, v in found.settings.items() if isinstance(v, (int, float, str))}},
        timings=result.timings,
        notes=[
            "All images are rendered; the numbers show that the chain works, not how well it does on photographs.",
            "Wild persons carry the caption of their motion, as a captioned photograph would; the held-out persons "
            "perform other motions sampled from the same captions. The control sees no 3D labels of wild images.",
        ],
    )
    reports.write_run_report(result.report, summary)


def _pair(person, before, after, errors, row) -> tuple[ScoredPerson, ScoredPerson]:
    def scored(model: TargetEstimator, name: str) -> ScoredPerson:
        joints = len(person.visible)
        return ScoredPerson(
            person, model.predict([person]), float(errors[name][row]), np.zeros(joints), np.zeros(joints, bool)
        )

    return scored(before, BEFORE), scored(after, OURS)
