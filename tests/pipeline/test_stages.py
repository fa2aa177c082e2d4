"""Single stages on a folder that somebody else has worked in."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from posesyn.body.pose_fitting import PoseFitter
from posesyn.body.pose_library import shipped_library
from posesyn.data.persons.lifted import BodyLabeller
from posesyn.detectors import CallableDetector
from posesyn.errors import InputError, RunError
from posesyn.interfaces import EstimatorSpec
from posesyn.pipeline import stages
from posesyn.settings import FilterSettings
from posesyn.settings.synthesis import FittingSettings
from posesyn.storage import ClipStore, ClipWriter
from posesyn.storage.files import read_json
from tests.factories import make_batch, make_clip, make_estimator, make_labelled, make_seen


def test_marks_that_were_changed_after_the_filter_are_used_and_said(tmp_path):
    with ClipWriter(tmp_path, plan=["a", "b"]) as writer:
        for name in ("a", "b"):
            writer.write(make_clip(name, frames=3))

    def filtered():
        settings = FilterSettings(rule="estimator", threshold=9.0)
        return stages.filter_clips(tmp_path, settings, estimator=make_estimator(), progress=False)

    first = len(filtered())
    assert len(filtered()) == first  # silently: warnings are errors here
    ClipStore(tmp_path).set_keep({"a": np.array([True, False, False])})
    with pytest.warns(UserWarning, match=r"marked otherwise since the filter.*filter\.json"):
        assert len(filtered()) == first - 2
    (tmp_path / stages.FILTERED).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(filtered()) == first


def drawn(folder, **fields):
    """A clip store as :func:`posesyn.pipeline.stages.render` leaves one."""
    config = {"kind": "clips", "layout": stages.LAYOUT, "rendering": fields}
    with ClipWriter(folder, plan=["a", "b"], config=config) as writer:
        for name in ("a", "b"):
            writer.write(make_clip(name, frames=3))
    return folder


def decided(folder, settings=None, **who):
    stages.filter_clips(folder, settings or FilterSettings(), device="cpu", progress=False, **who)
    return read_json(folder / stages.FILTERED)


def test_who_judges(tmp_path):
    estimator = make_estimator()
    detector = CallableDetector(lambda images, boxes: np.zeros((len(images), 17, 2)), name="corner")
    quick = FilterSettings(threshold=0.0)
    exact, photo = drawn(tmp_path / "exact", style="lab"), drawn(tmp_path / "photo", backend="diffusion")
    foreign = drawn(tmp_path / "foreign", backend_options={"class": "my.Backend"})
    # Labels of rendered meshes are exact: nobody has to judge them.
    assert decided(exact, estimator=estimator)["mode"] == "labels"
    assert decided(exact)["frames_kept"] == 6
    assert stages.describe_filter(exact, quick) == "The filter kept 6 of 6 frames, by their labels only"
    for folder in (photo, foreign):
        loose = FilterSettings(threshold=9.0)
        assert decided(folder, loose, estimator=estimator)["mode"] == "estimator"
        with pytest.raises(InputError, match="nobody judges"):
            decided(folder)
        assert decided(folder, replace(loose, rule="labels"))["mode"] == "labels"
    for rule in ("auto", "detector"):
        found = decided(exact, replace(quick, rule=rule), estimator=estimator, detector=detector)
        assert (found["mode"], found["judge"]) == ("detector", "corner")
    assert decided(exact, replace(quick, rule="estimator", threshold=9.0), estimator=estimator)["judge"] == "tiny"
    for rule, who, problem in (
        ("detector", {}, "needs a detector"),
        ("labels", {"detector": detector}, "asks no detector"),
        ("estimator", {"detector": detector}, "asks no detector"),
        ("estimator", {}, "nobody judges"),
    ):
        with pytest.raises(InputError, match=problem):
            decided(exact, replace(quick, rule=rule), **who)


def test_a_judge_is_calibrated_on_clips_of_its_own(tmp_path):
    folder, estimator = drawn(tmp_path / "clips"), make_estimator()
    settings = FilterSettings(rule="estimator", calibration_frames=3)
    found = decided(folder, settings, estimator=estimator)
    store = ClipStore(folder / stages.CALIBRATION)
    assert len(store) == 3 and store[0].frames.shape == (1, 48, 48, 3) and len(ClipStore(folder)) == 2
    assert found["calibration"]["frames"] == 3 and found["threshold"] == found["calibration"]["threshold"]
    line = stages.describe_filter(folder, settings)
    assert "by the estimator tiny, threshold" in line and "of 3 right labels, drops of wrong ones: " in line
    # Nothing of it depends on the clips that are filtered.
    other = tmp_path / "other"
    with ClipWriter(other, plan=["c"]) as writer:
        writer.write(make_clip("c", seed=7))
    assert decided(other, settings, estimator=estimator)["calibration"] == found["calibration"]
    # Decided once; another seed decides anew, and is refused where the pictures of before lie.
    before = (folder / stages.FILTERED).read_bytes()
    assert decided(folder, settings, estimator=estimator) and (folder / stages.FILTERED).read_bytes() == before
    with pytest.raises(RunError, match="seed"):
        decided(folder, replace(settings, calibration_seed=1), estimator=estimator)


class Standing:
    """Everybody stands; counts the persons whom it was asked for."""

    def __init__(self):
        self.spec, self.asked, self.fingerprint = EstimatorSpec("standing"), [], "1"

    def predict(self, persons):
        self.asked += [person.person_id for person in persons]
        return join([make_seen(POSE, POSE, person.person_id).prediction for person in persons])


POSE = shipped_library().points[20].double().numpy()


def join(batches):
    names = tuple(name for batch in batches for name in batch.person_ids)
    return make_batch(names, joints_cam=np.concatenate([batch.joints_cam for batch in batches]))


def test_lifting_goes_on_where_it_was_killed_and_gives_one_file(tmp_path, body, monkeypatch):
    monkeypatch.setattr(stages, "_LIFTED_AT_ONCE", 2)
    labeller = BodyLabeller(PoseFitter(settings=FittingSettings(starts=2, hypotheses=2, iterations=2)), body)
    persons = [make_seen(POSE, POSE, f"p{row}", noise=3.0, seed=row).person for row in range(4)]
    persons += [make_labelled(body, "truth"), make_seen(POSE, POSE, "few", hide=range(5, 13)).person]

    def lifted(where, estimator=None, given=persons):
        asked = {"estimator": estimator or Standing(), "labeller": labeller, "progress": False}
        return stages.lift_labels(given, tmp_path / where, **asked)

    straight, dies, goes_on = lifted("straight"), Standing(), Standing()
    made = labeller.labels

    def killed(scored):
        if scored.person.person_id == "p3":
            raise KeyboardInterrupt
        return made(scored)

    monkeypatch.setattr(labeller, "labels", killed)
    with pytest.raises(KeyboardInterrupt):
        lifted("killed", dies)
    monkeypatch.setattr(labeller, "labels", made)
    continued = lifted("killed", goes_on)
    assert goes_on.asked == ["p2", "p3", "few"] and continued.missed == straight.missed
    assert [name for name, _ in straight.missed] == ["few"] and len(straight.trust) == 4
    files = [{path.name for path in (tmp_path / where).glob("*.npz")} for where in ("straight", "killed")]
    assert files == [{stages.LIFTED}] * 2
    assert (tmp_path / "straight" / stages.LIFTED).read_bytes() == (tmp_path / "killed" / stages.LIFTED).read_bytes()
    for row in range(4):
        np.testing.assert_array_equal(straight[row].labels.joints_cam, continued[row].labels.joints_cam)
    again = Standing()
    lifted("killed", again)
    assert again.asked == []
    with pytest.raises(RunError, match="persons"):
        lifted("killed", given=persons[:3])
    with pytest.raises(InputError, match=r"no 2D truth could be lifted.*fewer than"):
        lifted("few", given=persons[4:])
