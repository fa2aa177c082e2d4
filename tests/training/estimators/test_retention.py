from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from posesyn import CallableEstimator
from posesyn.data.batches import collate, training_sample
from posesyn.data.persons.rendered import RenderedClips
from posesyn.errors import DivergenceError, InputError
from posesyn.estimators.hmr import HMR
from posesyn.estimators.losses import scale_penalty
from posesyn.settings.training import FineTuningSettings
from posesyn.storage.checkpoints import load_weights
from posesyn.training import fine_tune
from posesyn.training.estimators.module import PoseEstimatorModule
from posesyn.training.estimators.retention import Teacher, between
from tests.factories import joint_loss, make_estimator, make_labelled

FEW = FineTuningSettings(steps=3, batch_size=4, learning_rate=1e-2, checkpoint_every=1)


@pytest.fixture
def persons(make_clip) -> RenderedClips:
    return RenderedClips([make_clip("a"), make_clip("b", seed=1)])


@pytest.fixture
def batch(body):
    """Six persons of 2D data, as HMR sees them."""
    one = make_labelled(body, box_xyxy=np.array([4, 4, 28, 28]))
    spec = HMR.small().spec
    return collate([training_sample(replace(one, person_id=f"p{i}", labels=None), spec) for i in range(6)])


def told(model, batch):
    """The batch with the model's own projection as its 2D truth: it is right everywhere."""
    points = model.pseudo_labels(batch)["joints_norm"].detach()
    return {**batch, "keypoints_norm": points, "visible": torch.ones_like(batch["visible"])}


def test_the_teacher_labels_who_it_is_right_about(batch):
    model = HMR.small().eval()
    right = told(model, batch)
    completed = Teacher(model, reach=0.05).complete(right)
    own = model.pseudo_labels(batch)
    assert completed["has_labels"].all() and not right["has_labels"].any()
    for name in ("pose_rotmat", "betas", "joints", "transl_cam", "intrinsics"):
        torch.testing.assert_close(completed[name], own[name].detach())
    # Wrong by half the crop: exp(-10).
    wrong = {**right, "keypoints_norm": right["keypoints_norm"] + torch.tensor([1.0, 0.0])}
    assert not Teacher(model, reach=0.05).complete(wrong)["has_labels"].any()
    # Nobody can say that it is right.
    blind = {**right, "visible": torch.zeros_like(right["visible"])}
    assert not Teacher(model).complete(blind)["has_labels"].any()


def test_trust_is_drawn_in_proportion_and_again_the_same(batch):
    model = HMR.small().eval()
    right = told(model, batch)
    # A mean error of reach * ln 2 of the crop, whose width is 2: every second one is trusted.
    off = {**right, "keypoints_norm": right["keypoints_norm"] + torch.tensor([2 * 0.05 * np.log(2), 0.0]).float()}
    teacher = Teacher(model, reach=0.05, seed=3)
    counts = [int(teacher.complete({**off, "batch_index": n})["has_labels"].sum()) for n in range(40)]
    assert 0.4 < sum(counts) / 240 < 0.6
    assert counts == [int(Teacher(model, 1.0, 0.05, 3).complete({**off, "batch_index": n})["has_labels"].sum())
                      for n in range(40)]  # fmt: skip
    assert sum(int(Teacher(model, 0.5, seed=n).complete(right)["has_labels"].sum()) for n in range(40)) < 160


def test_labels_and_2d_truth_of_the_data_stay(body, batch):
    model = HMR.small().eval()
    right = told(model, batch)
    labelled = {**right, "has_labels": torch.tensor([True, False] * 3), "joints": torch.full((6, 45, 3), 7.0)}
    labelled["visible"] = labelled["visible"].clone()
    labelled["visible"][:, 5] = False
    labelled["keypoints_norm"] = labelled["keypoints_norm"] + 1e-4
    completed = Teacher(model, reach=1.0).complete(labelled)
    assert (completed["joints"][::2] == 7).all() and (completed["joints"][1::2] != 7).any()
    assert completed["keypoints_norm"] is labelled["keypoints_norm"]
    seen = labelled["visible"][1]
    torch.testing.assert_close(completed["joints_norm"][1][seen], labelled["keypoints_norm"][1][seen])


def test_pseudo_labels_project_to_what_predict_says(body):
    """In full-image pixels the crop's camera and the image's differ by the perspective of a few centimetres."""
    model = HMR.small().eval()
    person = make_labelled(body, box_xyxy=np.array([4, 4, 28, 28]))
    batch = collate([training_sample(person, model.spec)])
    points = model.pseudo_labels(batch)["joints_norm"].detach().numpy()[0]
    size = np.array(model.spec.input_size[::-1])
    crop = points * (size / 2) + (size - 1) / 2
    affine = batch["affine"][0].numpy()
    full = np.linalg.solve(affine[:, :2], (crop - affine[:, 2]).T).T
    np.testing.assert_allclose(full, model.predict([person]).keypoints_px[0], atol=0.05)


def test_an_estimator_that_cannot_teach_is_refused(persons, tmp_path):
    with pytest.raises(InputError, match="pseudo_labels"):
        fine_tune(make_estimator(), persons, None, tmp_path, replace(FEW, retain=1.0), progress=False)


