"""Cost and worth of the error extraction.

    python benchmarks/extraction.py [--json extraction.json] [--persons 5000] [--timed 5000] [--large 50000]
                                    [--size 128] [--threads 1] [--folder runs/bench_extraction]

1. Wall time of ``ErrorExtractor`` over rendered persons on disk against the bare forward passes of the same network on
   the same crops, made beforehand (the baseline; it reads no image and cuts no crop). Twice: SPIN's network, and the
   small shipped one, whose forward pass takes about as long as cutting the crops.
2. Peak memory of two data sets of different length, each in a process of its own: the persons of part 1 repeated under
   new names, an estimator that answers at once, ``keep="selected"``.
3. How well the 2D error finds the persons that are wrong in 3D (PA-MPJPE over 24 joints; exact labels of rendered
   persons, 2D truth with an annotator's noise of 1.5 px): Spearman correlation, and the share of the true worst tenth
   among the worst tenth by 2D error. For the paper's error and for each option.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pandas  # noqa: F401  (its import takes seconds and is not what is measured)
import torch
from scipy.stats import spearmanr

from posesyn import metrics
from posesyn.data import RenderedClips, crop_persons
from posesyn.demo.run import WILD, as_2d_annotation
from posesyn.estimators import HMR, load_estimator
from posesyn.interfaces import EstimatorSpec
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.clip_writer import ClipWriter
from posesyn.synthesis.extraction.extractor import ErrorExtractor
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer, clip_id
from posesyn.types import Person, PoseBatch

FRAMES = 10
NOISE_PX = 1.5


def rendered_persons(folder: Path, count: int, size: int, seed: int = 0) -> list[Person]:
    """2D persons (COCO's joints, noisy) with their exact labels, from clips that are rendered once."""
    texts = [text for part in WILD.values() for text in part]
    motions = -(-count // FRAMES)
    ids = [clip_id(f"bench/{row:05d}", seed) for row in range(motions)]
    with ClipWriter(folder, plan=ids, config={"seed": seed, "size": size}) as writer:
        pending = set(writer.pending())
        if pending:
            synthesizer = MotionSynthesizer.from_pretrained()
            made = synthesizer.from_captions(texts, num_motions=-(-motions // len(texts)), seed=seed, progress=False)
            rng = np.random.default_rng(seed)
            chosen = []
            for row in range(motions):
                motion = made[row]
                rows = np.linspace(0, len(motion) - 1, FRAMES).astype(int)
                step = max(int(np.diff(rows).min()), 1)
                rows = np.arange(FRAMES) * step
                betas = rng.normal(0, 0.8, 10).astype(np.float32)
                thin = motion.take(
                    rows[rows < len(motion)], motion_id=f"bench/{row:05d}", betas=betas, joints_world=None
                )
                if clip_id(thin.motion_id, seed) in pending:
                    chosen.append(thin)
            for clip in AnimationRenderer("mesh", image_size=size).render(chosen, seed=seed, progress=True):
                writer.write(clip)
    persons = []
    for person in RenderedClips(ClipStore(folder)):
        flat = as_2d_annotation(person, NOISE_PX, seed)
        hidden, present = np.ones(17, bool), flat.visible
        # The renderer labels every joint and knows which are hidden; an annotator would mark those.
        hidden[present] = False
        everything = as_2d_annotation(replace(person, visible=np.ones(45, bool)), NOISE_PX, seed)
        persons.append(replace(everything, labels=person.labels, occluded=hidden))
    return persons[:count]


def bench_time(persons: Sequence[Person], folder: Path, batch: int, network: str, turns: int) -> dict:
    """Part 1. The two are run in turns, so that other load on the machine meets both."""
    # Speed does not depend on the weights: SPIN's network is taken at random.
    estimator = HMR().eval() if network == "hmr" else load_estimator(network)
    crops = [crop_persons(persons[i : i + batch], estimator.spec).images for i in range(0, len(persons), batch)]
    warm = torch.from_numpy(crops[0])
    with torch.inference_mode():
        estimator(warm)
    bare, whole, cpu_bare, cpu_whole = [], [], [], []
    for turn in range(turns):
        start, cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for images in crops:
                estimator(torch.from_numpy(images))
        bare.append(time.perf_counter() - start)
        cpu_bare.append(time.process_time() - cpu)
        start, cpu = time.perf_counter(), time.process_time()
        extractor = ErrorExtractor(estimator, batch_size=batch, keep="selected")
        extractor.extract(persons, progress=False, out=folder / f"out_{network}_{os.getpid()}_{turn}")
        whole.append(time.perf_counter() - start)
        cpu_whole.append(time.process_time() - cpu)
    return {
        "network": network,
        "persons": len(persons),
        "bare_s": min(bare),
        "extractor_s": min(whole),
        "ratio": min(whole) / min(bare),
        "bare_cpu_s": min(cpu_bare),
        "extractor_cpu_s": min(cpu_whole),
        "persons_per_s": len(persons) / min(whole),
    }


class Instant:
    """Answers with the annotation, moved by an amount that depends on the name."""

    def __init__(self) -> None:
        self.spec = EstimatorSpec("instant", skeleton="coco17")

    def predict(self, persons: Sequence[Person]) -> PoseBatch:
        points = np.stack([person.keypoints_px for person in persons])
        points[:, 9] += np.array([[hash(person.person_id) % 40] for person in persons])
        cam = np.concatenate((points, np.ones_like(points[..., :1])), -1)
        return PoseBatch(tuple(person.person_id for person in persons), "coco17", cam, points)


class Repeated(Sequence[Person]):
    """A data set of any length: the same persons under new names."""

    def __init__(self, persons: Sequence[Person], count: int) -> None:
        self._persons, self.person_ids = persons, [f"r/{row:07d}" for row in range(count)]

    def __len__(self) -> int:
        return len(self.person_ids)

    def __getitem__(self, row: int) -> Person:
        return replace(self._persons[row % len(self._persons)], person_id=self.person_ids[row], labels=None)


def peak_memory(folder: Path, count: int) -> dict[str, float]:
    """Part 2, in the present process."""
    clips = RenderedClips(ClipStore(folder / "clips"))
    persons = [as_2d_annotation(person, NOISE_PX, 0) for person in clips[:200]]
    start = time.perf_counter()
    extractor = ErrorExtractor(Instant(), batch_size=64, keep="selected")
    report = extractor.extract(Repeated(persons, count), progress=False, out=folder / f"memory_{os.getpid()}_{count}")
    assert len(report.challenging) == 500
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"persons": count, "peak_mb": peak, "seconds": time.perf_counter() - start}


def bench_worth(persons: Sequence[Person]) -> list[dict[str, float | str]]:
    """Part 3."""
    estimator = load_estimator("hmr_small")
    predicted = np.concatenate(
        [estimator.predict(persons[i : i + 64]).joints_cam[:, :24] for i in range(0, len(persons), 64)]
    )
    truth = np.stack([person.labels.joints_cam[:24] for person in persons])
    true_error = dict(
        zip([p.person_id for p in persons], metrics.pa_mpjpe(predicted, truth, reduce="none").tolist(), strict=True)
    )
    variants = {
        "as in the paper (limbs, box)": {},
        "uniform weights": {"joint_weights": "uniform"},
        "area": {"normalizer": "area"},
        "keypoints": {"normalizer": "keypoints"},
        "torso": {"normalizer": "torso"},
        "hidden joints masked": {"occluded_weight": 0.0},
        "hidden joints half": {"occluded_weight": 0.5},
        "keypoints, hidden half": {"normalizer": "keypoints", "occluded_weight": 0.5},
    }
    rows = []
    for name, options in variants.items():
        report = ErrorExtractor(estimator, batch_size=64, **options).extract(persons, progress=False)
        errors = np.array([item.error for item in report.scored])
        true = np.array([true_error[item.person.person_id] for item in report.scored])
        tenth = max(len(true) // 10, 1)
        worst = set(np.argsort(-true, kind="stable")[:tenth].tolist())
        rows.append(
            {
                "error": name,
                "scored": len(true),
                "spearman": float(spearmanr(errors, true).statistic),
                "worst_tenth_found": len(worst & set(range(tenth))) / tenth,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="extraction.json", help="where the figures are written")
    parser.add_argument("--persons", type=int, default=5000)
    parser.add_argument("--timed", type=int, default=5000, help="persons for the large network of part 1")
    parser.add_argument("--large", type=int, default=50000)
    parser.add_argument("--size", type=int, default=128, help="side of the rendered pictures")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2, help="times of which the best counts")
    parser.add_argument("--parts", type=int, nargs="+", choices=(1, 2, 3), default=(1, 2, 3))
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_extraction"))
    parser.add_argument("--memory-only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.memory_only:
        print(json.dumps(peak_memory(options.folder, options.memory_only)))
        return
    persons = rendered_persons(options.folder / "clips", options.persons, options.size)
    print(f"{len(persons)} persons, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    timings = []
    for network, count in (("hmr", options.timed), ("hmr_small", len(persons))) if 1 in options.parts else ():
        timing = bench_time(persons[:count], options.folder, 64, network, options.turns)
        timings.append(timing)
        print(
            f"{network}, {timing['persons']} persons: bare forward {timing['bare_s']:.1f} s, extractor "
            f"{timing['extractor_s']:.1f} s: {timing['ratio']:.2f} x (CPU {timing['bare_cpu_s']:.1f} and "
            f"{timing['extractor_cpu_s']:.1f} s)",
            flush=True,
        )
    worth = bench_worth(persons) if 3 in options.parts else []
    if worth:
        print(f"{'error':<32}{'scored':>8}{'Spearman':>10}{'worst tenth':>13}")
    for row in worth:
        print(f"{row['error']:<32}{row['scored']:>8}{row['spearman']:>10.3f}{100 * row['worst_tenth_found']:>11.0f} %")
    memory = []
    for count in (options.persons, options.large) if 2 in options.parts else ():
        command = [sys.executable, __file__, "--folder", str(options.folder)]
        done = subprocess.run([*command, "--memory-only", str(count)], check=True, capture_output=True, text=True)
        memory.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{count:>8} persons: peak {memory[-1]['peak_mb']:.0f} MB, {memory[-1]['seconds']:.0f} s")
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load": os.getloadavg()[0],
        "timing": timings,
        "worth": worth,
        "memory": memory,
    }
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(f"\nwritten to {options.json}")


if __name__ == "__main__":
    main()
