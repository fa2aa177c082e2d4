"""The demo on a user's own photographs: who is in them, where the estimator seems to fail, motions for these poses.

There is no 2D truth: another network's keypoints stand in for it, and page, table and console say so.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import report as reports
from posesyn.data.motions.amass import save_motion
from posesyn.detectors import FoundPersons, find_persons, load_detector, person_finder
from posesyn.detectors.persons import FINDERS
from posesyn.errors import FileError, PosesynError
from posesyn.estimators import load_estimator
from posesyn.interfaces import TargetEstimator
from posesyn.report import RunSummary
from posesyn.settings import ExtractionSettings, RenderingSettings, SynthesisSettings
from posesyn.storage.assets import ASSETS
from posesyn.storage.fetch import is_fetched
from posesyn.synthesis.extraction.extractor import ErrorExtractor
from posesyn.synthesis.filtering.judges import refuse_own_network
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer
from posesyn.types import Clip, ErrorReport, Motion

# Those whose keypoints stand in for the 2D truth, the better one first. BlazePose finds the persons.
KEYPOINTS = ("movenet_thunder", "movenet_lightning")
MOTIONS, EXTRACTION = "motions", "extraction"


@dataclass(frozen=True)
class PhotoSettings:
    """Sizes of the demo; all our own choice, so that 20 pictures take about a minute on two cores.

    Args:
        hardest: Persons that get motions.
        motions: Motions for each of them.
        shown: Persons on the page, of the hardest and again of the easiest.
        frames: Frames drawn of each person's best motion, 10 per second.
        image_size: Side of these frames in pixels.
    """

    hardest: int = 4
    motions: int = 2
    shown: int = 12
    frames: int = 24
    image_size: int = 192


@dataclass(frozen=True)
class PhotoDemo:
    """What was found.

    Attributes:
        found: The persons, easiest and hardest.
        persons: Everybody, and which pictures were left out.
        motions: For the hardest persons, best first for each.
        keypoints_by: Whose keypoints stand in for the 2D truth.
        report: The page.
        notes: What did not work, in words.
    """

    found: ErrorReport
    persons: FoundPersons
    motions: Sequence[Motion]
    keypoints_by: str
    report: Path
    notes: Sequence[str] = ()
    timings: Mapping[str, float] = field(default_factory=dict)


def run_photo_demo(
    photos: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: Path,
    seed: int = 0,
    estimator: TargetEstimator | None = None,
    progress: bool = True,
    sizes: PhotoSettings | None = None,
    device: str = "auto",
) -> PhotoDemo:
    """Writes ``report.html``, the ranking (``extraction/``) and the motions (``motions/``) into ``out``.

    Args:
        photos: A folder of pictures, or files.
        out: Made if it is missing; results of an earlier call are replaced.
        seed: Decides the motions and what is drawn.
        estimator: Whom to examine; None takes the smallest BlazePose that was fetched.
        progress: Show progress.
        sizes: Other sizes than the demo's own.
        device: Where everything runs.

    Raises:
        FileError: The networks were not fetched (the message says what to type), or ``photos`` holds no pictures.
        InputError: Nobody was found or could be scored, or the estimator is of the family of the network whose
            keypoints stand in for the truth.
    """
    sizes, timings = sizes or PhotoSettings(), {}
    judge_name = _check_fetched()
    judge = load_detector(judge_name, device=device)
    examined = estimator or load_estimator(_first(FINDERS), device=device)
    refuse_own_network(judge, examined, where="the demo on photographs")
    start = time.perf_counter()
    find, _ = person_finder(None, examined, device)
    with warnings.catch_warnings():
        # Said on the page and by the command line, picture by picture.
        warnings.filterwarnings("ignore", message=r"\d+ of \d+ pictures left out")
        persons = find_persons(photos, find, keypoints=judge, progress=progress)
    timings["find persons"] = time.perf_counter() - start
    start = time.perf_counter()
    settings = ExtractionSettings(num_challenging=sizes.shown, num_non_challenging=sizes.shown)
    found = ErrorExtractor(examined, settings).extract(persons, progress=progress)
    found.save(out / EXTRACTION)
    timings["extraction"] = time.perf_counter() - start
    notes = [f"left out: {name}: {reason}" for name, reason in found.skipped]
    motions: list[Motion] = []
    clips: list[Clip] = []
    for stage, made, run in (
        ("motions", motions, lambda: _motions(found, sizes, out, seed, device, progress)),
        ("clips", clips, lambda: _clips(motions, found, sizes, seed, device, progress)),
    ):
        start = time.perf_counter()
        notes += _into(made, run, stage)
        timings[stage] = time.perf_counter() - start
    result = PhotoDemo(found, persons, motions, judge_name, out / "report.html", notes, timings)
    _write_report(result, examined, clips, sizes, seed)
    return result


def _first(names: Sequence[str]) -> str:
    return next((name for name in names if is_fetched(ASSETS[name])), names[0])


def _check_fetched() -> str:
    """The detector of keypoints that is there; FileError that names all that is missing at once."""
    lacking = [names[0] for names in (FINDERS, KEYPOINTS) if not is_fetched(ASSETS[_first(names)])]
    if lacking:
        raise FileError(
            "the demo on photographs needs networks that are not on this machine", where="posesyn demo --photos",
            got=f"no {' and no '.join(lacking)}",
            fix="type " + " and ".join(f"`posesyn assets fetch {name}`" for name in lacking)
            + " (once; posesyn downloads nothing by itself)",
        )  # fmt: skip
    return _first(KEYPOINTS)


def _into(made: list[Any], run: Callable[[], Sequence[Any]], stage: str) -> list[str]:
    """Fills ``made``; what posesyn refuses (an estimator without limbs, say) is a note, and the page is written."""
    try:
        made += run()
    except PosesynError as error:
        return [f"no {stage}: {error}"]
    return []


def _motions(
    found: ErrorReport, sizes: PhotoSettings, out: Path, seed: int, device: str, progress: bool
) -> list[Motion]:
    settings = SynthesisSettings(num_motions=sizes.motions)
    synthesizer = MotionSynthesizer.from_pretrained(settings=settings, device=device)
    motions = synthesizer.synthesize(found.challenging[: sizes.hardest], seed=seed, progress=progress)
    folder = out / MOTIONS
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.npz"):
        path.unlink()
    for number, motion in enumerate(motions):
        save_motion(folder / f"{number:03d}.npz", motion)
    return motions


def _clips(
    motions: Sequence[Motion], found: ErrorReport, sizes: PhotoSettings, seed: int, device: str, progress: bool
) -> list[Clip]:
    """The best motion of each person, drawn."""
    settings = RenderingSettings(frames_per_motion=sizes.frames, max_drift=None, image_size=sizes.image_size)
    renderer = AnimationRenderer(settings=settings, device=device)
    best = {motion.person_id: motion for motion in reversed(motions)}
    prepared = [renderer.prepare(motion, seed) for motion in reversed(best.values())]
    return renderer.render(prepared, appearances=found.non_challenging, seed=seed, progress=progress).to_list()


def _write_report(
    result: PhotoDemo, examined: TargetEstimator, clips: Sequence[Clip], sizes: PhotoSettings, seed: int
) -> None:
    found, name = result.found, examined.spec.name
    scored = [one.person for one in found.scored]
    summary = RunSummary(
        title="posesyn on your photographs",
        subtitle=f"Where {name} seems to fail, and motions made for the poses of the hardest persons.",
        rows=[
            {
                "person": one.person.person_id,
                "error": f"{one.error:.3f}",
                "worst joint": one.worst_joint.replace("_", " "),
                "joints compared": int(np.sum(one.joint_used)),
                "found with": one.person.detection_score,
            }
            for one in found.scored[: sizes.shown]
        ],
        table_note=f"Distance between {name} and {result.keypoints_by}, in sizes of the person's box",
        funnel={
            "pictures": result.persons.pictures,
            "persons": len(result.persons),
            "scored": len(scored),
            "motions": len(result.motions),
        },
        error_series={name: np.array([one.error for one in found.scored])},
        error_unit="",
        worst=found.challenging[: sizes.shown],
        best=found.non_challenging[: sizes.shown],
        clips=clips,
        settings={"estimator": name, "2D truth": f"keypoints of {result.keypoints_by}", "seed": seed},
        timings=result.timings,
        notes=result.notes,
    )
    reports.write_run_report(result.report, summary)
