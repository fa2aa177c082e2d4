"""PoseAug's schedule, recipes, collapse detection and exact resume, on a few hundred poses of a stick figure."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.data.pose_pairs.sources import pairs_of_joints
from posesyn.errors import InputError, RunError
from posesyn.estimators.lifters.lifter import load_lifter, make_lifter
from posesyn.settings.lifters import CameraRig, LifterSettings, PoseAugSettings
from posesyn.synthesis.augmentation import losses
from posesyn.synthesis.augmentation.augmentor import Augmentor
from posesyn.training.lifters import poseaug
from posesyn.training.lifters.health import measure_fakes
from posesyn.training.lifters.lifter import LifterModule, score, weights_without_gradient
from posesyn.training.lifters.poseaug import PoseAugBatches, PoseAugModule
from posesyn.training.lifters.run import train_lifter, train_poseaug
from posesyn.training.lifters.source import PoseAugSource, usable_fakes

# x, y up, z of poseaug16, metres
STANDING = np.array(
    [
        (0, 0.95, 0), (-0.12, 0.95, 0), (-0.12, 0.5, 0.02), (-0.12, 0.05, 0), (0.12, 0.95, 0), (0.12, 0.5, 0.02),
        (0.12, 0.05, 0), (0, 1.2, 0), (0, 1.45, 0), (0, 1.65, 0.03), (0.18, 1.42, 0), (0.3, 1.15, 0.05),
        (0.35, 0.9, 0.1), (-0.18, 1.42, 0), (-0.3, 1.15, 0.05), (-0.35, 0.9, 0.1),
    ]
)  # fmt: skip


def made_pairs(count: int = 32, seed: int = 0, subjects: int = 3) -> PosePairs:
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(subjects):
        joints = STANDING * (0.9 + 0.1 * subject) + rng.normal(0, 0.06, (count, 16, 3))
        rows.append((joints, "poseaug16", f"walk {subject}", f"S{subject}"))
    return pairs_of_joints(rows, CameraRig(count=2, heights=(1.3, 1.7), distances=(4.5, 6.0)), seed)


@pytest.fixture(scope="module")
def pairs() -> PosePairs:
    return made_pairs()


def settings(**changes) -> PoseAugSettings:
    return PoseAugSettings(**{"epochs": 3, "batch_size": 64, "warmup": 1, "pool": 100, **changes})


def small(name: str = "mlp"):
    torch.manual_seed(3)
    options = {"mlp": {"width": 32}, "videopose": {"width": 32, "stages": 1}}.get(name, {})
    return make_lifter(name, **options)


def fitted(module: PoseAugModule, epochs: int) -> PoseAugModule:
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module)
    return module


class Recorded(PoseAugModule):
    """Notes what is done, in order."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[tuple[int, str]] = []
        self.rates_seen: list[tuple[float, ...]] = []

    def training_step(self, work, index) -> None:
        super().training_step(work, index)
        self.calls.append((self.current_epoch, work.phase))
        self.rates_seen.append(tuple(o.param_groups[0]["lr"] for o in self.optimizers()))


def phases(module: Recorded, epoch: int) -> list[str]:
    found = [phase for number, phase in module.calls if number == epoch]
    return [phase for i, phase in enumerate(found) if i == 0 or found[i - 1] != phase]


def test_schedule_alternates_and_rates_fall(pairs):
    module = fitted(Recorded(small(), pairs, pairs, settings(recipe="official")), 3)
    assert phases(module, 2) == ["gan", "guard", "fake", "evaluate", "real"]
    epochs = [number for number, _ in module.calls]
    for epoch in range(3):
        rates = module.rates_seen[epochs.index(epoch)]
        np.testing.assert_allclose(rates, [1e-4 * (1 - epoch / 4)] * 4)
    mixed = fitted(Recorded(small(), pairs, pairs, settings()), 1)
    assert phases(mixed, 0) == ["gan", "guard", *2 * ["augment", "mixed"]]


