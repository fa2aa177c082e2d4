"""What the filter's rules make of right and of wrong labels.

    python benchmarks/filtering.py [--cache runs/filtering] [--rules labels hmr_small movenet_lightning movenet_thunder]
        [--clips 100] [--wrong 0.2] [--seed 100] [--json filtering.json]

Motions are sampled from the shipped prior with the demo's captions of sports and dance and rendered as a run does. A
share of their frames gets labels that are wrong, in five ways in turn (``synthesis/filtering/calibration.py``). Each
rule is calibrated as in a run, on other poses, looks and seeds. One line per rule:

* right kept: frames with right labels that pass; hardest: the same of the quarter of them on which ``hmr_small`` errs
  most, which it should learn from;
* wrong dropped: frames with wrong labels that do not pass, all and by kind;
* wrong left: their share among the frames that pass (without a filter ``--wrong``).

The baseline of a judge is the rule of before: its threshold is the 95 % quantile of its own values on the frames that
are filtered. "labels" looks at nobody's answer and drops what cannot be (a person outside the image).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from posesyn.demo.run import WILD
from posesyn.detectors import load_detector
from posesyn.estimators import load_estimator
from posesyn.pipeline.calibration import calibration_clips
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.clip_writer import ClipWriter
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.filtering.calibration import WRONG_LABELS, wrong_labels
from posesyn.synthesis.filtering.clip_filter import ClipFilter
from posesyn.synthesis.filtering.judges import label_problems
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer, clip_id
from posesyn.types import Clip

FRAMES, IMAGE, RIGHT = 4, 256, "right"
HARDNESS = "hmr_small"


def pool(folder: Path, count: int, seed: int) -> list[Clip]:
    """Clips of the prior's motions, as a run draws them; kept in the cache."""
    ids = [clip_id(f"filtering/{number:04d}", seed) for number in range(count)]
    config = {"kind": "benchmark of the filter", "seed": seed, "clips": count}
    with ClipWriter(folder, plan=ids, config=config) as writer:
        if pending := set(writer.pending()):
            texts = [text for group in WILD.values() for text in group]
            each = -(-count // len(texts))
            sampled = MotionSynthesizer.from_pretrained().from_captions(texts, num_motions=each, seed=seed)
            motions = [sampled[row * each + turn] for turn in range(each) for row in range(len(texts))][:count]
            named = [replace(one, motion_id=f"filtering/{number:04d}") for number, one in enumerate(motions)]
            renderer = AnimationRenderer(image_size=IMAGE, frames_per_motion=FRAMES)
            todo = [renderer.prepare(one, seed) for one in named if clip_id(one.motion_id, seed) in pending]
            for clip in renderer.render(todo, seed=seed):
                writer.write(clip)
    # A wrong label is made of a possible one.
    clips = list(ClipStore(folder))
    return [replace(clip, keep=np.array([one is None for one in label_problems(clip)])) for clip in clips]


def injected(clips: Sequence[Clip], share: float, seed: int) -> tuple[list[Clip], list[list[str]]]:
    """The clips with a share of wrong labels, and what each frame's label is."""
    spoilt = {kind: wrong_labels(clips, kind, seed) for kind in WRONG_LABELS}
    places = [(row, int(frame)) for row, clip in enumerate(clips) for frame in np.flatnonzero(clip.keep)]
    order = rng_of(seed, "which labels are wrong").permutation(len(places))
    kinds = [[RIGHT] * len(clip) for clip in clips]
    arrays = [
        {name: getattr(clip, name).copy() for name in ("joints_cam", "keypoints_px", "visible", "mask")}
        for clip in clips
    ]
    wanted, names = round(share * len(places)), list(WRONG_LABELS)
    for row, frame in (places[number] for number in order):
        made = sum(kind != RIGHT for clip in kinds for kind in clip)
        kind = names[made % len(names)]
        if made == wanted:
            break
        if spoilt[kind][row].keep[frame]:
            kinds[row][frame] = kind
            for name, values in arrays[row].items():
                values[frame] = getattr(spoilt[kind][row], name)[frame]
    return [replace(clip, **changed) for clip, changed in zip(clips, arrays)], kinds


def measured(keep: np.ndarray, kinds: np.ndarray, hard: np.ndarray) -> dict[str, float]:
    """Shares of frames."""
    right = kinds == RIGHT
    row = {"right_kept": keep[right].mean(), "hardest_kept": keep[right & hard].mean()}
    row |= {"wrong_dropped": 1 - keep[~right].mean(), "wrong_left": (~right)[keep].mean()}
    return {name: float(value) for name, value in row.items()} | {
        kind: float(1 - keep[kinds == kind].mean()) for kind in WRONG_LABELS
    }


def main() -> None:
    """Prints one row per rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("runs/filtering"))
    parser.add_argument("--rules", nargs="+", default=["labels", "hmr_small", "movenet_lightning", "movenet_thunder"])
    parser.add_argument("--clips", type=int, default=100, help=f"of {FRAMES} frames each")
    parser.add_argument("--wrong", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = pool(options.cache / f"{options.seed}_{options.clips}", options.clips, options.seed)
    mixed, labels = injected(clips, options.wrong, options.seed)
    trusted = calibration_clips(options.cache / "calibration", (IMAGE, IMAGE))
    kept = np.concatenate([clip.keep for clip in clips])
    kinds = np.concatenate([np.array(one) for one in labels])[kept]
    shipped = ClipFilter(load_estimator(HARDNESS, device="cpu"))
    errors = np.concatenate([shipped.decide(clip)[1].values for clip in clips])[kept]
    hard = errors >= np.quantile(errors[kinds == RIGHT], 0.75)
    rows = {}
    for name in options.rules:
        detects = name.startswith("movenet") or name == "vitpose"
        judge = None if name == "labels" else load_detector(name) if detects else load_estimator(name)
        start = time.process_time()
        rule = ClipFilter(judge) if judge is None else ClipFilter(judge).calibrate(trusted)
        calibrated = time.process_time() - start
        decided = [rule.decide(clip) for clip in mixed]
        cost = (time.process_time() - start - calibrated) / len(kinds)
        keep = np.concatenate([one for one, _ in decided])[kept]
        rows[name] = {"threshold": rule.threshold, "calibration_s": calibrated, "s_per_frame": cost}
        rows[name] |= measured(keep, kinds, hard)
        if judge is not None:
            values = np.concatenate([one.values for _, one in decided])[kept]
            bound = np.nanquantile(values, 0.05 if detects else 0.95)
            before = values >= bound if detects else values <= bound
            rows[f"{name}, as before"] = {"threshold": float(bound)} | measured(before, kinds, hard)
    columns = ["right_kept", "hardest_kept", "wrong_dropped", "wrong_left", *WRONG_LABELS]
    print(f"{len(kinds)} frames, {(kinds != RIGHT).sum()} with wrong labels\n{'rule':<28}", *columns, sep=" | ")
    for name, row in rows.items():
        print(f"{name:<28}", *(f"{100 * row[one]:{len(one)}.0f}" for one in columns), sep=" | ", end="")
        seconds = f", {row['s_per_frame']:.3f} s per frame" if "s_per_frame" in row else ""
        print(f" | threshold {row['threshold']:.3f}{seconds}")
    if options.json is not None:
        about = {"frames": len(kinds), "wrong": options.wrong, "clips": options.clips, "seed": options.seed}
        options.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
