"""The sub-commands ``evaluate`` and ``compare``: tables, files and plots of an evaluation."""

from __future__ import annotations

from pathlib import Path

from posesyn.cli.build import DataSettings, EstimatorSettings
from posesyn.settings.training import EvaluationSettings
from posesyn.storage.files import write_bytes, write_json


def evaluate(
    data: DataSettings,
    out: Path,
    estimator: EstimatorSettings = EstimatorSettings(),
    settings: EvaluationSettings = EvaluationSettings(),
) -> None:
    """Scores an estimator on labelled data by a named protocol.

    Args:
        data: Labelled data.
        out: Folder for evaluation.json, persons.parquet and the plots.
        estimator: The estimator to score.
        settings: Protocol and intervals.
    """
    from posesyn.evaluation.bodies import FittedBodies, load_regressor
    from posesyn.evaluation.results import text_table
    from posesyn.evaluation.scoring import evaluate as score
    from posesyn.report.embedding import encode_figure
    from posesyn.report.figures import pck_curve
    from posesyn.report.plots import error_histogram, joint_error_bars

    bodies = None if settings.bodies is None else FittedBodies(settings.bodies)
    regressor = None
    if settings.regressor is not None and bodies is not None:
        # The order of its joints is seen on the body, not believed.
        regressor = load_regressor(settings.regressor, bodies.body("neutral").v_template.numpy())
    result = score(
        estimator.load(),
        data.load(),
        settings.batch_size,
        protocol=settings.protocol,
        regressor=regressor,
        bodies=bodies,
        progress=True,
    )
    options = {"resamples": settings.resamples, "level": settings.level, "seed": settings.seed}
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

    rows = paired(load_evaluation(first), load_evaluation(second), resamples=resamples, seed=seed)
    print(text_table(rows))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            out, {"first": str(first), "second": str(second), "rows": rows, "resamples": resamples, "seed": seed}
        )
