"""The one run behind every training, on a module of one weight: what it keeps, refuses, passes on and gives back."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from posesyn.errors import InputError, RunError
from posesyn.settings.training import FineTuningSettings, TrainerSettings
from posesyn.storage.checkpoints import load_weights, save_weights
from posesyn.training.estimators.fine_tuning import fine_tune
from posesyn.training.runs import lowest, run_training
from tests.factories import make_estimator, make_person

CPU = TrainerSettings(accelerator="cpu")


class Rows(DataLoader):
    """Numbers 0 to 11; says that it can be resumed, and Lightning counts."""

    def __init__(self) -> None:
        super().__init__(torch.arange(12.0), batch_size=1)

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to restore."""


class Walker(pl.LightningModule):
    """Its weight goes up by one a step; the error on validation is the distance to five."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__()
        self.net, self.stop = torch.nn.Linear(1, 1, bias=False), stop
        torch.nn.init.zeros_(self.net.weight)

    def training_step(self, batch, index):
        if self.global_step == self.stop:
            raise KeyboardInterrupt
        loss = -self.net.weight.sum()
        self.log("train/loss", loss.detach(), batch_size=1)
        return loss

    def validation_step(self, batch, index):
        self.log("val/far", (self.net.weight.detach() - 5).abs().sum(), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), 1.0)

    def train_dataloader(self):
        return Rows()

    def val_dataloader(self):
        return DataLoader(torch.zeros(1), batch_size=1)


def train(module: Walker, out, **options):
    kept = []

    def save(path, moment):
        kept.append(moment)
        save_weights(path, module.net.state_dict(), {})

    options = {"steps": 9, "every": 2, "offers": lowest("val/far", module.net), "trainer": CPU, **options}
    if options.get("epochs"):
        del options["steps"]
    run_training(
        module, module.net, out, {"kind": "walk"}, weights="w.safetensors", save=save, progress=False, **options
    )
    return kept[0] if kept else None


def test_the_best_validation_is_kept_and_a_resumed_run_repeats_it(tmp_path):
    kept = train(Walker(), tmp_path / "whole")
    assert (kept.value, kept.step) == (1.0, 4)  # 4 comes before 6, which is as near to five
    assert load_weights(tmp_path / "whole/w.safetensors")["weight"].item() == 4
    for stop in (3, 4, 5, 8):
        out, module = tmp_path / str(stop), Walker(stop)
        with pytest.raises(KeyboardInterrupt):
            train(module, out)
        assert module.net.weight.item() == 0  # given back, so that the same call goes on
        assert train(Walker(), out) == kept
        for name in ("curves.csv", "w.safetensors"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (stop, name)
    rows = list(csv.DictReader((tmp_path / "whole/curves.csv").read_text().splitlines()))
    assert [(int(row["step"]), float(row["val/far"])) for row in rows] == [(2, 3), (4, 1), (6, 1), (8, 3)]


def test_epochs_are_kept_too_and_a_longer_training_goes_on(tmp_path):
    assert train(Walker(), tmp_path, epochs=1).value == 7  # after 12 steps
    again = Walker()
    assert train(again, tmp_path, epochs=2).epoch == 0
    assert again.net.weight.item() == 12
    assert len((tmp_path / "curves.csv").read_text().splitlines()) == 3


def test_a_finished_training_is_only_read(tmp_path):
    module, read = Walker(), []
    train(module, tmp_path, load=read.append)
    assert train(Walker(stop=0), tmp_path, load=read.append) is None
    assert read == [tmp_path / "w.safetensors"]


def test_logger_callbacks_and_settings_reach_the_trainer(tmp_path):
    class Spy(Callback):
        def on_train_start(self, trainer, module):
            self.seen = trainer.logger, trainer.precision, trainer.gradient_clip_val

    spy, logger = Spy(), pl.loggers.CSVLogger(tmp_path / "log")
    chosen = replace(CPU, precision="bf16-mixed")
    train(Walker(), tmp_path / "run", callbacks=[spy], logger=logger, trainer=chosen, gradient_clip_val=3.0)
    assert spy.seen == (logger, "bf16-mixed", 3.0)
    with pytest.raises(RunError, match="precision"):
        train(Walker(), tmp_path / "run")


def test_what_does_not_decide_the_result_may_change(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(Walker(stop=5), tmp_path)
    assert train(Walker(), tmp_path, trainer=replace(CPU, devices="1", strategy="auto")).step == 4


def test_folders_that_it_cannot_go_on_in_are_refused(tmp_path):
    train(Walker(), tmp_path)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.save({**state, "callbacks": {}}, tmp_path / "last.ckpt")
    with pytest.raises(RunError, match="earlier version"):
        train(Walker(), tmp_path)
    (tmp_path / "old/checkpoints").mkdir(parents=True)
    with pytest.raises(RunError, match="earlier version"):
        fine_tune(make_estimator(), [make_person()], None, tmp_path / "old")
    with pytest.raises(InputError, match="epochs or of steps"):
        train(Walker(), tmp_path / "new", steps=None)


@pytest.mark.parametrize(
    ("device", "accelerator", "devices"),
    [("auto", "auto", 1), ("cpu", "cpu", 1), ("cuda", "cuda", 1), ("cuda:1", "cuda", [1]), ("mps", "mps", 1)],
)
def test_a_device_has_the_name_that_torch_gives_it(device, accelerator, devices):
    made = TrainerSettings.on(device, precision="16-mixed")
    assert (made.accelerator, made.devices, made.precision) == (accelerator, devices, "16-mixed")


def test_unknown_devices_are_refused():
    for device in ("gpu0", "cuda:x", "tpu"):
        with pytest.raises(InputError, match="unknown device"):
            TrainerSettings.on(device)
    with pytest.raises(InputError, match="at least one device"):
        TrainerSettings(devices=0)


@pytest.mark.integration
def test_two_processes_divide_the_batches_of_one(tmp_path):
    persons = [make_person(f"p{seed}", seed=seed) for seed in range(6)]
    settings = FineTuningSettings(steps=3, batch_size=4, learning_rate=1e-2)
    found = {}
    for name, chosen in (("one", CPU), ("two", replace(CPU, devices=2, strategy="ddp_fork"))):
        path = fine_tune(make_estimator(), persons, None, tmp_path / name, settings, trainer=chosen, progress=False)
        found[name] = load_weights(path)
    for name, value in found["one"].items():
        torch.testing.assert_close(found["two"][name], value, rtol=1e-4, atol=1e-6)
