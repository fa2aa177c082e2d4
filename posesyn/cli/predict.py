"""``posesyn predict``: pictures in, overlays and a table out."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from posesyn.cli import build
from posesyn.settings import EstimatorSettings

if TYPE_CHECKING:  # jsonargparse runs these imports too: nothing that loads torch
    from posesyn.types import Person


def predict(
    images: list[Path],
    out: Path = Path("runs/predict"),
    estimator: EstimatorSettings = EstimatorSettings("blazepose"),
    detector: str | None = None,
    keypoints: str | None = None,
    min_score: float = 0.0,
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Predicts everybody in your own pictures: posesyn predict a.jpg b.jpg FOLDER --estimator blazepose.

    Writes overlays/*.jpg (each person in a colour of its own), predictions.csv (a row per person) and predictions.npz
    (joints in metres, keypoints in pixels, cameras).

    Args:
        images: Pictures and folders of pictures; they may stand alone, without the option's name.
        out: Folder for the results; the tables of an earlier call are replaced, its overlays of other pictures stay.
        estimator: Who predicts: ``--estimator NAME``, with weights of your own ``--estimator.checkpoint FILE``.
        detector: Who finds persons (blazepose, blazepose_lite, blazepose_heavy, or 'my_module:make'); the estimator
            itself if it can, else the smallest BlazePose that was fetched.
        keypoints: A detector of 2D keypoints (movenet_thunder ...), for estimators that read them.
        min_score: Persons that the detector is less sure of are left out.
        device: Where networks run: auto, cpu, cuda, mps ...
        progress: Show progress.
    """
    from posesyn.detectors import find_persons, person_finder
    from posesyn.errors import InputError, PosesynError
    from posesyn.export import save_predictions
    from posesyn.progress import progress_over

    network = build.estimator_of(estimator, device)
    if network.spec.keypoints_skeleton is not None and keypoints is None:
        raise InputError(f"estimator '{network.spec.name}' reads 2D keypoints", where="posesyn predict",
                         fix="name a detector that finds them: --keypoints movenet_thunder")  # fmt: skip
    if out.exists() and not out.is_dir():
        raise InputError("the results need a folder", where="posesyn predict", got=f"--out {out}, a file",
                         fix="name another one")  # fmt: skip
    find, name = person_finder(detector, network, device)
    with warnings.catch_warnings():
        # Said below, one picture per line.
        warnings.filterwarnings("ignore", message=r"\d+ of \d+ pictures left out")
        found = find_persons(images, _Named(find, name), keypoints=keypoints, min_score=min_score, device=device,
                             progress=progress)  # fmt: skip
    groups: dict[str, list[Person]] = {}
    for person in found:
        groups.setdefault(person.image_id, []).append(person)
    persons, predictions, failed = [], [], []
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    files = _file_names(list(groups))
    for picture, group in progress_over(groups.items(), "predict", "picture", total=len(groups), shown=progress):
        try:
            predicted = _picture(network, group, out / "overlays" / files[picture])
        except PosesynError as error:  # one picture must not stop the others
            failed.append((picture, str(error)))
            continue
        except Exception as error:  # an estimator of the user's own may raise anything
            failed.append((picture, f"the estimator failed: {type(error).__name__}: {error}"))
            continue
        persons += group
        predictions.append(predicted)
    for picture, reason in (*found.skipped, *failed):
        print(f"left out: {picture}: {reason}")
    if not persons:
        raise InputError("nobody could be predicted", where="posesyn predict", got=failed[0][1])
    save_predictions(out, persons, predictions, network.spec.name)
    print(
        f"{len(persons)} persons in {len(predictions)} of {found.pictures} pictures, found by {name}, predicted by "
        f"{network.spec.name}\noverlays: {out / 'overlays'}\ntable: {out / 'predictions.csv'}, arrays: "
        f"{out / 'predictions.npz'}"
    )


class _Named:
    """A function of a picture under the name of the detector that it belongs to."""

    def __init__(self, find, name: str) -> None:
        self.detect_persons, self.name = find, name


def _picture(network, group: list[Person], path: Path):
    """The estimator's answer for the persons of one picture, drawn into a file."""
    from dataclasses import replace

    import numpy as np

    from posesyn.errors import InputError
    from posesyn.report.embedding import encode_image
    from posesyn.report.overlays import draw_predictions
    from posesyn.storage.files import write_bytes
    from posesyn.types import ArrayImage

    pixels = group[0].image.load()
    predicted = network.predict([replace(one, image=ArrayImage(pixels, one.image.name)) for one in group])
    if not (np.isfinite(predicted.joints_cam).all() and np.isfinite(predicted.keypoints_px).all()):
        raise InputError("the estimator answered with NaN or infinite values", where=group[0].image_id)
    drawn = draw_predictions(pixels, predicted, np.stack([one.body_box_xyxy for one in group]))
    write_bytes(path, encode_image(drawn, _OVERLAY_PX, 90))
    return predicted


_OVERLAY_PX = 1600  # longer side at most; our own choice


def _file_names(pictures: list[str]) -> dict[str, str]:
    """A file for each picture: its own name as jpg; with the whole path in it where two would be the same."""
    plain = {picture: Path(picture).stem for picture in pictures}
    count = Counter(plain.values())
    long = {picture: picture.strip("/").replace("/", "_") for picture in pictures}
    return {picture: f"{plain[picture] if count[plain[picture]] == 1 else long[picture]}.jpg" for picture in pictures}
