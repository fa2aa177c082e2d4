"""Seconds of a PoseAug GAN iteration and of a lifter step, batch 1024, and their peak memory.

    OMP_NUM_THREADS=2 python benchmarks/poseaug_speed.py [--json poseaug_speed.json] [--repeats 8]

The baseline is the plain formulation, in the same run, on the same weights and data: bones and joints in Python loops,
the rotation as a matrix built per pose, KCS matrices of 15 x 15 for each of five branches, weight gradients computed
for networks that are not being trained, the scores of real poses in the augmentor's loss, three separate passes of the
lifter with gradients. Both have the published mathematics (``recipe="official"``: the lifter in train mode);
``default`` is timed too: it holds the lifter's normalisation still, averages the augmentor and penalises the
discriminators' gradient.
A ``lifter`` step learns from a batch of data; a ``mixed`` one, that of the default recipe, from as many fakes beside
it, and makes them. A discriminator step falls on every second iteration; repeats are even: both kinds weigh the same.
Memory is the growth of the process's peak, each figure in a process of its own. ``products`` is the time that the
step's matrix products alone would take at the rate of one large product on this machine: nothing gets below it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from posesyn import skeletons
from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.estimators.lifters.lifter import make_lifter
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.settings.lifters import PoseAugSettings
from posesyn.synthesis.augmentation import losses
from posesyn.synthesis.augmentation.bones import FROZEN_BONES, KCS_PARTS, RATIO_OF_BONE, project_normalised
from posesyn.training.lifters.poseaug import PoseAugModule

BATCH = 1024
PARENTS = skeletons.get("poseaug16").parents
TARGETS = {("mlp", "gan"): 0.30, ("videopose", "gan"): 0.95, ("mlp", "lifter"): 0.12, ("videopose", "lifter"): 0.80}
OFFICIAL = {("mlp", "gan"): 0.52, ("videopose", "gan"): 1.41, ("mlp", "lifter"): 0.17, ("videopose", "lifter"): 1.05}


def random_pairs(count: int = 4 * BATCH) -> PosePairs:
    """Poses of about human size before a camera; the time does not depend on what they show."""
    rng = np.random.default_rng(0)
    bones = rng.normal(size=(count, 15, 3))
    bones *= 0.3 / np.linalg.norm(bones, axis=-1, keepdims=True)
    joints = np.zeros((count, 16, 3))
    for child in range(1, 16):
        joints[:, child] = joints[:, PARENTS[child]] - bones[:, child - 1]
    joints[:, :, 2] += 6
    cameras = np.tile([2.29, 2.29, 0, 0, -0.2, 0.2, 0, 0, 0], (count, 1))
    flat = project_normalised(torch.as_tensor(joints), torch.as_tensor(cameras)).numpy()
    return PosePairs(joints, flat, cameras, subjects=rng.integers(0, 5, count).astype(str))


class _Loose(PoseAugModule):
    """The module without a Trainer around it."""

    current_epoch = 5

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._made = self.configure_optimizers()
        self.source.swap_bones(torch.Generator())

    def optimizers(self):
        return self._made

    def manual_backward(self, loss: Tensor) -> None:
        loss.backward()

    def log(self, *args, **kwargs) -> None:
        pass

    def log_dict(self, *args, **kwargs) -> None:
        pass


def _bones(pose: Tensor) -> Tensor:
    return torch.stack([pose[:, PARENTS[child]] - pose[:, child] for child in range(1, 16)], 1)


def _joints(bones: Tensor) -> Tensor:
    joints = [bones.new_zeros(len(bones), 3)]
    for child in range(1, 16):
        joints.append(joints[PARENTS[child]] - bones[:, child - 1])
    return torch.stack(joints, 1)


def plain_augment(g: nn.Module, pose: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The augmentor's steps written down one after the other."""
    root = pose[:, :1]
    flat = (pose - root).flatten(1)
    bones = _bones(pose)
    length = bones.norm(dim=-1, keepdim=True)
    unit = bones / length
    change = g.BAprocess._run("", (flat, torch.randn(len(pose), 48))).view(-1, 15, 3)
    turned = []
    for bone in range(15):
        new = unit[:, bone] + change[:, bone]
        turned.append(unit[:, bone] if bone in FROZEN_BONES else new / new.norm(dim=-1, keepdim=True))
    new = torch.stack(turned, 1)
    pose_ba = _joints(new * length) + root
    difference = 1 - (new * unit).sum(-1)
    again = _bones(pose_ba)
    ratios = g.BLprocess(flat, length[..., 0], torch.randn(len(pose), 48))
    scaled = torch.stack([again[:, b] * (1 + ratios[:, RATIO_OF_BONE[b]])[:, None] for b in range(15)], 1)
    pose_bl = _joints(scaled) + root
    rotvec, moved, _ = g.RTprocess(flat, torch.randn(len(pose), 48), torch.randn(len(pose), 48))
    pose_rt = (rotvec_to_matrix(rotvec) @ (pose_bl - pose_bl[:, :1]).mT).mT + moved[:, None]
    return pose_ba, difference, ratios, pose_rt


