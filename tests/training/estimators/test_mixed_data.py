from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from posesyn.data.crop_augmentation import CropAugmentation
from posesyn.errors import InputError, RunError
from posesyn.interfaces import EstimatorSpec
from posesyn.synthesis.filtering.clip_filter import ClipFilter
from posesyn.training.estimators.mixed_data import MixedPoseDataModule, as_persons, synthetic_count
from posesyn.types import ArrayImage, Person

SPEC = EstimatorSpec("test", input_size=(16, 16))


def people(count: int, prefix: str) -> list[Person]:
    rng = np.random.default_rng(len(prefix))
    image = ArrayImage(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    blank = rng.uniform(2, 30, (17, 2)), np.ones(17, bool), "coco17"
    return [Person(f"{prefix}/{i}", image, np.array([2, 2, 30, 28]), *blank) for i in range(count)]


def module(real=10, synthetic=7, **options) -> MixedPoseDataModule:
    options = {"batch_size": 4, "spec": SPEC, **options}
    return MixedPoseDataModule(people(real, "r"), people(synthetic, "s") if synthetic else None, **options)


def only(data: MixedPoseDataModule) -> dict:
    """The batch of an epoch of one."""
    (batch,) = list(data.train_dataloader())
    return batch


def same(first: dict, second: dict) -> bool:
    assert first.keys() == second.keys()
    return all(
        torch.equal(first[name], second[name]) if isinstance(first[name], torch.Tensor) else first[name] == second[name]
        for name in first
    )


@pytest.mark.parametrize(
    ("batch_size", "fraction", "count"),
    [(10, 0.25, 3), (10, 0.24, 2), (10, 0.0, 0), (10, 1.0, 10), (8, 0.5, 4), (32, 0.5, 16), (5, 0.5, 3), (2, 0.5, 1)],
)
def test_every_batch_has_exactly_the_fraction(batch_size, fraction, count):
    assert synthetic_count(batch_size, fraction) == count
    data = module(real=23, synthetic=9, batch_size=batch_size, synthetic_fraction=fraction)
    seen = 0
    for batch in data.train_dataloader():
        assert len(batch["images"]) == batch_size
        assert int(batch["is_synthetic"].sum()) == count
        assert sum(name.startswith("s/") for name in batch["person_ids"]) == count
        seen += 1
    assert seen == len(data.train_dataloader()) > 0


@pytest.mark.parametrize(("fraction", "batch_size"), [(-0.1, 4), (1.1, 4), (0.01, 10), (0.99, 10), (0.5, 0), (0.5, 1)])
def test_fractions_that_do_not_fit_are_refused(fraction, batch_size):
    with pytest.raises(InputError):
        synthetic_count(batch_size, fraction)


def test_passes_visit_every_person_once_even_when_sizes_do_not_divide():
    data = module(real=10, synthetic=7, batch_size=4)  # two of each per batch
    names = [name for _ in range(7) for batch in data.train_dataloader() for name in batch["person_ids"]]
    real = [name for name in names if name.startswith("r/")]
    synthetic = [name for name in names if name.startswith("s/")]
    assert len(real) == len(synthetic) == 70
    assert set(Counter(real).values()) == {7}
    assert set(Counter(synthetic).values()) == {10}
    for first in range(0, 70, 10):
        assert len(set(real[first : first + 10])) == 10
    assert real[:10] != real[10:20]


def test_data_smaller_than_a_batch_is_repeated_evenly():
    data = module(real=3, synthetic=1, batch_size=16)
    (batch,) = list(data.train_dataloader())
    assert set(Counter(name for name in batch["person_ids"] if name[0] == "r").values()) <= {2, 3}


def test_same_seed_same_bytes_other_seed_other_order():
    first, second, other = (list(module(seed=seed).train_dataloader()) for seed in (1, 1, 2))
    assert all(same(a, b) for a, b in zip(first, second))
    assert [b["person_ids"] for b in first] != [b["person_ids"] for b in other]


@pytest.mark.integration
def test_workers_do_not_change_a_byte():
    alone = list(module(seed=3).train_dataloader())
    helped = list(module(seed=3, num_workers=2).train_dataloader())
    assert len(alone) == len(helped)
    assert all(same(a, b) for a, b in zip(alone, helped))


def test_augmentation_changes_from_pass_to_pass_and_can_be_turned_off():
    data = module(real=2, synthetic=0, synthetic_fraction=0.0, batch_size=2)
    one, two = (only(data) for _ in range(2))
    order = [two["person_ids"].index(name) for name in one["person_ids"]]
    assert not torch.equal(one["images"], two["images"][order])
    plain = module(real=2, synthetic=0, synthetic_fraction=0.0, batch_size=2, augment=False)
    one, two = (only(plain) for _ in range(2))
    order = [two["person_ids"].index(name) for name in one["person_ids"]]
    assert torch.equal(one["images"], two["images"][order])
    gentle = CropAugmentation(flip=0, rotation_deg=0, scale=0, shift=0, colour=0)
    still = module(real=2, synthetic=0, synthetic_fraction=0.0, batch_size=2, augment=gentle)
    assert torch.allclose(next(iter(still.train_dataloader()))["images"], one["images"])


def test_several_data_sets_are_joined():
    data = MixedPoseDataModule([people(3, "a"), people(5, "b"), []], None, 0.0, batch_size=8, spec=SPEC)
    (batch,) = list(data.train_dataloader())
    assert sorted(batch["person_ids"]) == sorted([f"a/{i}" for i in range(3)] + [f"b/{i}" for i in range(5)])


def test_only_synthetic_needs_no_real_data():
    data = MixedPoseDataModule(synthetic=people(6, "s"), synthetic_fraction=1.0, batch_size=3, spec=SPEC)
    assert len(list(data.train_dataloader())) == 2


class Recorder(pl.LightningModule):
    """Keeps what it was trained on; has no spec of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple] = []

    def training_step(self, batch, index):
        self.seen.append((batch["batch_index"], batch["person_ids"], float(batch["images"].sum())))
        return (self.weight * batch["images"].mean()).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path, **options) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        max_epochs=-1,
        **options,
    )


@pytest.mark.parametrize("stop", [3, 5, 7, 10])
def test_a_resumed_training_sees_what_it_would_have_seen(tmp_path, stop):
    whole = Recorder()
    trainer(tmp_path, max_steps=13).fit(whole, module())  # epochs of five batches
    first, second = Recorder(), Recorder()
    running = trainer(tmp_path, max_steps=stop)
    running.fit(first, module())
    running.save_checkpoint(tmp_path / "stop.ckpt")
    trainer(tmp_path, max_steps=13).fit(second, module(), ckpt_path=tmp_path / "stop.ckpt", weights_only=True)
    assert first.seen + second.seen == whole.seen
    assert [row[0] for row in whole.seen] == list(range(13))


def test_a_breath_between_epochs_is_no_change(tmp_path):
    """Epochs that the trainer cuts short go on where it stopped."""
    whole, cut = Recorder(), Recorder()
    trainer(tmp_path, max_steps=9).fit(whole, module())
    trainer(tmp_path, max_steps=9, limit_train_batches=2).fit(cut, module())
    assert cut.seen == whole.seen


def test_other_data_cannot_be_resumed(tmp_path):
    running = trainer(tmp_path, max_steps=2)
    running.fit(Recorder(), module())
    running.save_checkpoint(tmp_path / "stop.ckpt")
    with pytest.raises(RunError, match="cannot be resumed with other data"):
        trainer(tmp_path, max_steps=4).fit(
            Recorder(), module(real=11), ckpt_path=tmp_path / "stop.ckpt", weights_only=True
        )


def test_the_spec_may_come_from_the_module_being_trained(tmp_path):
    recorder = Recorder()
    data = MixedPoseDataModule(people(4, "r"), None, 0.0, batch_size=2)
    with pytest.raises(InputError, match="does not know what the estimator wants"):
        trainer(tmp_path, max_steps=1).fit(recorder, data)
    recorder.spec = SPEC
    trainer(tmp_path, max_steps=1).fit(recorder, data)
    assert len(recorder.seen) == 1


def test_validation_batches_are_lists_of_persons():
    data = module(val=people(5, "v"))
    assert [len(batch) for batch in data.val_dataloader()] == [4, 1]
    assert isinstance(next(iter(data.val_dataloader()))[0], Person)
    assert module().val_dataloader() == []


def test_missing_data_is_named():
    with pytest.raises(InputError, match="no synthetic persons"):
        MixedPoseDataModule(people(3, "r"), spec=SPEC)
    with pytest.raises(InputError, match="no real persons"):
        MixedPoseDataModule([], people(3, "s"), spec=SPEC)
    with pytest.raises(InputError, match="cannot read 'real'"):
        as_persons([1, 2], "real")
    with pytest.raises(InputError, match="cannot read 'real'"):
        as_persons("persons.json", "real")


@pytest.mark.filterwarnings("ignore:the filter kept none")
def test_a_filter_that_drops_everything_is_named(make_clip, tmp_path):
    class FarOff:
        skeleton = "smpl45"

        def detect(self, images, boxes_xyxy):
            return np.full((len(images), 45, 2), 1e4, np.float32), np.ones((len(images), 45), np.float32)

    clips = [make_clip("a"), make_clip("b", seed=1)]
    kept = ClipFilter(FarOff(), threshold=0.1).filter(clips)
    with pytest.raises(InputError, match=r"the filter dropped all \d+ frames of 2 clips \(.+: \d+"):
        MixedPoseDataModule(people(3, "r"), kept, spec=SPEC)
    none = [replace(clip, keep=np.zeros_like(clip.keep)) for clip in clips]
    with pytest.raises(InputError, match=r"\d+ frames dropped by the filter"):
        MixedPoseDataModule(people(3, "r"), none, spec=SPEC)


def test_neighbours_come_with_the_real_persons_of_an_image():
    real = [replace(person, image_id="street") for person in people(3, "r")]
    spec = replace(SPEC, neighbours=4)
    batch = only(MixedPoseDataModule(real, people(1, "s"), 0.25, batch_size=4, spec=spec))
    assert batch["neighbours_visible"].any(-1).sum(-1).tolist() == [2, 2, 2, 0]  # two others; rendered ones are alone
    assert batch["neighbours_px"].shape == (4, 4, 45, 2)
    assert "neighbours_px" not in only(MixedPoseDataModule(real, None, 0.0, batch_size=4, spec=SPEC))


def test_a_person_that_cannot_be_cropped_is_named():
    bad = replace(people(1, "x")[0], box_xyxy=np.array([100, 100, 120, 120]))
    data = MixedPoseDataModule([bad], None, 0.0, batch_size=1, spec=SPEC)
    with pytest.raises(InputError, match="x/0"):
        next(iter(data.train_dataloader()))
