"""One function per stage: (input, settings, folder). A whole run and the single commands call these and nothing else.

Every stage writes into a folder of its own as it goes, so that it can be killed at any moment and continued by the same
call. A folder that was made with other settings is refused by the names of the settings.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from posesyn.data.motions.amass import load_motion, save_motion
from posesyn.data.persons.lifted import BodyLabeller, LiftedPersons, check_liftable, label_arrays, lift
from posesyn.data.persons.rendered import RenderedClips
from posesyn.errors import FileError, InputError
from posesyn.interfaces import Captioner, KeypointDetector, TargetEstimator
from posesyn.pipeline.calibration import calibration_clips
from posesyn.progress import ProgressBar
from posesyn.settings.base import identity
from posesyn.settings.stages import ExtractionSettings, FilterSettings, RenderingSettings
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.storage.checkpoints import fingerprint
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.clip_writer import ClipWriter
from posesyn.storage.files import read_json, read_npz, write_json, write_npz
from posesyn.storage.ledger import Finished, RunLedger
from posesyn.storage.reports import load_report
from posesyn.synthesis.extraction.extractor import ErrorExtractor, crop_rule, estimator_fingerprint
from posesyn.synthesis.filtering.calibration import Calibration
from posesyn.synthesis.filtering.clip_filter import ClipFilter
from posesyn.synthesis.filtering.judges import refuse_own_network
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer, clip_id
from posesyn.types import ErrorReport, Motion, Person, ScoredPerson, batched

FILTERED, CALIBRATION, LIFTED = "filter.json", "calibration", "lifted.npz"
LAYOUT = 3  # of run folders; changed where a folder of before would go on as another run
_PERSONS_AT_ONCE, _LIFTED_AT_ONCE = 16, 64  # saved together; our own choice


def extract(
    persons: Sequence[Person],
    settings: ExtractionSettings,
    folder: Path,
    *,
    estimator: TargetEstimator,
    others: Sequence[TargetEstimator] = (),
    progress: bool = True,
) -> ErrorReport:
    """Scores all persons and picks both ends.

    Args:
        persons: The 2D data set.
        folder: For the table, the selected predictions and the resume.
        estimator: The frozen estimator.
        others: Further estimators, whose disagreement is written down.

    Raises:
        InputError: Nobody can be scored. RunError: The folder holds another extraction, or too many images are damaged.
    """
    ErrorExtractor(estimator, settings, others=others).extract(persons, progress=progress, out=folder)
    # Read back: what the next stage gets does not depend on whether this one was resumed.
    return load_report(folder, persons)


def synthesize(
    report: ErrorReport,
    settings: SynthesisSettings,
    folder: Path,
    *,
    seed: int = 0,
    synthesizer: MotionSynthesizer | None = None,
    captions: Mapping[str, str] | None = None,
    captioner: Captioner | None = None,
    source: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: bool = True,
) -> list[Motion]:
    """Motions for the challenging persons, best first per person, one npz each; saved person by person.

    Args:
        report: What :func:`extract` found.
        folder: For the motion files.
        seed: Decides the samples.
        synthesizer: Made from ``settings`` if not given; of a given one its own settings count, and of ``settings``
            the number of motions.
        captions: person_id → text, which wins over the captioner and the data set.
        captioner: Describes the persons without a text in ``captions``.
        source: What identifies the captioner, for the check that a continued folder is the same.
        device: Where a synthesizer that is made here runs.
    """
    made = synthesizer or MotionSynthesizer.from_pretrained(settings=settings, device=device)
    found = {scored.person.person_id: scored for scored in report.challenging}
    texts = {name: text for name, text in (captions or {}).items() if name in found}
    config = {
        "kind": "motions",
        "layout": LAYOUT,
        "seed": seed,
        "synthesis": identity(replace(made.settings, num_motions=settings.num_motions)),
        "prior": fingerprint(made.prior),
        "captions": texts,
        "extraction": dict(report.settings),
        **(source or {}),
    }
    with RunLedger(folder, config) as ledger:
        ledger.plan("motions", list(found))
        pending = ledger.pending("motions")
        order = {name: row for row, name in enumerate(found)}
        done = len(found) - len(pending)
        with ProgressBar(len(found), "synthesize", "person", initial=done, shown=progress) as bar:
            for names in batched(pending, _PERSONS_AT_ONCE):
                chosen, words = [found[name] for name in names], [texts.get(name) for name in names]
                motions = made.synthesize(chosen, settings.num_motions, seed, words, False, captioner)
                for name in names:
                    for rank, motion in enumerate(motion for motion in motions if motion.person_id == name):
                        save_motion(folder / f"{order[name]:06d}_{rank:03d}.npz", motion)
                    ledger.commit("motions", [Finished(name, f"{order[name]:06d}_*.npz", "")])
                bar.update(len(names))
    return load_motions(folder)


def load_motions(folder: Path) -> list[Motion]:
    """The motion files (``*.npz``) of a folder, in order.

    Raises:
        FileError: There is no such folder. InputError: It holds no motion.
    """
    if not folder.is_dir():
        raise FileError("there are no motions", where=folder, fix="name the folder that `posesyn synthesize` wrote")
    motions = [load_motion(path) for path in sorted(folder.glob("*.npz"))]
    if not motions:
        raise InputError("the folder holds no motion files", where=folder, expected="*.npz")
    return motions


def render(
    motions: Sequence[Motion],
    settings: RenderingSettings,
    folder: Path,
    *,
    seed: int = 0,
    renderer: AnimationRenderer | None = None,
    appearances: Sequence[ScoredPerson] = (),
    device: str = "auto",
    progress: bool = True,
) -> ClipStore:
    """Labelled clips of the motions in tar shards.

    Args:
        motions: World frame; which of their frames are drawn, and on which body, the settings say.
        folder: Of the clip store.
        seed: Decides bodies, appearances, backgrounds and cameras.
        renderer: Made from ``settings`` if not given; of a given one its own settings count.
        appearances: Persons that lend their appearance, as a rule the report's non-challenging ones.
        device: Where a renderer that is made here runs.
    """
    made = renderer or AnimationRenderer(settings=settings, device=device)
    by_id = {clip_id(motion.motion_id, seed): motion for motion in motions}
    lenders = "\n".join(scored.person.person_id for scored in appearances)
    config = {
        "kind": "clips",
        "layout": LAYOUT,
        "seed": seed,
        "rendering": made.identity(),
        "appearances": hashlib.sha256(lenders.encode()).hexdigest(),
    }
    with ClipWriter(folder, plan=list(by_id), config=config) as writer:
        pending = [made.prepare(by_id[name], seed) for name in writer.pending()]
        for clip in made.render(pending, appearances=appearances, seed=seed, progress=progress):
            writer.write(clip)
    return ClipStore(folder)


def judge_identity(judge: TargetEstimator | KeypointDetector) -> list[Any]:
    """What a continued run must find unchanged of the filter's judge: its name, its weights and how it crops."""
    named = getattr(judge, "spec", judge)
    return [getattr(named, "name", type(judge).__name__), estimator_fingerprint(judge), crop_rule(judge)]


