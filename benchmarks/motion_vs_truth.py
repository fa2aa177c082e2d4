"""How near synthesized motions come to the unknown true pose of persons on whom the estimator failed.

    python benchmarks/motion_vs_truth.py --data ../shared/data/cmu --cache runs/motion_vs_truth --noise 4

Mocap of the test subjects is rendered (style ``wild``, 192 px, random bodies, one camera per clip); the shipped
estimator looks at every person; the ``--challenging`` persons with the largest 2D error (``ErrorExtractor``) are kept.
Their 2D truth is COCO's 17 keypoints with ``--noise`` px of annotator noise.

PA-MPJPE over 22 joints in mm, to the true joints. The headline is the mean over **the frames that the pipeline
renders** of each motion by default (``AnimationRenderer.prepare``), for they are what an estimator is trained on. It is
set against **one constant pose**, which knows nothing of the person. Rows without motion:

* constant: the mean of the pose library's examples of the train split, each aligned to it;
* prediction: the estimator's own pose;
* lift: the best hypothesis of ``PoseFitter``, which has the 2D truth and the prediction.

Rows of motions, ``--samples`` per person, all with the caption of the person's capture:

* ours: ``steering="2d"``, the default;
* plain: the paper's way, ``steering="none"``;
* text only: motions sampled from the caption, without a pose.

Of each motion three errors are taken, in the same way for all: rendered (see above); anchor: the frame that the
synthesizer calls the anchor (for text only: that with the smallest reprojection error over all frames and 24 turns, by
the same ``reproject``), in whose choice the true pose plays no part; nearest: the smallest over the rendered frames,
chosen by the true pose (the kindest reading of the paper's "min").

"mean" is the mean over persons and samples, "best" the mean over persons of the smallest of their samples. Diversity is
the mean PA-MPJPE between two samples of one person (their anchor frames), and between two rendered frames of one
motion. CPU seconds per person are those of sampling, lifting and ranking (persons of one caption share the samples of
text only). Inverse kinematics, on which no figure here depends, is left out and timed apart.
Finished persons are kept in ``--cache``: started again after an interruption, the benchmark goes on with the next one.
What was measured with other options, weights or code of ``synthesis/motion`` counts as not measured.
The paper's figures, on other data: prediction 181.7, mean 209.3 (+15 %), best of N 140.8 (-22.5 %).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from posesyn import skeletons
from posesyn.body import load_body
from posesyn.body.inverse_kinematics import PoseFit, fit_pose
from posesyn.body.pose_fitting import PoseFitter
from posesyn.body.pose_library import shipped_library
from posesyn.data.motions.bvh import bvh_to_motion
from posesyn.data.persons.rendered import RenderedClips
from posesyn.demo.run import as_2d_annotation
from posesyn.estimators import load_estimator
from posesyn.geometry.procrustes import similarity_align
from posesyn.settings.stages import RenderingSettings
from posesyn.settings.synthesis import SynthesisSettings
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.clip_writer import ClipWriter
from posesyn.storage.files import read_json, write_json
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.extraction.extractor import ErrorExtractor
from posesyn.synthesis.motion import synthesizer as synthesizer_module
from posesyn.synthesis.motion.placement import reproject
from posesyn.synthesis.motion.prior.prior import SHIPPED
from posesyn.synthesis.motion.steering.steering import CAM_TO_WORLD
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer, clip_id
from posesyn.types import Motion, ScoredPerson

FRAMES, STRIDE, IMAGE, SHAPE_SPREAD = 5, 12, 192, 0.8
TURNS = tuple(np.linspace(0, 2 * np.pi, 24, endpoint=False))
KINDS = ("rendered", "anchor", "nearest")


def captures(data: Path, split: str, body) -> list[Motion]:
    """Mocap of the split's subjects, captioned."""
    files = set(json.loads((data / "split.json").read_text())["files"][split])
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    motions = []
    for row in tqdm([row for row in rows if row["file"] in files], desc=f"{split} captures", mininterval=10):
        found = bvh_to_motion(data / row["file"], body, source_fps=row["fps"], unit_to_m=row["unit_to_m"])
        own = [text for text, source in zip(row["captions"], row["caption_sources"]) if source != "kit-ml"]
        motions.append(replace(found, motion_id=row["id"], caption=(own or row["captions"])[0]))
    return motions


