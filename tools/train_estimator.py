"""Trains the shipped estimator from scratch on rendered lab images and writes posesyn/assets/hmr_small.safetensors.

    python tools/train_estimator.py --data ../shared/data/cmu --cache runs/lab

People of the train split who walk, stand and do everyday things, few appearances, plain rooms: the network is meant to
be weak on anything else, as an estimator trained in a lab is. The crops are rendered once into ``--cache`` (about
0.5 GB for 9,000). One thread of a shared 2-core machine needs about ten minutes for them and half an hour of training.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from tqdm import tqdm

from posesyn.body import load_body
from posesyn.data.batches import collate, training_sample
from posesyn.data.crop_augmentation import CropAugmentation, CropVariation
from posesyn.data.motions.amass import load_motion, save_motion
from posesyn.data.motions.bvh import bvh_to_motion
from posesyn.data.persons.rendered import RenderedClips
from posesyn.data.resampling import warp
from posesyn.estimators.hmr import HMR
from posesyn.estimators.losses import SCORED_JOINTS
from posesyn.evaluation.scoring import evaluate
from posesyn.geometry.cameras import apply_affine, crop_affine, crop_intrinsics
from posesyn.geometry.rotations import matrix_to_rot6d
from posesyn.storage.checkpoints import save_weights
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.rendering.mesh.backend import MeshBackend
from posesyn.training.estimators.mixed_data import MixedPoseDataModule
from posesyn.training.estimators.module import PoseEstimatorModule
from posesyn.types import ArrayImage, BodyLabels, Motion, Person

LAB_ACTIONS = ("walk", "everyday")
FRAMES = 8  # pictures per clip, each clip with its own camera, person and room
IMAGE = 192
LIFTING_BATCH = 256
PART = 1500  # crops per folder of the cache
# 25 % more than the network sees, at its resolution, so that augmentation finds pixels to move in.
STORED, MARGIN = 128, 1.25
ARRAYS = ("boxes", "keypoints", "visible", "pose_rotmat", "betas", "transl", "joints", "intrinsics")
# Gentle: half of the published scale and a third of the rotation, since half an hour is a short training.
AUGMENT = CropAugmentation(rotation_deg=10.0, scale=0.12, shift=0.04)


def lab_motions(data: Path, cache: Path, split: str, body) -> list[Motion]:
    """The captures of the lab actions, as SMPL motions at 20 frames per second; kept in ``cache``."""
    files = set(json.loads((data / "split.json").read_text())["files"][split])
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    rows = [
        row for row in rows if row["file"] in files and row["action"] in LAB_ACTIONS and row["max_joint_speed"] < 13
    ]
    motions = []
    for row in tqdm(rows, desc=f"{split} captures", mininterval=10):
        path = cache / "motions" / f"{row['id']}.npz"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            found = bvh_to_motion(data / row["file"], body, source_fps=row["fps"], unit_to_m=row["unit_to_m"])
            save_motion(path, found, body=body)
        motions.append(load_motion(path, body=body))
    return motions


def lab_clip(motions: Sequence[Motion], shares: np.ndarray, clip_id: str, seed: int) -> Motion:
    """A few frames of some capture, thinned, on a random body."""
    rng = rng_of(seed, clip_id)
    motion = motions[rng.choice(len(motions), p=shares)]
    stride = int(rng.integers(3, 10))
    span = (FRAMES - 1) * stride + 1
    start = int(rng.integers(max(1, len(motion) - span + 1)))
    rows = np.arange(start, min(start + span, len(motion)), stride)
    return replace(
        motion,
        motion_id=clip_id,
        pose_rotvec=motion.pose_rotvec[rows],
        transl_world=motion.transl_world[rows],
        joints_world=None,
        betas=(0.8 * rng.standard_normal(10)).astype(np.float32),
        fps=motion.fps / stride,
    )


def render_lab(motions: Sequence[Motion], body, count: int, name: str, folder: Path, seed: int) -> None:
    """Renders ``count`` crops into ``folder``; nothing to do if they are there."""
    if (folder / "labels.npz").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    backend = MeshBackend((IMAGE, IMAGE), body=body, style="lab")
    shares = np.array([len(motion) for motion in motions], float) ** 0.75  # short captures a little more often
    shares /= shares.sum()
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, STORED, STORED, 3))
    labels: dict[str, list] = {key: [] for key in ARRAYS}
    done, clip = 0, 0
    with tqdm(total=count, desc=f"render {name}", mininterval=20) as bar:
        while done < count:
            motion = lab_clip(motions, shares, f"{name}/{clip:05d}", seed)
            rendered = backend.render(motion, seed=int(rng_of(seed, f"render/{name}/{clip}").integers(2**31)))
            for person in RenderedClips([rendered])[: count - done]:
                images[done], values = store(person)
                for key, value in zip(ARRAYS, values):
                    labels[key].append(value)
                done += 1
                bar.update(1)
            clip += 1
    images.flush()
    np.savez(folder / "labels.npz", **{key: np.stack(values) for key, values in labels.items()})


def store(person: Person) -> tuple[np.ndarray, tuple]:
    """The crop and the labels that belong to it, in the order of ``ARRAYS``."""
    affine = crop_affine(person.box_xyxy, STORED, scale=1.2 * MARGIN)
    crop = warp(person.image.load(), affine, (STORED, STORED), "average")
    box = apply_affine(affine, person.box_xyxy.reshape(2, 2)).reshape(4)
    label = person.labels
    return crop, (
        box.astype(np.float32),
        apply_affine(affine, person.keypoints_px).astype(np.float32),
        person.visible,
        label.pose_rotmat,
        label.betas,
        label.transl_cam,
        label.joints_cam,
        crop_intrinsics(label.intrinsics, affine).astype(np.float32),
    )


class StoredCrops(Sequence[Person]):
    """The rendered crops as labelled persons."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        with np.load(folder / "labels.npz", allow_pickle=False) as stored:
            self.labels = {key: stored[key] for key in ARRAYS}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Person:  # type: ignore[override]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows = {key: values[index] for key, values in self.labels.items()}
        labels = BodyLabels(rows["pose_rotmat"], rows["betas"], rows["transl"], rows["joints"], rows["intrinsics"])
        image = ArrayImage(np.asarray(self.images[index]), f"{self.name}/{index}")
        return Person(image.name, image, rows["boxes"], rows["keypoints"], rows["visible"], "smpl45", labels=labels)