def test_each_lifter_update_has_the_rate_of_a_lifter_trained_alone(pairs):
    module = fitted(Recorded(small(), pairs, pairs, settings(warmup=1, epochs=3)), 3)
    steps = zip(module.calls, module.rates_seen)
    found = [rates[3] for (epoch, phase), rates in steps if phase == "mixed" and epoch >= 1]

    class Alone(LifterModule):
        def training_step(self, rows, index):
            alone.append(self.optimizers().param_groups[0]["lr"])
            return super().training_step(rows, index)

    alone: list[float] = []
    own = LifterSettings(epochs=4, batch_size=settings().batch_size, learning_rate=1e-4, schedule="linear")
    fitted(Alone(small(), pairs, pairs, own), 4)
    assert len(set(found)) == 4
    np.testing.assert_allclose(found, alone)


def test_feedback_counts_epochs_from_one(pairs, monkeypatch):
    seen, original = [], losses.feedback_loss

    def noted(*args):
        seen.append(args[-2:])
        return original(*args)

    monkeypatch.setattr(losses, "feedback_loss", noted)
    fitted(PoseAugModule(small(), pairs, pairs, settings(warmup=1, epochs=3)), 3)
    assert set(seen) == {(2, 3), (3, 3)}


@pytest.mark.parametrize("count", (64, 65, 100, 128, 201))
def test_mixed_and_separate_passes_make_the_same_number_of_lifter_steps(count):
    steps = {}
    for mixed in (True, False):
        batches = PoseAugBatches(count, settings(mixed=mixed), 0)
        done = list(batches)
        assert len(done) == len(batches)
        steps[mixed] = sum(work.phase in ("mixed", "fake", "real") for work in done)
        gan = [work.rows[0] for work in done if work.phase == "gan"]
        assert len(torch.cat(gan).unique()) == len(torch.cat(gan)) >= count - 1
    assert abs(steps[True] - steps[False]) <= 1


@pytest.mark.parametrize("ahead", (1, 3, 100))
def test_a_mixed_step_takes_as_much_data_as_one_without_fakes_and_as_many_fakes(monkeypatch, ahead):
    size = settings().batch_size
    monkeypatch.setattr(poseaug, "_FAKES_AHEAD", ahead * size)
    made, data, sources = [], [], []
    for work in PoseAugBatches(200, settings(), 0):
        if work.phase == "augment":
            made = list(work.rows[0].split(size))
        elif work.phase == "mixed":
            data.append(work.rows[0])
            sources.append(made.pop(0))
    for rows in (data, sources):
        assert [len(part) for part in rows] == 2 * [size, size, size, 200 - 3 * size]
        assert (torch.bincount(torch.cat(rows), minlength=200) == 2).all()


def test_a_mixed_step_learns_from_the_fakes_made_for_it(pairs, monkeypatch):
    monkeypatch.setattr(poseaug, "_FAKES_AHEAD", 128)
    seen, made = [], []

    class RecordedSource(PoseAugSource):
        def fakes(self, augmentor, rows):
            made.append(super().fakes(augmentor, rows))
            return made[-1]

    monkeypatch.setattr(poseaug, "PoseAugSource", RecordedSource)

    class Recorded(PoseAugModule):
        def lifter_step(self, keypoints, targets, fakes=None):
            seen.append(fakes)
            return super().lifter_step(keypoints, targets, fakes)

    fitted(Recorded(small(), pairs, pairs, settings(warmup=0)), 1)
    for index in range(2):
        assert torch.equal(torch.cat([part[index] for part in seen]), torch.cat([part[index] for part in made]))


def test_batches_depend_on_seed_and_epoch_only():
    first, second = PoseAugBatches(200, settings(), 5), PoseAugBatches(200, settings(), 5)
    list(first)
    second.epoch = 1
    for a, b in zip(first, second):
        assert a.phase == b.phase and all(torch.equal(x, y) for x, y in zip(a.rows, b.rows))


def test_warmup_trains_the_gan_only(pairs):
    module = PoseAugModule(small(), pairs, pairs, settings(warmup=5))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    after = fitted(module, 1).state_dict()
    for name, value in before.items():
        if name.startswith("lifter."):
            assert torch.equal(value, after[name]), name
    for network in ("augmentor.", "d3d.", "d2d.", "average."):
        assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith(network)), network