def clip_of(motions: Sequence[Motion], number: int, seed: int) -> Motion:
    """A few frames of one capture on a random body; captures take turns, long ones no more often than short ones."""
    motion = motions[number % len(motions)]
    rng = rng_of(seed, f"clip/{number}")
    span = (FRAMES - 1) * STRIDE + 1
    start = int(rng.integers(max(1, len(motion) - span + 1)))
    rows = np.arange(start, min(start + span, len(motion)), STRIDE)
    betas = rng.normal(0, SHAPE_SPREAD, 10).astype(np.float32)
    name = f"{motion.motion_id}/{number:04d}"
    return motion.take(rows, motion_id=name, betas=betas, joints_world=None, anchor_frame=None)


def render_pool(options: argparse.Namespace) -> ClipStore:
    """Clips of the split, kept in the cache."""
    folder = options.cache / f"{options.split}_{options.seed}"
    numbers = range(options.clips)
    config = {"split": options.split, "seed": options.seed, "clips": options.clips}
    plan_file = folder.with_suffix(".json")
    if plan_file.is_file() and json.loads(plan_file.read_text()) == config:
        return ClipStore(folder)
    motions = captures(options.data, options.split, load_body("anny", size="small"))
    clips = [clip_of(motions, number, options.seed) for number in numbers]
    renderer = AnimationRenderer("mesh", image_size=IMAGE, style="wild")
    names = {clip_id(clip.motion_id, options.seed): clip for clip in clips}
    with ClipWriter(folder, plan=list(names), config=config) as writer:
        todo = [names[name] for name in writer.pending()]
        stream = renderer.render(todo, seed=options.seed, progress=False)
        for clip in tqdm(stream, desc="render", total=len(todo), unit="clip", mininterval=10):
            writer.write(clip)
    plan_file.write_text(json.dumps(config))
    return ClipStore(folder)


def challenging(store: ClipStore, options: argparse.Namespace) -> tuple[list[ScoredPerson], np.ndarray, int]:
    """The persons with the largest 2D error, their true joints (N, 22, 3), and how many persons there were."""
    labelled = list(RenderedClips(store))
    persons = []
    for person in labelled:
        annotated = as_2d_annotation(person, options.noise, options.seed)
        persons.append(replace(annotated, captions=person.captions))
    truth = {person.person_id: person.labels.joints_cam[:22] for person in labelled}
    report = ErrorExtractor(
        load_estimator("hmr_small"), num_challenging=options.challenging, num_non_challenging=1
    ).extract(persons, progress=False)
    found = list(report.challenging)
    return found, np.stack([truth[scored.person.person_id] for scored in found]), len(persons)


