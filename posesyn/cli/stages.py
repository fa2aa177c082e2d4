"""The demo, whole runs, and each stage alone: settings in, a folder and a few printed lines out.

Heavy imports stand inside the functions, so that ``posesyn --help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path

from posesyn.cli import build
from posesyn.settings import (
    CaptionerSettings,
    DataSettings,
    EstimatorSettings,
    ExtractionSettings,
    FilterSettings,
    FineTuningSettings,
    RenderingSettings,
    RunSettings,
    SynthesisSettings,
)


def demo(
    out: Path | None = None,
    seeds: list[int] | None = None,
    photos: Path | None = None,
    estimator: EstimatorSettings | None = None,
    device: str = "auto",
) -> None:
    """Watch the whole chain at work on rendered people: minutes on two cores, nothing to download.

    With --photos: see in a minute where an estimator seems to fail on your own pictures, and motions for these poses.

    Args:
        out: Folder for the data, the weights and report.html (default: runs/demo, where an interrupted demo continues;
            with photos runs/demo-photos).
        seeds: One run per seed, as a list: ``--seeds '[0,1,2]'`` (default: 0). With photos the first one counts.
        photos: Folder of your own pictures. Needs ``posesyn assets fetch blazepose_lite`` and ``movenet_thunder``.
        estimator: With photos: whom to examine (default: the smallest BlazePose that was fetched).
        device: Where it runs: auto, cpu, cuda, mps ...
    """
    if photos is not None:
        _photo_demo(photos, out or Path("runs/demo-photos"), (seeds or [0])[0], estimator, device)
        return
    from posesyn.demo.run import run_demo

    out = out or Path("runs/demo")
    for seed in seeds or [0]:
        result = run_demo(out / f"seed{seed}", seed, device=device)
        print(f"\nseed {seed}, {result.held_out_persons} held-out persons")
        print(result.table())
        print(f"{result.wall_s:.0f} s, peak memory {result.peak_memory_gb:.1f} GB", flush=True)
        print(f"report: {result.report}\n", flush=True)


def _photo_demo(photos: Path, out: Path, seed: int, estimator: EstimatorSettings | None, device: str) -> None:
    from posesyn.demo.photos import run_photo_demo

    examined = None if estimator is None else build.estimator_of(estimator, device)
    result = run_photo_demo(photos, out, seed, examined, device=device)
    for note in result.notes:
        print(note)
    print(
        f"{len(result.persons)} persons in {result.persons.pictures} pictures, {len(result.found)} scored, "
        f"{len(result.motions)} motions for the hardest\n"
        f"nobody annotated these pictures: keypoints of {result.keypoints_by} stand in for the 2D truth\n"
        f"{sum(result.timings.values()):.0f} s, report: {result.report}"
    )


def run(
    data: DataSettings,
    out: Path,
    estimator: EstimatorSettings = EstimatorSettings(),
    captioner: CaptionerSettings = CaptionerSettings(),
    extraction: ExtractionSettings = ExtractionSettings(),
    others: list[EstimatorSettings] | None = None,
    synthesis: SynthesisSettings = SynthesisSettings(),
    rendering: RenderingSettings = RenderingSettings(),
    filtering: FilterSettings = FilterSettings(),
    detector: str | None = None,
    training: FineTuningSettings = FineTuningSettings(),
    rounds: int = 1,
    control: bool = False,
    lifted_labels: bool = False,
    held_out: DataSettings | None = None,
    protocol: str = "smpl24",
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> None:
    """The whole chain on your own data; an interrupted run continues from its folder.

    Args:
        data: The 2D data set that is searched for failures.
        out: Folder of the run.
        estimator: The estimator to improve.
        captioner: A model that describes the challenging persons.
        extraction: Who is picked.
        others: Further estimators, whose disagreement with the examined one is written down.
        synthesis: How motions are made.
        rendering: What is drawn of them.
        filtering: Which frames are kept.
        detector: A detector of 2D keypoints that judges the frames, by name (movenet_thunder, movenet_lightning,
            blazepose_lite, vitpose, or 'my_module:make'); without one the labels of rendered meshes are trusted, and
            ``filtering.rule estimator`` is the paper's rule.
        training: How the estimator is retrained; ``steps 0`` ends the run after the filter.
        rounds: How often the chain is gone through, each time with the estimator as the round before left it.
        control: Also train, from the same weights, in the same way and as long, on the real persons alone.
        lifted_labels: Train real persons without 3D labels with the pose that fits their 2D truth, as far as it can be
            trusted.
        held_out: Labelled data that no training sees; the estimators are scored on it at the end.
        protocol: How they are scored there (`posesyn evaluate` has the protocols that need a regressor or bodies).
        seed: Decides everything that is drawn.
        device: Where it runs: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.pipeline import stages
    from posesyn.pipeline.run import Pipeline
    from posesyn.pipeline.summary import CONTROL, FINE_TUNED, read_rounds, round_folder
    from posesyn.report import write_run_report
    from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
    from posesyn.training.estimators.fine_tuning import WEIGHTS

    settings = RunSettings(extraction, synthesis, rendering, filtering, training, seed, rounds, control, lifted_labels)
    # What is not there is named before a folder is made.
    asked = build.captioner_of(captioner, device)
    labelled = None if held_out is None else build.persons_of(held_out)
    synthesizer = MotionSynthesizer.from_pretrained(settings=synthesis, device=device)
    with Pipeline(
        build.estimator_of(estimator, device), build.persons_of(data), out, settings,
        captions=build.captions_of(data), captioner=asked, synthesizer=synthesizer, device=device, progress=progress,
        others=[build.estimator_of(one, device) for one in others or ()],
        detector=build.detector_of(detector, device),
        source={**build.data_identity(data), **build.captioner_identity(captioner)},
    ) as pipeline:  # fmt: skip
        if labelled is not None:  # what is wrong with them is told before the work, not after it
            pipeline.score_held_out(labelled, protocol)
        pipeline.run()
        if labelled is not None:
            pipeline.score_held_out(labelled, protocol)
        summary = pipeline.summary()
    write_run_report(out / "report.html", summary)
    for stage, count in summary.funnel.items():
        print(f"{count:8d} {stage}")
    for row in read_rounds(out)[1:rounds]:
        print(f"{row['new']:8d} new challenging persons in round {row['round']}, {row['kept_frames']} kept frames")
    print(f"{stages.describe_filter(out / 'clips', filtering)}\nreport: {out / 'report.html'}")
    if training.steps:
        last = round_folder(out, rounds)
        weights = last / FINE_TUNED / WEIGHTS
        if control:
            print(f"control: {last / CONTROL / WEIGHTS}")
        print(f"weights: {weights}\nload them: posesyn.load_estimator({estimator.name!r}, checkpoint={str(weights)!r})")