def test_official_recipe_drifts_in_the_warmup_and_default_does_not(pairs):
    drifted = fitted(PoseAugModule(small(), pairs, pairs, settings(recipe="official", warmup=5)), 1)
    fresh = small()
    assert not torch.equal(drifted.lifter.batch_norm1.running_mean, fresh.batch_norm1.running_mean)
    assert torch.equal(drifted.lifter.w1.weight, fresh.w1.weight)


def test_discriminators_learn_on_every_second_step_only(pairs):
    module = PoseAugModule(small(), pairs, pairs, settings())
    calls = []
    module._discriminate = lambda *args: calls.append(module.counter)
    fitted(module, 1)
    assert calls == [number for number in range(module.counter) if number % 2 == 0]


def test_bone_swap_keeps_directions_and_takes_a_subjects_lengths(pairs):
    module = fitted(PoseAugModule(small(), pairs, pairs, settings()), 1)
    rows = torch.arange(60)
    pose, flat, _ = module.source(rows)
    lengths = PosePairs(pose.numpy(), flat.numpy()).lengths
    wanted = module.source.subject_lengths[module.source.drawn_subject[rows]].numpy()
    np.testing.assert_allclose(lengths, wanted, atol=1e-5)
    assert len(np.unique(module.source.drawn_subject.numpy())) == 3
    original = module.source.poses[rows]
    np.testing.assert_allclose(pose[:, 0], original[:, 0], atol=1e-6)


def test_filters():
    pose = torch.full((4, 16, 3), 5.0)
    flat = torch.zeros(4, 16, 2)
    flat[1, 3, 0], flat[2, 3, 1] = 1.2, -1.2
    pose[3, 2, 2] = -1.0
    assert usable_fakes(pose, flat, 1.0).tolist() == [True, False, False, False]
    assert usable_fakes(pose, flat, 1.0, lower_bound=False).tolist() == [True, False, True, True]
    assert usable_fakes(pose, flat, 1.3).tolist() == [True, False, True, False]


def test_unusable_fakes_are_replaced_by_their_sources(pairs):
    module = fitted(PoseAugModule(small(), pairs, pairs, settings()), 1)
    with torch.no_grad():
        module.average.RTprocess.w2_T.bias.copy_(torch.tensor([100.0, 0.0, 0.0]))
    rows = torch.arange(40)
    flat, target = module.source.fakes(module.average, rows)
    pose, source_flat, _ = module.source(rows)
    assert torch.equal(flat, source_flat)
    np.testing.assert_allclose(target, pose - pose[:, :1], atol=1e-6)


@pytest.mark.parametrize("recipe", ("default", "official"))
def test_resumed_equals_uninterrupted(tmp_path, pairs, recipe):
    chosen = settings(recipe=recipe, epochs=3, warmup=1)
    whole = train_poseaug(small(), pairs, tmp_path / "whole", chosen, pairs, seed=4, progress=False)

    class Stop(Exception):
        pass

    class Interrupted(PoseAugModule):
        def training_step(self, work, index):
            if self.current_epoch == 2 and index == 1:
                raise Stop
            return super().training_step(work, index)

    from posesyn.training.lifters import run as lifter_run

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        Interrupted.__name__ = "PoseAugModule"  # the folder tells kinds of trainings apart
        patch.setattr(lifter_run, "PoseAugModule", Interrupted)
        train_poseaug(small(), pairs, tmp_path / "parts", chosen, pairs, seed=4, progress=False)
    begun: list[int] = []

    class Watched(PoseAugModule):
        def on_train_epoch_start(self):
            begun.append(self.current_epoch)
            super().on_train_epoch_start()

    with pytest.MonkeyPatch.context() as patch:
        Watched.__name__ = "PoseAugModule"
        patch.setattr(lifter_run, "PoseAugModule", Watched)
        parts = train_poseaug(small(), pairs, tmp_path / "parts", chosen, pairs, seed=4, progress=False)
    assert begun == [2]
    for name in ("lifter.safetensors", "augmentor.safetensors"):
        from posesyn.storage.checkpoints import load_weights

        a, b = load_weights(whole.parent / name), load_weights(parts.parent / name)
        for key in a:
            assert torch.equal(a[key], b[key]), f"{name} {key}"
    assert (whole.parent / "curves.csv").read_text() == (parts.parent / "curves.csv").read_text()