def test_the_result_lies_between_start_and_end(persons, tmp_path):
    start, end, half = make_estimator(), make_estimator(), make_estimator()
    fine_tune(end, persons, None, tmp_path / "end", FEW, progress=False)
    fine_tune(half, persons, None, tmp_path / "half", replace(FEW, end_share=0.5), progress=False)
    for name, value in half.state_dict().items():
        torch.testing.assert_close(value, (start.state_dict()[name] + end.state_dict()[name]) / 2)
    again = make_estimator()
    fine_tune(again, persons, None, tmp_path / "half", replace(FEW, end_share=0.5), progress=False)
    torch.testing.assert_close(again.state_dict(), half.state_dict())
    counter = {"n": torch.tensor(3)}
    assert between({"n": torch.tensor(1)}, counter, 0.5) == counter


def test_the_running_average_is_that_of_a_loop(persons, tmp_path):
    seen: list[dict] = []

    def losses(output, batch):
        seen.append(copy.deepcopy(watched.state_dict()))
        return joint_loss(output, batch)

    watched = make_estimator(losses=losses)
    fine_tune(watched, persons, None, tmp_path / "a", replace(FEW, ema_decay=0.5), progress=False)
    end = make_estimator()
    fine_tune(end, persons, None, tmp_path / "b", FEW, progress=False)
    # torch's AveragedModel begins with the first weights it is given.
    states = [*seen[1:], end.state_dict()]
    for name, value in watched.state_dict().items():
        mean = states[0][name]
        for state in states[1:]:
            mean = 0.5 * mean + 0.5 * state[name]
        torch.testing.assert_close(value, mean)


def test_an_interrupted_training_keeps_its_average(persons, tmp_path):
    calls = []

    def losses(output, batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return joint_loss(output, batch)

    settings = replace(FEW, ema_decay=0.9, end_share=0.7, max_grad_norm=1.0)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(make_estimator(losses=losses), persons, None, tmp_path / "a", settings, progress=False)
    resumed, straight = make_estimator(), make_estimator()
    fine_tune(resumed, persons, None, tmp_path / "a", settings, progress=False)
    fine_tune(straight, persons, None, tmp_path / "b", settings, progress=False)
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("gradient_only", [False, True])
def test_a_loss_that_blows_up_leaves_the_last_good_weights(persons, tmp_path, gradient_only):
    calls: list[dict] = []

    def losses(output, batch):
        found = joint_loss(output, batch)
        calls.append(copy.deepcopy(estimator.state_dict()))
        if len(calls) < 3:
            return found
        value = next(iter(found.values()))
        # The square root has an infinite slope at 0, and is finite there.
        return {"bad": (value - value.detach()).abs().sqrt() if gradient_only else value * float("nan")}

    estimator = make_estimator(losses=losses)
    start = copy.deepcopy(estimator.state_dict())
    with pytest.raises(DivergenceError, match="last_good_estimator") as told:
        fine_tune(estimator, persons, None, tmp_path, FEW, progress=False)
    assert "step 2" in str(told.value) and ("gradient" in str(told.value)) == gradient_only
    torch.testing.assert_close(load_weights(tmp_path / "last_good_estimator.safetensors"), dict(calls[2]))
    torch.testing.assert_close(estimator.state_dict(), start)
    assert not (tmp_path / "estimator.safetensors").exists()


def test_the_trunk_waits_and_moves_less(persons, tmp_path):
    def moved(**changes):
        model = HMR.small()
        before = copy.deepcopy(model.state_dict())
        fine_tune(model, persons, None, tmp_path / str(len(list(tmp_path.iterdir()))),
                  FineTuningSettings(steps=2, batch_size=2, learning_rate=1e-3, **changes), progress=False)  # fmt: skip
        after = model.state_dict()
        size = {part: sum(float((after[n] - before[n]).abs().sum()) for n in after
                          if n.startswith("backbone.") == part and after[n].is_floating_point())
                for part in (True, False)}  # fmt: skip
        return size[True], size[False]

    torch.manual_seed(0)
    whole, head = moved()
    waiting, head_alone = moved(trunk_after=2)
    slow, _ = moved(trunk_rate=0.1)
    assert waiting == 0 and head_alone > 0 and head > 0
    assert 0.05 * whole < slow < 0.2 * whole
    with pytest.raises(InputError, match="heavy_parts"):
        PoseEstimatorModule(make_estimator(), trunk_rate=0.5)


def test_the_scale_penalty_is_spins_and_bounded():
    above = torch.linspace(0, 2, 50, dtype=torch.float64)
    torch.testing.assert_close(scale_penalty(above), torch.exp(-10 * above).square())
    scale = torch.tensor([-1e4, -5.0, -1e-3, 0.0], requires_grad=True)
    value = scale_penalty(scale)
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(scale.grad).all() and (scale.grad < 0).all()
    # SPIN's value and slope at 0.
    assert float(value.detach()[-1]) == 1 and float(scale.grad[-1]) == pytest.approx(-20)


@pytest.mark.parametrize("name, value", [("end_share", 1.1), ("retain", -0.1), ("ema_decay", 1.0), ("trunk_rate", -1)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        FineTuningSettings(**{name: value})


def test_an_estimator_states_its_own_rate(persons, tmp_path):
    slow, fast = make_estimator(), make_estimator()
    slow.learning_rate = 1e-6
    start = copy.deepcopy(slow.state_dict())
    for name, one in (("slow", slow), ("fast", fast)):
        fine_tune(one, persons, None, tmp_path / name, replace(FEW, learning_rate=None), progress=False)
    far = [max(float((one.state_dict()[n] - start[n]).abs().max()) for n in start) for one in (slow, fast)]
    assert 0 < far[0] < far[1] / 5
    assert isinstance(slow, CallableEstimator)