def plain_d3d(d: nn.Module, pose: Tensor) -> Tensor:
    """Five branches, each with its own bones and its full 15 x 15 matrix."""
    scores = []
    for branch, part in zip(d.children(), KCS_PARTS):
        bones = _bones(pose)
        unit = bones / bones.norm(dim=-1, keepdim=True)
        mask = torch.zeros(15, 1)
        mask[list(part)] = 1
        kcs = ((unit * mask) @ (unit * mask).mT).flatten(1)
        first = functional.leaky_relu(branch.kcs_layer_1(kcs))
        x = branch.kcs_layer_3(functional.leaky_relu(branch.kcs_layer_2(first))) + first
        scores.append(branch.layer_pred(functional.leaky_relu(branch.layer_last(x))))
    return torch.cat(scores, 1)


def plain_gan_step(module: _Loose, rows: Tensor, rows_3d: Tensor, rows_2d: Tensor) -> None:
    """The plain iteration."""
    pose, flat, camera = module.source(rows)
    real_3d, real_2d = module.source(rows_3d)[0], module.source(rows_2d)[1]
    module.lifter.train()
    pose_ba, difference, ratios, pose_rt = plain_augment(module.augmentor, pose)
    flat_ba, flat_rt = project_normalised(pose_ba, camera), project_normalised(pose_rt, camera)
    errors = [
        losses.group_errors(module.lifter(points), target)
        for points, target in ((flat, pose), (flat_ba, pose_ba), (flat_rt, pose_rt))
    ]
    terms = losses.feedback_loss(*errors, losses.FeedbackWeights(), 5, 50)
    turned, scaled = losses.change_loss(difference, ratios)
    total = (
        losses.generator_adversarial(module.d2d(real_2d), module.d2d(flat_rt))
        + 6 * losses.generator_adversarial(plain_d3d(module.d3d, real_3d), plain_d3d(module.d3d, pose_ba))
        + 3 * (turned + scaled) + 0.1 * terms[0] + 0.01 * terms[1]
    )  # fmt: skip
    module.zero_grad(set_to_none=True)
    module._step("augmentor", total)
    if module.counter % 2 == 0:
        for name, network, real, fake in (
            ("3d", lambda x: plain_d3d(module.d3d, x), real_3d, pose_ba),
            ("2d", module.d2d, real_2d, flat_rt),
        ):
            old = module.pools[name](fake)
            loss = losses.discriminator_adversarial(network(real), network(old))
            module._step(f"d{name}", loss)
    module.counter += 1