def check_rule(rule: str, detector: KeypointDetector | None, improves: TargetEstimator | None = None) -> None:
    """What can be known of a filter's rule before anything is rendered.

    Raises:
        InputError: A rule that needs a detector without one, a detector that the rule does not ask, or one that is the
            network which is improved.
    """
    if rule == "detector" and detector is None:
        fix = "name one (--detector movenet_thunder), or take another rule"
        raise InputError("the filter's rule 'detector' needs a detector", where="filtering.rule", fix=fix)
    if rule in ("labels", "estimator") and detector is not None:
        fix = "leave the detector out, or take the rule 'auto' or 'detector'"
        raise InputError(f"the filter's rule '{rule}' asks no detector", where="filtering.rule", fix=fix)
    if detector is not None and improves is not None:
        refuse_own_network(detector, improves)


def filter_clips(
    folder: Path,
    settings: FilterSettings,
    *,
    estimator: TargetEstimator | None = None,
    detector: KeypointDetector | None = None,
    device: str = "auto",
    progress: bool = True,
) -> RenderedClips:
    """Marks the frames that the filter drops, in the clip store itself, and returns the kept ones as labelled persons.

    The archives stay as they are. What was decided stands in ``filter.json`` beside them; the same call on the same
    clips decides nothing again, and any other call starts from all frames. Marks that were changed in between are used,
    with a warning. The clips for the calibration of a judge are rendered into ``calibration`` beside the shards.

    Args:
        folder: Of the clip store.
        settings: Who judges (``rule``), and what is kept.
        estimator: The estimator that is trained on what is kept; it judges where the rule is its own, or ``auto`` meets
            pictures that are no rendered meshes and there is no detector.
        detector: The detector that judges.
        device: Where the clips for the calibration are rendered.

    Raises:
        InputError: Nobody judges whom the rule asks for, or the detector is the network that is improved.
    """
    check_rule(settings.rule, detector, estimator)
    rule = settings.rule
    if rule == "auto":
        rule = "detector" if detector is not None else "labels" if _labels_are_exact(folder) else "estimator"
    judge = detector if rule == "detector" else estimator if rule == "estimator" else None
    if rule == "estimator" and judge is None:
        problem = "nobody judges whether the pictures show what their labels say"
        fix = "give a detector or the estimator, or filtering.rule 'labels' if the labels are exact"
        raise InputError(problem, where=folder, fix=fix)
    filtering = ClipFilter(judge, replace(settings, rule=rule))
    store = ClipStore(folder)
    asked = {
        "filtering": identity(filtering.settings),
        "judge": None if judge is None else judge_identity(judge),
        "clips": [(header.clip_id, sorted(header.crc32.items())) for header in map(store.header, range(len(store)))],
    }
    wanted = hashlib.sha256(repr(asked).encode()).hexdigest()
    path = folder / FILTERED
    decided = read_json(path) if path.exists() else {}
    if decided.get("asked") != wanted:
        path.unlink(missing_ok=True)
        store.reset_keep()  # also what a filter has marked that was killed half-way
        if judge is not None and settings.threshold is None:
            _, height, width = store.header(0).shape
            frames, seed = settings.calibration_frames, settings.calibration_seed
            drawn: dict[str, Any] = {"frames": frames, "seed": seed, "device": device, "progress": progress}
            trusted = calibration_clips(folder / CALIBRATION, (height, width), **drawn)
            filtering = filtering.calibrate(trusted, seed=seed)
        with ProgressBar(len(store), "filter", "clip", shown=progress) as bar:
            statistics = filtering.filter(store).run(lambda _: bar.update(1))
        name = "" if judge is None else judge_identity(judge)[0]
        write_json(path, {"asked": wanted, "marks": _marks(store), "judge": name, **statistics})
    elif "marks" in decided and decided["marks"] != _marks(store):
        warnings.warn(
            f"frames of {folder} were marked otherwise since the filter decided; these marks are used. "
            f"Remove {FILTERED} to filter anew",
            stacklevel=2,
        )
    return RenderedClips(ClipStore(folder))