def set_mean_pose(model: HMR, crops: Sequence[StoredCrops]) -> None:
    """Starts the regressor from the mean local rotations of the training data; the root stays upright."""
    mean = torch.from_numpy(np.concatenate([part.labels["pose_rotmat"] for part in crops])).double().mean(0)
    u, _, vh = torch.linalg.svd(mean)
    turn = u @ torch.diag_embed(torch.stack([torch.ones(24), torch.ones(24), torch.linalg.det(u @ vh)], -1)) @ vh
    six = matrix_to_rot6d(turn.float(), layout=model.spec.rot6d_layout)
    model.regressor.init_pose[0, 6:] = six[1:].flatten()


def train_lifting(model: HMR, crops: Sequence[StoredCrops], steps: int, seed: int) -> None:
    """Trains what stands behind the joints' places on the true places, with noise; no image is looked at.

    Eight times as many persons per second as with images; later only the places are left to be learnt.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = lifting_batch(model, crops)
    parameters = [*model.neck.lift.parameters(), *model.regressor.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-4)
    pooled = torch.zeros(LIFTING_BATCH, model.backbone.feature_info.channels()[-1])
    for _ in tqdm(range(steps), desc="lifting", mininterval=20):
        rows = torch.randint(len(batch["betas"]), (LIFTING_BATCH,), generator=generator)
        own = turned({name: value[rows] for name, value in batch.items()}, generator)
        places = torch.cat((own["joints_norm"], own["joints"][..., 2:]), -1)[:, :SCORED_JOINTS]
        spread = 0.06 * torch.rand(LIFTING_BATCH, 1, 1, generator=generator)
        places = places + spread * torch.randn(places.shape, generator=generator)
        losses = model.losses_of(model.regress(model.neck.features_of(places, pooled)), own)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 30.0)
        optimizer.step()
        rate.step()


def lifting_batch(model: HMR, crops: Sequence[StoredCrops]) -> dict[str, torch.Tensor]:
    """The labels of all crops, as the network's own crop shows them, and their mirror images."""
    samples = []
    for mirrored in (False, True):
        for part in crops:
            for index in range(len(part)):
                sample = training_sample(part[index], model.spec, CropVariation(flip=mirrored))
                del sample["images"], sample["person_ids"]
                samples.append(sample)
    return collate(samples)


