"""Images per second of the pose networks, forward only and forward with backward.

    python benchmarks/estimators.py [--json estimators.json] [--batch 8] [--threads 2] [--networks hmr crowdnet ...]

Beside each network stands, in the same run on the same weights, the same network as one writes it down first: images
channel by channel (NCHW), gradients on, one linear layer after the other for the joints of a graph, a softmax written
out over the volumes. ``official`` are the speeds that the published codes were seen to have on a 2-core x86-64 machine
with nothing else running; compare them with figures of an idle machine only.

Weights are random: they do not change the work. Best of the repeats. ``--clock cpu`` with one thread counts seconds of
the processor instead of the wall's: ratios to the naive networks on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from timm.layers import set_fused_attn
from torch import Tensor, nn
from torch.nn import functional

from posesyn.body import load_body
from posesyn.estimators.crowdnet.layers import body_pose_of
from posesyn.estimators.crowdnet.network import CrowdNet
from posesyn.estimators.hmr import HMR
from posesyn.estimators.hmr2.network import HMR2
from posesyn.estimators.hybrik.network import HybrIK, solve_pose
from posesyn.geometry.rotations import rot6d_to_matrix

# (forward, forward + backward) of the published codes, where known.
OFFICIAL = {"hmr": (20.5, 4.4), "crowdnet": (11.5, None), "hybrik": (8.3, None), "hmr2": (None, None)}
# A backward pass of HMR2 keeps about a gigabyte per image beside 5 GB of weights and gradients.
BACKWARD_BATCH = {"hmr2": 2}
Outputs = tuple[Tensor, ...]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CLOCK = CLOCKS["wall"]


class NaiveHmr:
    def __init__(self, model: HMR) -> None:
        self.model = model

    def __call__(self, images: Tensor) -> Outputs:
        maps = self.model.backbone(images)[-1]
        found = self.model.regress(functional.avg_pool2d(maps, 7).flatten(1))
        return found["pose_rotmat"], found["betas"], found["cam"]


class NaiveCrowdNet:
    def __init__(self, model: CrowdNet) -> None:
        self.model = model
        self.graph = [self._layers(block) for block in self._convolutions()]

    def _convolutions(self) -> list[nn.Module]:
        first, *blocks = self.model.rotation_net.graph_block
        return [first, *(part for block in blocks for part in (block.graph_block1, block.graph_block2))]

    def _layers(self, block: nn.Module) -> list[nn.Sequential]:
        state, layers = block.state_dict(), []
        outputs, inputs = block.weight.shape[1:]
        for joint in range(15):
            layer = nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))
            layer.load_state_dict({name: state[f"fcbn_list.{joint}.{name}"] for name in layer.state_dict()})
            layers.append(layer)
        return layers

    def _graph(self, index: int, features: Tensor) -> Tensor:
        for layer in self.graph[index]:
            layer.train(self.model.training)
        mixed = [layer(features[:, joint]) for joint, layer in enumerate(self.graph[index])]
        return torch.relu(self.model.rotation_net.adjacency @ torch.stack(mixed, 1))

    def __call__(self, images: Tensor, joints: Tensor, mask: Tensor) -> Outputs:
        model, trunk = self.model, self.model.backbone
        y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        square = (x - joints[..., 0, None, None]) ** 2 + (y - joints[..., 1, None, None]) ** 2
        heatmaps = torch.exp(-square / (2 * 2.5**2)) * mask[..., None]
        early = trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(images))))
        early = model.pose2feat.conv(torch.cat((early, heatmaps), 1))
        maps = trunk.layer4(trunk.layer3(trunk.layer2(trunk.layer1(early))))
        volume = functional.softmax(model.position_net.conv(maps).view(-1, 15, 512), 2).view(-1, 15, 8, 8, 8)
        cells = torch.arange(8.0)
        places = [(volume.sum(dims) * cells).sum(2) for dims in ((2, 3), (2, 4), (3, 4))]
        places = torch.stack(places, 2)
        grid = places / 7 * 2 - 1
        score = functional.grid_sample(
            volume.reshape(-1, 1, 8, 8, 8), grid.view(-1, 1, 1, 1, 3), align_corners=True
        ).view(-1, 15, 1)
        features = functional.grid_sample(maps, grid[:, :, None, :2].detach(), align_corners=True)[..., 0]
        features = self._graph(0, torch.cat((features.transpose(1, 2), places, score), 2))
        for index in range(1, len(self.graph), 2):
            features = features + self._graph(index + 1, self._graph(index, features))
        flat, net = features.flatten(1), model.rotation_net
        pose = body_pose_of(model.vposer(net.pose_out(flat)), rot6d_to_matrix(net.root_pose_out(flat)))
        betas, cam = net.shape_out(flat), net.cam_out(flat)
        return model.body(pose, betas).vertices, betas, cam


class NaiveHybrik:
    def __init__(self, model: HybrIK) -> None:
        self.model = model

    def __call__(self, images: Tensor) -> Outputs:
        model = self.model
        maps = model.preact(images)
        scores = model.final_layer(model.deconv_layers(maps)).reshape(-1, 29, 64**3)
        share = functional.softmax(scores, 2)
        share = (share / share.sum(2, keepdim=True)).view(-1, 29, 64, 64, 64)
        cells = torch.arange(64.0)
        axes = [(share.sum(dims) * cells).sum(2) / 64 - 0.5 for dims in ((2, 3), (2, 4), (3, 4))]
        uvd = torch.stack(axes, 2)
        hidden = model.drop2(model.fc2(model.drop1(model.fc1(functional.avg_pool2d(maps, 8).flatten(1)))))
        betas, cam = model.decshape(hidden) + model.init_shape, model.deccam(hidden) + model.init_cam
        depth = 1000 / (256 * cam[:, :1, None] + 1e-9)
        joints = torch.cat((uvd[..., :2] * 0.256 * (2.2 * uvd[..., 2:] + depth), 2.2 * uvd[..., 2:]), 2)
        rest = model.posed_joints(torch.eye(3).expand(len(images), 24, 3, 3), betas)
        pose, _ = solve_pose(joints - joints[:, :1], rest, model.decphi(hidden).view(-1, 23, 2))
        return model.body(pose, betas).vertices, betas, cam


class NaiveHmr2:
    def __init__(self, model: HMR2) -> None:
        self.model = model

    def __call__(self, images: Tensor) -> Outputs:
        fused = [(block.attn, block.attn.fused_attn) for block in self.model.backbone.blocks]
        for attention, _ in fused:
            attention.fused_attn = False
        found = self.model(images)
        for attention, value in fused:
            attention.fused_attn = value
        return found["pose_rotmat"], found["betas"], found["cam"]


def ours(name: str, model: nn.Module) -> Callable[..., Outputs]:
    """The network as posesyn runs it; with the body where the published code has it in its forward pass."""

    def run(*inputs: Tensor) -> Outputs:
        found = model(*inputs)
        if name in ("crowdnet", "hybrik"):
            return model.body(found["pose_rotmat"], found["betas"]).vertices, found["betas"], found["cam"]
        return found["pose_rotmat"], found["betas"], found["cam"]

    return run


NETWORKS = {
    "hmr": (HMR, NaiveHmr),
    "crowdnet": (CrowdNet, NaiveCrowdNet),
    "hybrik": (HybrIK, NaiveHybrik),
    "hmr2": (HMR2, NaiveHmr2),
}


def inputs_of(name: str, model: nn.Module, batch: int, layout: torch.memory_format) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, *model.spec.input_size, generator=generator).contiguous(memory_format=layout)
    if name != "crowdnet":
        return (images,)
    return images, 64 * torch.rand(batch, 30, 2, generator=generator), torch.ones(batch, 30, 1)


def forward_seconds(run: Callable[..., Outputs], inputs: tuple[Tensor, ...], inference: bool) -> float:
    start = CLOCK()
    with torch.inference_mode(inference):
        run(*inputs)
    return CLOCK() - start


def backward_seconds(run: Callable[..., Outputs], inputs: tuple[Tensor, ...], model: nn.Module) -> float:
    model.zero_grad(set_to_none=True)
    start = CLOCK()
    sum(value.square().mean() for value in run(*inputs)).backward()
    return CLOCK() - start


def best(measure: Callable[[], float], repeats: int) -> float:
    measure()
    return min(measure() for _ in range(repeats))


def bench(name: str, batch: int, repeats: int, backward: bool) -> dict[str, float | str | int | None]:
    kind, naive_kind = NETWORKS[name]
    torch.manual_seed(0)
    model = kind(body=load_body()).eval()
    last, first = torch.channels_last, torch.contiguous_format
    row: dict[str, float | str | int | None] = {"network": name, "batch": batch}
    row["forward"] = batch / best(
        lambda: forward_seconds(ours(name, model), inputs_of(name, model, batch, last), True), repeats
    )
    small = BACKWARD_BATCH.get(name, batch)
    if backward:
        model.train()
        few = inputs_of(name, model, small, last)
        row["backward_batch"] = small
        row["forward_backward"] = small / best(lambda: backward_seconds(ours(name, model), few, model), repeats)
        model.zero_grad(set_to_none=True)
    model.eval().to(memory_format=first)
    naive = naive_kind(model)
    row["naive_forward"] = batch / best(
        lambda: forward_seconds(naive, inputs_of(name, model, batch, first), False), repeats
    )
    if backward:
        model.train()
        few = inputs_of(name, model, small, first)
        row["naive_forward_backward"] = small / best(lambda: backward_seconds(naive, few, model), repeats)
    row["official_forward"], row["official_forward_backward"] = OFFICIAL[name]
    return row


def ratio(row: dict, value: str, base: str) -> str:
    return f"{row[value] / row[base]:.2f}" if row.get(value) and row.get(base) else "-"


def shown(row: dict, value: str, width: int) -> str:
    return f"{row[value]:>{width}.2f}" if row.get(value) else f"{'-':>{width}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="estimators.json", help="where the figures are written")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--no-backward", action="store_true")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    options = parser.parse_args()
    global CLOCK
    CLOCK = CLOCKS[options.clock]
    torch.set_num_threads(options.threads)
    set_fused_attn(True)
    load = os.getloadavg()[0]
    print(f"batch {options.batch}, {options.threads} threads, float32, per second of the {options.clock} clock")
    print(f"load average {load:.1f} on {os.cpu_count()} cores")
    print(f"{'images/s':<12}{'forward':>9}{'naive':>9}{'ratio':>7}{'official':>10}{'ratio':>7}", end="")
    print(f"{'with backward':>16}{'naive':>9}{'ratio':>7}")
    rows = []
    for name in options.networks:
        row = bench(name, options.batch, options.repeats, not options.no_backward)
        rows.append(row)
        print(f"{name:<12}{shown(row, 'forward', 9)}{shown(row, 'naive_forward', 9)}", end="")
        print(f"{ratio(row, 'forward', 'naive_forward'):>7}{shown(row, 'official_forward', 10)}", end="")
        print(f"{ratio(row, 'forward', 'official_forward'):>7}{shown(row, 'forward_backward', 16)}", end="")
        print(f"{shown(row, 'naive_forward_backward', 9)}", end="")
        print(f"{ratio(row, 'forward_backward', 'naive_forward_backward'):>7}", flush=True)
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "clock": options.clock,
        "torch": torch.__version__,
        "load_average_before": load,
        "load_average_after": os.getloadavg()[0],
        "rows": rows,
    }
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(f"load average at the end {result['load_average_after']:.1f}; written to {options.json}")


if __name__ == "__main__":
    main()