def test_files_of_a_run(tmp_path, pairs):
    path = train_poseaug(small(), pairs, tmp_path, settings(), seed=1, progress=False)
    rows = list(csv.DictReader((tmp_path / "curves.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    assert {"val/mpjpe", "gan/usable", "gan/variety", "gan/collapsed", "train/lifter"} <= rows[-1].keys()
    # Each row holds its own epoch's measures, the first one too; the lifter is not trained in the warm-up.
    assert all(row["gan/usable"] for row in rows) and not rows[0]["train/lifter"] and rows[1]["train/lifter"]
    best = min(float(row["val/mpjpe"]) for row in rows[1:])
    held = pairs.split_by_subject()[1]  # whatever the seed
    assert score(load_lifter(path), held)["mpjpe"] == pytest.approx(best, rel=1e-4)
    made = Augmentor.load(tmp_path / "augmentor.safetensors")(torch.from_numpy(pairs.joints_cam[:5]))
    assert torch.isfinite(made.pose_rt).all()


@pytest.mark.parametrize("name", ("mlp", "videopose", "semgcn", "stgcn"))
def test_every_lifter_trains(pairs, name):
    module = fitted(PoseAugModule(small(name), pairs[:100], pairs[:20], settings(warmup=0, batch_size=64)), 1)
    assert all(torch.isfinite(value).all() for value in module.lifter.parameters())


@pytest.mark.parametrize(
    "changes", ({"angles": False}, {"lengths": False}, {"transform": False}, {"weight_2d": 0.0}, {"weight_3d": 0.0},
                {"feedback": False}, {"spectral": True}, {"mixed": False}, {"bone_swap": False},
                {"camera_views": False}, {"human_range": False}, {"weight_spread": 0.0},
                {"gan_share": 0.4}, {"fake_share": 0.0})
)  # fmt: skip
def test_ablations_train(pairs, changes):
    module = fitted(PoseAugModule(small(), pairs[:100], pairs[:20], settings(warmup=0, **changes)), 1)
    assert all(torch.isfinite(value).all() for value in module.parameters())


def test_collapse_is_seen_and_undone(pairs):
    module = fitted(PoseAugModule(small(), pairs, pairs, settings()), 1)
    assert not module.check().collapsed
    rows = torch.arange(100)
    pose, flat, _ = module.source(rows)
    made = module.average(pose)
    one = made._replace(pose_ba=made.pose_ba[:1].expand_as(made.pose_ba))
    assert measure_fakes(pose, flat, one, flat, torch.ones(100, dtype=torch.bool)).collapsed
    assert measure_fakes(pose, flat, made, flat[:1].expand_as(flat), torch.ones(100, dtype=torch.bool)).collapsed
    broken = made._replace(pose_rt=made.pose_rt * float("nan"))
    assert measure_fakes(pose, flat, broken, flat, torch.ones(100, dtype=torch.bool)).collapsed
    assert measure_fakes(pose, flat, made, flat, torch.zeros(100, dtype=torch.bool)).collapsed
    one_view = made._replace(rotation_share=made.rotation_share[:1].expand(100, 3))
    assert measure_fakes(pose, flat, one_view, flat, torch.ones(100, dtype=torch.bool)).collapsed
    no_view = made._replace(rotation_share=None)
    assert not measure_fakes(pose, flat, no_view, flat, torch.ones(100, dtype=torch.bool)).collapsed


def test_default_recipe_bounds_views_and_joints_and_official_does_not(pairs):
    module = PoseAugModule(small(), pairs, pairs, settings())
    rows = torch.arange(len(pairs))
    flat, seen = module.source(rows)[1], module.source.real_2d(rows)
    assert module.augmentor.RTprocess.views == module.source.views and module.augmentor.joint_range is not None
    assert (seen != flat).any(-1).any(-1).float().mean() > 0.5  # the rest would have left the picture
    assert seen[..., 0].abs().max() <= 1 and seen[..., 1].abs().max() <= module.source.aspect
    official = PoseAugModule(small(), pairs, pairs, settings(recipe="official"))
    assert official.source.views is None and official.augmentor.joint_range is None
    assert torch.equal(official.source.real_2d(rows), official.source(rows)[1])


def test_spread_keeps_views_apart(pairs):
    def least_views(weight: float) -> float:
        torch.manual_seed(0)
        module = PoseAugModule(
            small(), pairs, pairs, settings(warmup=9, epochs=9, ema=0.0, weight_spread=weight, learning_rate=3e-3)
        )
        with torch.no_grad():
            for network in (module.augmentor, module.average):
                network.RTprocess.w2_R.weight.mul_(0.05)
        return fitted(module, 9).check().views

    assert least_views(10.0) > 2 * least_views(0.0)


def test_rescue_goes_back_to_healthy_weights(pairs):
    class Breaks(PoseAugModule):
        def _rescue_or_remember(self):
            if self.current_epoch == 1:
                with torch.no_grad():
                    for network in (self.augmentor, self.average):
                        network.BAprocess.w2.weight.fill_(float("nan"))
            super()._rescue_or_remember()

    module = fitted(Breaks(small(), pairs, pairs, settings(epochs=2)), 2)
    assert module.guard.rescues == 1 and not module.check().collapsed
    assert all(torch.isfinite(value).all() for value in module.parameters())
    broken = fitted(Breaks(small(), pairs, pairs, settings(epochs=2, rescue=False)), 2)
    assert broken.guard.rescues == 0 and broken.check().collapsed


@pytest.mark.parametrize("which", (("augmentor",), ("augmentor", "average"), ("d2d",)))
def test_what_is_not_healthy_is_not_remembered(pairs, which):
    module = fitted(PoseAugModule(small(), pairs, pairs, settings(epochs=3, warmup=3)), 1)
    kept = module.guard.healthy
    with torch.no_grad():
        for name in which:
            network = getattr(module, name)
            if name == "d2d":
                next(network.parameters()).fill_(float("nan"))
            else:  # bones turned right round
                network.BAprocess.w2.bias.copy_(100 * torch.tensor([0.0, 1.0, 0.0]).repeat(15))
                network.BAprocess.w2.weight.zero_()
    module.log = lambda *args, **kwargs: None
    module._rescue_or_remember()
    assert module.guard.healthy is kept and module.guard.rescues == 0


def test_frozen_layers_stay_frozen():
    lifter = small()
    lifter.w1.requires_grad_(False)
    with weights_without_gradient(lifter):
        assert not any(weight.requires_grad for weight in lifter.parameters())
    assert not lifter.w1.weight.requires_grad and lifter.w2.weight.requires_grad


def test_bad_input(tmp_path, pairs):
    with pytest.raises(InputError, match="warm-up"):
        train_poseaug(small(), pairs, tmp_path, settings(epochs=2, warmup=2), pairs, progress=False)
    with pytest.raises(InputError, match="cameras"):
        PoseAugModule(small(), PosePairs(pairs.centred, pairs.keypoints))
    with pytest.raises(InputError, match="recipe"):
        PoseAugSettings(recipe="other")
    with pytest.raises(InputError, match="batch_size"):
        PoseAugSettings(batch_size=0)
    train_poseaug(small(), pairs, tmp_path, settings(epochs=1, warmup=0), pairs, progress=False)
    with pytest.raises(RunError, match=r"lifter\.name"):
        train_poseaug(small("videopose"), pairs, tmp_path, settings(epochs=1, warmup=0), pairs, progress=False)
    with pytest.raises(RunError, match=r"settings\.human_range"):
        train_poseaug(small(), pairs, tmp_path, settings(epochs=1, warmup=0, human_range=False), pairs, progress=False)
    for wrong in ({"fake_share": 1.5}, {"gan_share": 0.0}):
        with pytest.raises(InputError):
            PoseAugSettings(**wrong)


def test_a_loaded_lifter_goes_on_in_train_mode(tmp_path, pairs):
    lifter = small().eval()
    counts = [int(norm.num_batches_tracked) for norm in lifter.modules() if isinstance(norm, torch.nn.BatchNorm1d)]
    train_lifter(lifter, pairs, tmp_path, LifterSettings(epochs=1, batch_size=16), None, 0, False)
    after = [int(norm.num_batches_tracked) for norm in lifter.modules() if isinstance(norm, torch.nn.BatchNorm1d)]
    assert all(new > old for new, old in zip(after, counts, strict=True))
    assert not lifter.training
