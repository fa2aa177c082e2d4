"""``posesyn evaluate ...`` and ``posesyn compare``: tables, files and plots of an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from posesyn.cli import build
from posesyn.settings import DataSettings, EstimatorSettings, EvaluationSettings, LifterChoice, PosePairSettings


def evaluate_estimator(
    data: DataSettings,
    out: Path,
    estimator: EstimatorSettings = EstimatorSettings(),
    evaluation: EvaluationSettings = EvaluationSettings(),
    device: str = "auto",
) -> None:
    """Scores an estimator on labelled data by a named protocol.

    Args:
        data: Labelled data.
        out: Folder for evaluation.json, persons.parquet and the plots.
        estimator: The estimator to score.
        evaluation: Protocol and intervals.
        device: Where it runs: auto, cpu, cuda, mps ...
    """
    from posesyn.evaluation.bodies import FittedBodies, load_regressor
    from posesyn.evaluation.results import text_table
    from posesyn.evaluation.scoring import evaluate as score
    from posesyn.report.embedding import encode_figure
    from posesyn.report.figures import pck_curve
    from posesyn.report.plots import error_histogram, joint_error_bars
    from posesyn.storage.files import write_bytes

    bodies = None if evaluation.bodies is None else FittedBodies(evaluation.bodies)
    regressor = None
    if evaluation.regressor is not None and bodies is not None:
        # The order of its joints is seen on the body, not believed.
        regressor = load_regressor(evaluation.regressor, bodies.body("neutral").v_template.numpy())
    examined, persons, size = build.estimator_of(estimator, device), build.persons_of(data), evaluation.batch_size
    rules: dict[str, Any] = {"protocol": evaluation.protocol, "regressor": regressor, "bodies": bodies}
    result = score(examined, persons, size, progress=True, **rules)
    options: dict[str, Any] = {"resamples": evaluation.resamples, "level": evaluation.level, "seed": evaluation.seed}
    result.save(out, **options)
    name, unit = result.settings["estimator"], result.joint_unit
    plots = {
        "error_by_joint.svg": joint_error_bars({name: result.by_joint()}, unit),
        "pck_curve.svg": pck_curve({name: (result.joint_errors, result.joint_used)}, 150.0, unit),
    }
    first = next(iter(result.values))
    if first.endswith("[mm]"):
        plots["histogram.svg"] = error_histogram({name: result.values[first]}, "mm", xlabel=first.split()[0])
    for file, figure in plots.items():
        write_bytes(out / file, encode_figure(figure))
    print(f"protocol {result.settings['name']}: {result.protocol}")
    print(text_table(result.rows(**options)))
    if result.skipped:
        print(f"{len(result.skipped)} persons are no part of it, e.g. {result.skipped[0]}")
    print(f"result: {out}")


def evaluate_lifter(
    data: PosePairSettings,
    lifter: LifterChoice,
    flip: bool | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Scores a lifter on pose pairs: MPJPE, PA-MPJPE, PCK@150 and AUC.

    Args:
        data: Pose pairs; of Human3.6M S9 and S11 if no subjects are named. ``--data.format 3dhp`` reads PoseAug's
            MPI-INF-3DHP file.
        lifter: Checkpoint to score.
        flip: Average with the mirrored input. Not given: as published, with ``3dhp`` and not elsewhere.
        out: JSON file for the numbers.
        device: Where it runs: auto, cpu, cuda, mps ...
    """
    from posesyn.data.pose_pairs.h36m import TEST_SUBJECTS
    from posesyn.data.pose_pairs.sources import load_pairs
    from posesyn.errors import InputError
    from posesyn.geometry.devices import resolve_device
    from posesyn.storage.files import write_json
    from posesyn.training.lifters.lifter import score

    if lifter.checkpoint is None:
        raise InputError("there is no lifter to score", where="evaluate lifter", fix="give --lifter.checkpoint")
    if data.format == "h36m" and data.subjects is None:
        data = replace(data, subjects=list(TEST_SUBJECTS))
    network, pairs = build.lifter_of(lifter, 0).to(resolve_device(device)), load_pairs(data)
    flipped = data.format == "3dhp" if flip is None else flip
    numbers = score(network, pairs, flipped)
    print(f"{network.name}, {len(pairs)} poses{', averaged with the mirrored input' if flipped else ''}")
    print("  ".join(f"{label} {numbers[key]:.1f}" for key, label in _SCORES.items()))
    if out is not None:
        write_json(out, {"lifter": network.name, "poses": len(pairs), "flip": flipped, **numbers})


_SCORES = {"mpjpe": "MPJPE [mm]", "pa_mpjpe": "PA-MPJPE [mm]", "pck150": "PCK@150 [%]", "auc": "AUC [%]"}


def compare(first: Path, second: Path, out: Path | None = None, resamples: int = 10000, seed: int = 0) -> None:
    """Compares two evaluations of the same persons: paired test and interval over sequences.

    Args:
        first: Folder that ``posesyn evaluate`` wrote.
        second: Another one.
        out: JSON file for the table; printed only if not given.
        resamples: Draws of the bootstrap and of the test.
        seed: Decides the draws.
    """
    from posesyn.evaluation.results import compare as paired
    from posesyn.evaluation.results import load_evaluation, text_table
    from posesyn.storage.files import write_json

    rows = paired(load_evaluation(first), load_evaluation(second), resamples=resamples, seed=seed)
    print(text_table(rows))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        asked = {"resamples": resamples, "seed": seed}
        write_json(out, {"first": str(first), "second": str(second), "rows": rows, **asked})