def describe_filter(folder: Path, settings: FilterSettings) -> str:
    """One line about what :func:`filter_clips` decided in a folder."""
    found = read_json(folder / FILTERED)
    kept = f"The filter kept {found['frames_kept']} of {found['frames']} frames"
    if found["mode"] == "labels":
        return f"{kept}, by their labels only"
    unit = "m" if found["mode"] == "estimator" else settings.measure.upper()
    line = f"{kept}, by the {found['mode']} {found['judge']}, threshold {found['threshold']:.3f} {unit}"
    calibration = found.get("calibration")
    return line if calibration is None else f"{line}, which {Calibration(**calibration).describe()}"


def _labels_are_exact(folder: Path) -> bool:
    """Whether the clips are meshes that :func:`render` drew with the backend of posesyn."""
    path = folder / "config.json"
    drawn = read_json(path).get("rendering") if path.exists() else None
    return drawn is not None and "backend" not in drawn and "class" not in drawn.get("backend_options", {})


def lift_labels(
    persons: Sequence[Person],
    folder: Path,
    *,
    estimator: TargetEstimator,
    labeller: BodyLabeller | None = None,
    progress: bool = True,
) -> LiftedPersons:
    """The data set with lifted labels for those who have none (:mod:`posesyn.data.persons.lifted`).

    They stand in ``lifted.npz``, until that is whole in parts of 64 persons beside it.

    Args:
        persons: The data set.
        folder: For the file and the resume.
        estimator: Its predictions help to choose among poses that fit the picture alike.
        labeller: Makes the labels; the default one if not given.

    Raises:
        InputError: Nobody can be lifted. RunError: The folder holds the labels of other persons or another estimator.
    """
    check_liftable(persons, estimator)
    made = labeller or BodyLabeller()
    ids = "\n".join(persons[row].person_id for row in range(len(persons)))
    config = {
        "kind": "lifted",
        "estimator": estimator.spec.name,
        "estimator_fingerprint": estimator_fingerprint(estimator),
        "crop": crop_rule(estimator),
        "fitting": identity(made.fitter.settings),
        "persons": hashlib.sha256(ids.encode()).hexdigest(),
    }
    path = folder / LIFTED
    with RunLedger(folder, config) as ledger:
        if not path.exists():
            ledger.plan("lift", [f"{start:08d}" for start in range(0, len(persons), _LIFTED_AT_ONCE)])
            pending = ledger.pending("lift")
            done = len(persons) if not pending else int(pending[0])
            with ProgressBar(len(persons), "lift", "person", initial=done, shown=progress) as bar:
                for name in pending:
                    start = int(name)
                    rows = range(start, min(start + _LIFTED_AT_ONCE, len(persons)))
                    chunk = [persons[row] for row in rows]
                    arrays = label_arrays(lift(chunk, estimator, made), chunk, start)
                    digest = write_npz(folder / f"part_{name}.npz", arrays)
                    ledger.commit("lift", [Finished(name, f"part_{name}.npz", digest)])
                    bar.update(len(chunk))
            parts = [read_npz(folder / f"part_{name}.npz") for name in ledger.planned("lift")]
            write_npz(path, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        for part in folder.glob("part_*.npz"):
            part.unlink()
    found = LiftedPersons(persons, read_npz(path))
    if not len(found.trust):
        got = f"{len(found.missed)} persons, the first because {found.missed[0][1]}"
        raise InputError("no 2D truth could be lifted", where=folder, got=got, fix="leave lifted labels out")
    return found


def _marks(store: ClipStore) -> str:
    """Which frames of a store are kept, as a hash."""
    return hashlib.sha256(b"".join(store.labels(row)["keep"].tobytes() for row in range(len(store)))).hexdigest()
