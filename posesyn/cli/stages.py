"""What the sub-commands of ``posesyn`` do. Each writes into a folder and says at the end what it made.

Heavy imports stand inside the functions, so that ``posesyn --help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path

from posesyn.cli.build import (
    CaptionerSettings,
    DataSettings,
    EstimatorSettings,
    MotionSettings,
    PipelineSettings,
    ScoringSettings,
    SelectionSettings,
)
from posesyn.cli.evaluate import compare, evaluate
from posesyn.cli.train import evaluate_lifter, train_lifter, train_poseaug
from posesyn.errors import FileError, InputError
from posesyn.settings.training import FineTuningSettings


def demo(out: Path = Path("runs/demo"), seeds: list[int] | None = None) -> None:
    """Watch an estimator get better on the poses it failed on: minutes on two cores, nothing to download.

    Args:
        out: Folder for the data, the weights and report.html; an interrupted demo continues from it.
        seeds: One run per seed, as a list: ``--seeds '[0,1,2]'`` (default: 0).
    """
    from posesyn.demo.run import run_demo

    for seed in seeds or [0]:
        result = run_demo(out / f"seed{seed}", seed)
        print(f"\nseed {seed}, {result.held_out_persons} held-out persons")
        print(result.table())
        print(f"{result.wall_s:.0f} s, peak memory {result.peak_memory_gb:.1f} GB", flush=True)
        print(f"report: {result.report}\n", flush=True)


def run(
    data: DataSettings,
    out: Path,
    estimator: EstimatorSettings = EstimatorSettings(),
    settings: PipelineSettings = PipelineSettings(),
    captioner: CaptionerSettings = CaptionerSettings(),
    motion: MotionSettings = MotionSettings(),
    scoring: ScoringSettings = ScoringSettings(),
) -> None:
    """The whole chain on your own data; an interrupted run continues from its folder.

    Args:
        data: The 2D data set that is searched for failures.
        out: Folder of the run.
        estimator: The estimator to improve.
        settings: What is made.
        captioner: A model that describes the challenging persons.
        motion: How motions are sampled.
        scoring: How persons are scored and picked.
    """
    from posesyn.pipeline.run import Pipeline
    from posesyn.report import write_run_report

    with Pipeline(
        estimator.load(),
        data.load(),
        out,
        settings,
        captions=data.load_captions(),
        captioner=captioner.load(),
        synthesizer=motion.load(),
        scoring=scoring.options(),
        source={**data.identity(), **captioner.identity(), **motion.identity(), **scoring.identity()},
    ) as pipeline:
        pipeline.run()
        summary = pipeline.summary()
    write_run_report(out / "report.html", summary)
    for stage, count in summary.funnel.items():
        print(f"{count:8d} {stage}")
    print(f"report: {out / 'report.html'}")


def extract(
    data: DataSettings,
    out: Path,
    estimator: EstimatorSettings = EstimatorSettings(),
    selection: SelectionSettings = SelectionSettings(),
    scoring: ScoringSettings = ScoringSettings(),
) -> None:
    """Ranks all persons of a 2D data set by the estimator's error.

    Args:
        data: The data set.
        out: Folder for the table, the selected predictions and report.html.
        estimator: The estimator to examine.
        selection: How many persons are picked.
        scoring: How they are scored and picked.
    """
    from posesyn.report import write_extraction_report
    from posesyn.synthesis.extraction.extractor import ErrorExtractor

    extractor = ErrorExtractor(
        estimator.load(),
        num_challenging=selection.num_challenging,
        num_non_challenging=selection.num_non_challenging,
        batch_size=selection.batch_size,
        **scoring.options(),
    )
    report = extractor.extract(data.load(), out=out)
    write_extraction_report(out / "report.html", report)
    print(
        f"{len(report)} persons ranked, {len(report.skipped)} skipped, {len(report.challenging)} challenging, "
        f"{len(report.non_challenging)} non-challenging\nreport: {out / 'report.html'}"
    )


def synthesize(
    data: DataSettings,
    extraction: Path,
    out: Path,
    num_motions: int = 8,
    seed: int = 0,
    captioner: CaptionerSettings = CaptionerSettings(),
    motion: MotionSettings = MotionSettings(),
) -> None:
    """Samples motions for the challenging persons of an extraction.

    Args:
        data: The data set that was extracted.
        extraction: Folder that ``posesyn extract`` wrote.
        out: Folder of this step; the motions, one AMASS-style npz each, are in its folder ``motions``.
        num_motions: Motions per person.
        seed: Decides the samples.
        captioner: A model that describes the challenging persons.
        motion: How motions are sampled.
    """
    from posesyn.pipeline.run import synthesize_into
    from posesyn.storage.ledger import RunLedger
    from posesyn.storage.reports import load_report

    report, captions = load_report(extraction, data.load()), data.load_captions()
    config = {
        "kind": "motions",
        "num_motions": num_motions,
        "seed": seed,
        "prior": str(motion.prior),
        "captions": captions,
        "extraction": dict(report.settings),
        **captioner.identity(),
        **motion.identity(),
    }
    asked, synthesizer = captioner.load(), motion.load()
    with RunLedger(out, config) as ledger:
        synthesize_into(out / "motions", ledger, synthesizer, report, num_motions, seed, captions, captioner=asked)
    print(f"motions for {len(report.challenging)} persons in {out / 'motions'}")


def render(
    motions: Path,
    out: Path,
    data: DataSettings | None = None,
    extraction: Path | None = None,
    backgrounds: Path | None = None,
    image_size: int = 256,
    frames: int | None = None,
    stride: int = 1,
    seed: int = 0,
) -> None:
    """Renders motions to labelled clips in tar shards.

    Args:
        motions: Folder of motion files (npz), or one BVH file.
        out: Folder of the clip store.
        data: With ``extraction``: the data set whose non-challenging persons lend their appearance.
        extraction: Folder that ``posesyn extract`` wrote.
        backgrounds: Folder of background photos.
        image_size: Side of the square frames in pixels.
        frames: At most so many frames per motion, around its anchor frame; all if not given.
        stride: Motion frames between two rendered ones.
        seed: Decides appearances, backgrounds and cameras.
    """
    from posesyn.data import motions as motion_files
    from posesyn.data.motions.bvh import bvh_to_motion
    from posesyn.pipeline.run import thin_motion
    from posesyn.storage.clip_writer import ClipWriter
    from posesyn.storage.reports import load_report
    from posesyn.synthesis.rendering.renderer import AnimationRenderer, clip_id

    if motions.is_dir():
        folder = motions / "motions" if (motions / "motions").is_dir() else motions
        found = [motion_files.load_motion(path) for path in sorted(folder.glob("*.npz"))]
    elif motions.is_file():
        found = [bvh_to_motion(motions)]
    else:
        raise FileError("there are no motions", where=motions, fix="name the folder that `posesyn synthesize` wrote")
    if not found:
        raise InputError("the folder holds no motion files", where=motions, expected="*.npz")
    found = [thin_motion(motion, frames or len(motion), stride) for motion in found]
    appearances = None
    if extraction is not None:
        if data is None:
            raise InputError("appearances need the data set", where="render", fix="give --data beside --extraction")
        appearances = load_report(extraction, data.load()).non_challenging
    renderer = AnimationRenderer("mesh", image_size=(image_size, image_size), backgrounds=backgrounds)
    by_id = {clip_id(motion.motion_id, seed): motion for motion in found}
    config = {
        "seed": seed,
        "image_size": image_size,
        "frames": frames,
        "stride": stride,
        "backgrounds": str(backgrounds),
        "extraction": str(extraction),
    }
    with ClipWriter(out, plan=list(by_id), config=config) as writer:
        todo = [by_id[name] for name in writer.pending()]
        for clip in renderer.render(todo, appearances=appearances, seed=seed):
            writer.write(clip)
    print(f"{len(found)} clips in {out}")


def filter(clips: Path, estimator: EstimatorSettings = EstimatorSettings(), quantile: float = 0.95) -> None:
    """Marks the frames that the paper's filter drops; the archives stay as they are.

    Args:
        clips: Folder of the clip store.
        estimator: The estimator that judges.
        quantile: The threshold is this quantile of the errors on these clips.
    """
    from posesyn.storage.clip_store import ClipStore
    from posesyn.synthesis.filtering.clip_filter import ClipFilter

    store = ClipStore(clips)
    store.reset_keep()  # filtering again starts from all frames
    rule = ClipFilter(estimator.load()).calibrate(store, quantile)
    result = rule.filter(store).run()
    print(f"kept {result['frames_kept']} of {result['frames']} frames, threshold {rule.threshold:.3f} m")


def train(
    data: DataSettings,
    clips: Path,
    out: Path,
    estimator: EstimatorSettings = EstimatorSettings(),
    settings: FineTuningSettings = FineTuningSettings(),
    seed: int = 0,
) -> None:
    """Fine-tunes an estimator on real persons and rendered clips.

    Args:
        data: The real data.
        clips: Folder of the clip store.
        out: Folder for the weights; an interrupted training continues from it.
        estimator: The estimator to train.
        settings: How it is trained.
        seed: Decides the order of the data.
    """
    from posesyn.data.persons.rendered import RenderedClips
    from posesyn.storage.clip_store import ClipStore
    from posesyn.training.estimators.fine_tuning import fine_tune

    weights = fine_tune(
        estimator.load(), data.load(), RenderedClips(ClipStore(clips)), out, settings, seed=seed, name="train"
    )
    print(f"weights: {weights}")


def report(data: DataSettings, extraction: Path, out: Path) -> None:
    """Writes the page of an extraction again.

    Args:
        data: The data set that was extracted.
        extraction: Folder that ``posesyn extract`` wrote.
        out: HTML file.
    """
    from posesyn.report import write_extraction_report
    from posesyn.storage.reports import load_report

    write_extraction_report(out, load_report(extraction, data.load()))
    print(f"report: {out}")


COMMANDS = {
    "demo": demo,
    "run": run,
    "extract": extract,
    "synthesize": synthesize,
    "render": render,
    "filter": filter,
    "train": train,
    "train_lifter": train_lifter,
    "train_poseaug": train_poseaug,
    "evaluate": evaluate,
    "evaluate_lifter": evaluate_lifter,
    "compare": compare,
    "report": report,
}