def extract(
    data: DataSettings,
    out: Path,
    estimator: EstimatorSettings = EstimatorSettings(),
    extraction: ExtractionSettings = ExtractionSettings(),
    others: list[EstimatorSettings] | None = None,
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Ranks all persons of a 2D data set by the estimator's error.

    Args:
        data: The data set.
        out: Folder for the table, the selected predictions and report.html.
        estimator: The estimator to examine.
        extraction: How persons are scored and picked.
        others: Further estimators, whose disagreement with the examined one is written down.
        device: Where it runs: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.pipeline import stages
    from posesyn.report import write_extraction_report

    # A misspelt estimator is told before a large data set is read.
    examined, *further = [build.estimator_of(one, device) for one in (estimator, *(others or ()))]
    found = stages.extract(
        build.persons_of(data), extraction, out, estimator=examined, others=further, progress=progress
    )
    write_extraction_report(out / "report.html", found)
    print(
        f"{len(found)} persons ranked, {len(found.skipped)} skipped, {len(found.challenging)} challenging, "
        f"{len(found.non_challenging)} non-challenging\nreport: {out / 'report.html'}"
    )


def synthesize(
    data: DataSettings,
    extraction: Path,
    out: Path,
    synthesis: SynthesisSettings = SynthesisSettings(),
    captioner: CaptionerSettings = CaptionerSettings(),
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Samples motions for the challenging persons of an extraction.

    Args:
        data: The data set that was extracted.
        extraction: Folder that ``posesyn extract`` wrote.
        out: Folder for the motions, one AMASS-style npz each.
        synthesis: How motions are made.
        captioner: A model that describes the challenging persons.
        seed: Decides the samples.
        device: Where it runs: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.pipeline import stages

    report = build.report_of(extraction, data)
    motions = stages.synthesize(
        report, synthesis, out, seed=seed, captions=build.captions_of(data), device=device, progress=progress,
        captioner=build.captioner_of(captioner, device), source=build.captioner_identity(captioner),
    )  # fmt: skip
    print(f"{len(motions)} motions for {len(report.challenging)} persons in {out}")


def render(
    motions: Path,
    out: Path,
    data: DataSettings | None = None,
    extraction: Path | None = None,
    rendering: RenderingSettings = RenderingSettings(),
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Renders motions to labelled clips in tar shards.

    Args:
        motions: Folder of motion files (npz), or one BVH file.
        out: Folder of the clip store.
        data: With ``extraction``: the data set whose non-challenging persons lend their appearance.
        extraction: Folder that ``posesyn extract`` wrote.
        rendering: What is drawn, and how; ``frames_per_motion null`` draws motions whole.
        seed: Decides bodies, appearances, backgrounds and cameras.
        device: Where it runs: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.pipeline import stages

    read = build.motions_of(motions)
    lenders = () if extraction is None else build.report_of(extraction, data).non_challenging
    store = stages.render(read, rendering, out, seed=seed, appearances=lenders, device=device, progress=progress)
    print(f"{len(store)} clips in {out}")


def filter_clips(
    clips: Path,
    estimator: EstimatorSettings = EstimatorSettings(),
    filtering: FilterSettings = FilterSettings(),
    detector: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Marks the frames that the filter drops; the archives stay as they are.

    Args:
        clips: Folder of the clip store.
        estimator: The estimator to improve. It judges with ``filtering.rule estimator``, the paper's rule.
        filtering: Which frames are kept, and who judges.
        detector: A detector of 2D keypoints that judges, by name (movenet_thunder, movenet_lightning, blazepose_lite,
            vitpose, or 'my_module:make'); without one the labels of rendered meshes are trusted.
        device: Where it runs: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.pipeline import stages

    improved, judge = build.estimator_of(estimator, device), build.detector_of(detector, device)
    stages.filter_clips(clips, filtering, estimator=improved, detector=judge, device=device, progress=progress)
    print(stages.describe_filter(clips, filtering))


def report(data: DataSettings, extraction: Path, out: Path) -> None:
    """Writes the page of an extraction again.

    Args:
        data: The data set that was extracted.
        extraction: Folder that ``posesyn extract`` wrote.
        out: HTML file.
    """
    from posesyn.report import write_extraction_report

    write_extraction_report(out, build.report_of(extraction, data))
    print(f"report: {out}")