def turned(batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The batch turned about the camera axis, scaled and shifted at random."""
    count = len(batch["betas"])
    angle = torch.deg2rad(15 * torch.randn(count, generator=generator))
    cos, sin = angle.cos(), angle.sin()
    turn = torch.eye(3).repeat(count, 1, 1)
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = cos, -sin, sin, cos
    pose = batch["pose_rotmat"].clone()
    pose[:, 0] = turn @ pose[:, 0]
    zoom = 1 + 0.12 * torch.randn(count, 1, 1, generator=generator).clamp(-1.5, 1.5)
    shift = 0.06 * torch.randn(count, 1, 2, generator=generator)
    moved = {}
    for name in ("joints_norm", "keypoints_norm"):
        moved[name] = batch[name] @ turn[:, :2, :2].transpose(1, 2) * zoom + shift
    return {**batch, **moved, "joints": batch["joints"] @ turn.transpose(1, 2), "pose_rotmat": pose}


class Budget(pl.Callback):
    """Warm-up and cosine decay over minutes, not steps: nobody knows how many steps a shared machine will do."""

    def __init__(self, minutes: float, learning_rate: float, warmup_steps: int = 100) -> None:
        self.seconds, self.learning_rate, self.warmup_steps = minutes * 60, learning_rate, warmup_steps
        self.began: float | None = None

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.began = self.began or time.time()
        done = (time.time() - self.began) / self.seconds
        rise = min(1.0, (trainer.global_step + 1) / self.warmup_steps)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
        if done >= 1:
            trainer.should_stop = True


class Shipper(pl.Callback):
    """Writes the weights every ``every`` steps and notes the validation errors."""

    def __init__(self, out: Path, log: Path, val: Sequence[Person], every: int) -> None:
        self.out, self.log_path, self.val, self.every, self.began = out, log, val, every, time.time()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        if step % self.every == 0 or trainer.should_stop:
            scores = ship(module.estimator, self.out, self.val, step)
            loss = float(outputs["loss"])
            parts = {key: round(float(value), 2) for key, value in trainer.callback_metrics.items() if "/" in key}
            row = {
                "step": step,
                "minutes": round((time.time() - self.began) / 60, 1),
                "loss": round(loss, 3),
                **scores,
                **parts,
            }
            with open(self.log_path, "a") as handle:
                handle.write(json.dumps(row) + "\n")
            module.train()


def ship(model: HMR, out: Path, val: Sequence[Person], step: int) -> dict[str, float]:
    """Saves the weights in half precision and returns the validation errors."""
    scores = {key: round(value, 1) for key, value in evaluate(model, val).summary().items()}
    weights = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    save_weights(out, weights, {"estimator": model.spec.name, "steps": step, "lab_validation": scores})
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cmu"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("posesyn/assets/hmr_small.safetensors"))
    parser.add_argument("--crops", type=int, default=9_000)
    parser.add_argument("--val-crops", type=int, default=512)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--lifting-steps", type=int, default=300)
    parser.add_argument("--init", type=Path, help="go on from these weights, without the lifting steps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--ship-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--render-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    body = load_body(size="small")
    parts = {"val": [("val", args.val_crops)], "train": []}
    for start in range(0, args.crops, PART):
        parts["train"].append((f"train-{start // PART:02d}", min(PART, args.crops - start)))
    for split, names in parts.items():
        if not all((args.cache / name / "labels.npz").is_file() for name, _ in names):
            motions = lab_motions(args.data, args.cache, split, body)
            for name, count in names:
                render_lab(motions, body, count, name, args.cache / name, args.seed)
    if args.render_only:
        return
    train, val = ([StoredCrops(args.cache / name) for name, _ in parts[split]] for split in ("train", "val"))
    pl.seed_everything(args.seed)
    model = HMR.small(body=body)
    if args.init:
        model.load_checkpoint(args.init)
    else:
        set_mean_pose(model, train)
        train_lifting(model, train, args.lifting_steps, args.seed)
    module = PoseEstimatorModule(
        model,
        args.learning_rate,
        freeze_batchnorm=False,
        max_grad_norm=30.0,
    )
    data = MixedPoseDataModule(
        real=train, synthetic_fraction=0.0, batch_size=args.batch_size, seed=args.seed, augment=AUGMENT, spec=model.spec
    )
    trainer = pl.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[
            Budget(args.minutes, args.learning_rate),
            Shipper(args.out, args.cache / "log.jsonl", val[0][:], args.ship_every),
        ],
        enable_progress_bar=False,
    )
    trainer.fit(module, data)
    print((args.cache / "log.jsonl").read_text())


if __name__ == "__main__":
    main()