def pa_mm(poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(..., 22, 3) and (22, 3) → (...,) mm."""
    poses, truth = torch.as_tensor(poses).double(), torch.as_tensor(truth).double()
    truth = truth.expand(poses.shape)
    return (similarity_align(poses, truth) - truth).norm(dim=-1).mean(-1).numpy() * 1000


@cache
def _renderer() -> AnimationRenderer:
    return AnimationRenderer(shape_spread=0)  # the frames that a run renders, on the body that the truth has


def measure_motion(motion: Motion, truth: np.ndarray) -> tuple[list[float], float]:
    """Errors of one motion in the order of ``KINDS``, and the mean distance between its rendered frames."""
    shown = _renderer().prepare(motion).joints_world
    rendered = pa_mm(shown, truth)
    anchor = float(pa_mm(motion.joints_world[motion.anchor_frame], truth))
    return [float(rendered.mean()), anchor, float(rendered.min())], mean_distance(shown)


def mean_distance(poses: np.ndarray) -> float:
    """Mean PA-MPJPE between two of the poses (N, 22, 3), 0 for a single one."""
    pairs = [pa_mm(poses[i + 1 :], poses[i]) for i in range(len(poses) - 1)]
    return float(np.concatenate(pairs).mean()) if pairs else 0.0


def constant_pose() -> np.ndarray:
    """(22, 3) mean of the shipped pose library, which is spread evenly over the train split, mirror images included."""
    poses = shipped_library().points[:, :22].double()
    mean = poses.mean(0)
    for _ in range(5):  # generalised Procrustes analysis; settles to 0.1 mm
        mean = similarity_align(poses, mean.expand_as(poses)).mean(0)
    return mean.numpy()


def positions_only(joints_world: np.ndarray, body, betas=None, **_) -> PoseFit:
    """In place of inverse kinematics: the figures are those of ``joints_world``, which it does not change."""
    return PoseFit(np.zeros((len(joints_world), 24, 3), np.float32), joints_world[:, 0], np.zeros(10, np.float32))


class TextOnly:
    """Motions of the caption alone, anchored where they reproject best. Persons of one caption share the samples."""

    def __init__(self, synthesizer: MotionSynthesizer, samples: int, seed: int) -> None:
        self.synthesizer, self.samples, self.seed = synthesizer, samples, seed
        self.sampled: dict[str, list[Motion]] = {}

    def __call__(self, scored: ScoredPerson) -> list[Motion]:
        caption = scored.person.captions[0]
        if caption not in self.sampled:
            frames = self.synthesizer.settings.max_frames
            self.sampled[caption] = self.synthesizer.from_captions([caption], self.samples, self.seed, frames)
        motions = self.sampled[caption]
        fits = reproject([motion.joints_world * CAM_TO_WORLD for motion in motions], scored.person, TURNS)
        return [
            replace(motion, anchor_frame=fit.frame if fit else len(motion) // 2)
            for motion, fit in zip(motions, fits or [None] * len(motions))
        ]


def work_folder(options: argparse.Namespace, persons: Sequence[ScoredPerson], truth: np.ndarray) -> Path:
    """Folder of the finished persons; its name depends on everything that the figures depend on."""
    used = asdict(SynthesisSettings()), asdict(RenderingSettings())
    digest = hashlib.sha256(json.dumps([options.samples, options.seed, used], default=str).encode())
    for path in [SHIPPED, *sorted(Path(synthesizer_module.__file__).parent.rglob("*.py")), Path(__file__)]:
        digest.update(path.read_bytes())
    for scored, true in zip(persons, truth):
        digest.update(scored.person.person_id.encode())
        digest.update(np.ascontiguousarray(scored.prediction.joints_cam).tobytes() + true.tobytes())
    return options.cache / "measured" / digest.hexdigest()[:16]


def measure_person(make: Callable[[ScoredPerson], list[Motion]], scored: ScoredPerson, true: np.ndarray) -> dict:
    """Errors (samples, kinds), diversity and CPU seconds of one person."""
    start = time.process_time()
    motions = [replace(m, anchor_frame=m.anchor_frame or 0) for m in make(scored)]
    seconds = time.process_time() - start
    anchors = np.stack([motion.joints_world[motion.anchor_frame] for motion in motions])
    errors, within = zip(*[measure_motion(motion, true) for motion in motions])
    return {
        "person_id": scored.person.person_id,
        "errors": errors,
        "diversity": mean_distance(anchors),
        "diversity_within": float(np.mean(within)),
        "seconds": seconds,
    }


def measure(
    name: str,
    make: Callable[[ScoredPerson], list[Motion]],
    persons: Sequence[ScoredPerson],
    truth: np.ndarray,
    constant: np.ndarray,
    folder: Path,
) -> dict:
    """Row of the table, set against the errors of the constant pose; finished persons lie in ``folder``."""
    found = []
    for number, (scored, true) in enumerate(tqdm(list(zip(persons, truth)), desc=name, mininterval=10)):
        path = folder / name.replace(" ", "_") / f"{number:04d}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, measure_person(make, scored, true))
        found.append(read_json(path))
    values = np.array([one["errors"] for one in found])  # (persons, samples, kinds)
    row: dict = {
        "name": name,
        "diversity_mm": float(np.mean([one["diversity"] for one in found])),
        "diversity_within_mm": float(np.mean([one["diversity_within"] for one in found])),
        "cpu_s_per_person": sum(one["seconds"] for one in found) / len(persons),
    }
    for kind, column in zip(KINDS, values.transpose(2, 0, 1)):
        row[kind] = summary(column, constant)
    return row


def summary(errors: np.ndarray, constant: np.ndarray) -> dict:
    """Of errors (persons, samples): the mean, and each person's best sample."""
    mean, best = errors.mean(1), errors.min(1)
    return {
        "mean_mm": float(mean.mean()),
        "best_mm": float(best.mean()),
        "mean_vs_constant": float(mean.mean() / constant.mean() - 1),
        "best_vs_constant": float(best.mean() / constant.mean() - 1),
        "standard_error_mm": [float(v.std(ddof=1) / np.sqrt(len(v))) for v in (mean, best)],
        "first_ranked_mm": float(errors[:, 0].mean()),
        "persons_nearer_than_constant": float((mean < constant).mean()),
    }


def print_row(row: dict) -> None:
    cells = [f"{row['name']:<10}"]
    for kind in KINDS:
        own = row[kind]
        cells.append(
            f"{own['mean_mm']:6.1f} ({own['mean_vs_constant']:+5.0%}) {own['best_mm']:6.1f} "
            f"({own['best_vs_constant']:+5.0%})"
        )
    within = f"{row['diversity_mm']:6.1f} {row['diversity_within_mm']:6.1f}"
    print(" | ".join(cells), f"| {within} | {row['cpu_s_per_person']:5.2f}", flush=True)


def without_motion(persons: Sequence[ScoredPerson], truth: np.ndarray) -> dict:
    """Errors (persons,) of the rows that need no motion; the lift's is NaN where a person cannot be fitted."""
    constant, fitter = constant_pose(), PoseFitter()
    found: dict = {"constant": [], "prediction": [], "lift": []}
    for scored, true in zip(persons, truth):
        prediction, fitted = scored.prediction, fitter.fit(scored)
        poses = {
            "constant": constant,
            "prediction": skeletons.convert(prediction.joints_cam[0], prediction.skeleton, "humanml3d22")[0],
            "lift": np.full((22, 3), np.nan) if fitted is None else fitted.points[0, :22],
        }
        for name, pose in poses.items():
            found[name].append(float(pa_mm(pose, true)) if np.isfinite(pose).all() else np.nan)
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cmu"))
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("runs/motion_vs_truth"),
        help="rendered clips, about 40 MB, and finished persons",
    )
    parser.add_argument("--json", default="motion_vs_truth.json", help="where the figures are written")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--clips", type=int, default=150, help=f"of {FRAMES} persons each")
    parser.add_argument("--challenging", type=int, default=200)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--noise", type=float, default=4.0, help="px of the 2D truth's joints, standard deviation")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    persons, truth, pool = challenging(render_pool(options), options)
    print(f"{len(persons)} challenging of {pool} persons, {options.split} subjects, {options.noise:g} px of noise;")
    print(f"2D error {persons[-1].error:.3f} to {persons[0].error:.3f}, seed {options.seed}; load average", end=" ")
    print(f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, 1 thread")
    plainly = without_motion(persons, truth)
    constant = plainly["constant"]
    for name, errors in plainly.items():
        own = errors[np.isfinite(errors)]
        spread, change = own.std(ddof=1) / np.sqrt(len(own)), own.mean() / constant[np.isfinite(errors)].mean() - 1
        print(f"{name:<10} | {own.mean():6.1f} ({change:+5.0%}), standard error {spread:.1f}, {len(own)} persons")
    print(f"{'mean, best':<10} | {'rendered':<31} | {'anchor':<31} | {'nearest':<31} | divers, within | CPU s")
    steered = MotionSynthesizer.from_pretrained()
    plain = MotionSynthesizer(steered.prior, replace(SynthesisSettings(), steering="none"), body=steered.body)
    samples, seed = options.samples, options.seed
    ways: dict[str, Callable[[ScoredPerson], list[Motion]]] = {
        "ours": lambda scored: steered.synthesize([scored], samples, seed, progress=False),
        "plain": lambda scored: plain.synthesize([scored], samples, seed, progress=False),
        "text only": TextOnly(plain, samples, seed),
    }
    synthesizer_module.fit_pose = positions_only
    rows, folder = [], work_folder(options, persons, truth)
    for name, make in ways.items():
        rows.append(measure(name, make, persons, truth, constant, folder))
        print_row(rows[-1])
    synthesizer_module.fit_pose = fit_pose
    some, true = persons[:: max(1, len(persons) // 5)][:5], truth[:: max(1, len(persons) // 5)][:5]
    start = time.process_time()
    for scored in some:
        steered.synthesize([scored], samples, seed, progress=False)
    kinematics = (time.process_time() - start) / len(some) - rows[0]["cpu_s_per_person"]
    print(f"inverse kinematics of {samples} motions: about {kinematics:.2f} CPU s per person ({len(true)} persons)")
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "split": options.split,
        "persons": len(persons),
        "pool": pool,
        "samples": samples,
        "seed": seed,
        "prior": steered.prior.name,
        "noise_px": options.noise,
        "without_motion_mm": {name: float(np.nanmean(errors)) for name, errors in plainly.items()},
        "rows": rows,
        "kinematics_cpu_s_per_person": kinematics,
    }
    Path(options.json).write_text(json.dumps(result, indent=1))
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