def measured(name: str, form: str, what: str, repeats: int) -> dict:
    """Median and spread of the seconds of one step, and the growth of the peak memory."""
    torch.manual_seed(0)
    pairs = random_pairs()
    recipe = "default" if form == "default" else "official"
    module = _Loose(make_lifter(name), pairs, settings=PoseAugSettings(recipe=recipe), seed=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def step() -> None:
        rows = [torch.randint(len(pairs), (BATCH,)) for _ in range(3)]
        if what == "gan" and form == "plain":
            plain_gan_step(module, *rows)
        elif what == "gan":
            module.gan_step(*rows)
            module.fakes = []
        elif what == "mixed":
            module.lifter_step(*module.source.recorded(rows[0]), module.source.fakes(module.average, rows[1]))
        elif form == "plain":
            module.lifter.train()
            flat, target = module.source.recorded(rows[0])
            loss = functional.mse_loss(plain_lifter(module.lifter, flat), target)
            module._step("lifter", loss)
        else:
            module.lifter_step(*module.source.recorded(rows[0]))

    times = []
    for repeat in range(-2, repeats):
        start = time.perf_counter()
        step()
        if repeat >= 0:
            times.append(time.perf_counter() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    pairs_of_steps = np.array(times).reshape(-1, 2).mean(1)
    with FlopCounterMode(display=False) as counter:
        step(), step()
    work = counter.get_total_flops() / 2
    return {
        "lifter": name, "form": form, "step": what, "seconds": float(np.median(pairs_of_steps)),
        "least": float(pairs_of_steps.min()), "most": float(pairs_of_steps.max()), "peak_mb": peak,
        "gflop": work / 1e9, "products_alone": work / rate_of_products(),
    }  # fmt: skip


def rate_of_products() -> float:
    """Operations per second of a plain product of two matrices, the best of twenty."""
    a, b, best = torch.rand(1024, 1024), torch.rand(1024, 1024), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best


def plain_lifter(lifter: nn.Module, flat: Tensor) -> Tensor:
    """VideoPose as convolutions over one frame; the others have no plainer form."""
    if lifter.name != "videopose":
        return lifter(flat)

    def layer(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
        return functional.dropout(functional.relu(norm(conv(x))), lifter.dropout, lifter.training)

    x = layer(lifter.expand_conv, lifter.expand_bn, flat.flatten(1)[..., None])
    for stage in range(lifter.stages):
        hidden = layer(lifter.layers_conv[2 * stage], lifter.layers_bn[2 * stage], x)
        x = x + layer(lifter.layers_conv[2 * stage + 1], lifter.layers_bn[2 * stage + 1], hidden)
    out = lifter.shrink(x)[..., 0].view(-1, 15, 3)
    return torch.cat((out.new_zeros(len(out), 1, 3), out), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lifters", nargs="*", default=["mlp", "videopose"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repeats % 2:
        parser.error("--repeats must be even")
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(measured(*options.one, options.repeats)))
        return
    rows = []
    heads = f"{'seconds':>9}{'range':>14}{'products':>10}{'peak MB':>9}{'target':>8}{'official code':>15}"
    print(f"{'lifter':<10}{'step':<8}{'form':<10}{heads}")
    for name in options.lifters:
        forms = {"gan": ("plain", "official", "default"), "lifter": ("plain", "default"), "mixed": ("default",)}
        for what in forms:
            for form in forms[what]:
                numbers = ["--repeats", str(options.repeats), "--threads", str(options.threads)]
                command = [sys.executable, __file__, *numbers, "--one", name, form, what]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                row = json.loads(done.stdout.splitlines()[-1])
                rows.append(row)
                known = f"{TARGETS.get((name, what), '-'):>8}{OFFICIAL.get((name, what), '-'):>15}"
                took = f"{row['seconds']:>9.3f}{row['least']:>8.3f}-{row['most']:.3f}{row['products_alone']:>10.3f}"
                print(f"{name:<10}{what:<8}{form:<10}{took}{row['peak_mb']:>9.0f}{known}", flush=True)
    if options.json:
        machine = {"machine": platform.processor(), "torch": torch.__version__}
        about = {"threads": options.threads, "batch": BATCH, **machine}
        with open(options.json, "w") as file:
            json.dump({"about": about, "rows": rows, "targets": [[*k, v] for k, v in TARGETS.items()]}, file, indent=1)


if __name__ == "__main__":
    main()
