"""Official-layout files of other seeds and batches against the networks written out plainly in float64.

torchvision's ResNets stand for the trunks, everything after them is spelt out here from
../shared/conformance/*/README.md and shares no line with posesyn.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from posesyn.estimators.crowdnet.network import CrowdNet
from posesyn.estimators.hmr import HMR
from posesyn.estimators.hmr2.network import HMR2
from posesyn.estimators.hybrik.network import HybrIK

torchvision = pytest.importorskip("torchvision")
pytestmark = pytest.mark.integration


def drawn(official, name: str, seed: int, licensed: bool = False) -> dict[str, torch.Tensor]:
    spec = {**official.spec(name), "seed": seed}
    arrays = official.fill.state(spec, given=official.vectors(name))
    if licensed:  # keys that official files hold; how large they are decides nothing
        arrays |= {key: np.zeros(1, dtype) for key, (_, dtype) in spec["ignored"].items()}
    return {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}


def picture(official, seed: int, batch: int, size: int, mean=(0, 0, 0), std=(1, 1, 1)) -> torch.Tensor:
    blocks = official.fill.blocks("input:image", (batch, 3, size, size), seed, 16)
    mean, std = (np.array(value, np.float32)[:, None, None] for value in (mean, std))
    return torch.from_numpy((official.fill.sigmoid(1.5 * blocks) - mean) / std)


def trunk(kind: str, weights: dict[str, torch.Tensor], prefix: str = ""):
    net = getattr(torchvision.models, kind)(weights=None)
    net.fc = torch.nn.Identity()
    own = net.state_dict()
    net.load_state_dict({name: weights[prefix + name] for name in own})
    return net.double().eval()


def columns(six: np.ndarray, rows_first: bool) -> np.ndarray:
    """One rotation from six numbers: 3 x 2 row by row (SPIN), or two vectors in a row (HMR2)."""
    a, b = (six[0::2], six[1::2]) if rows_first else (six[:3], six[3:])
    x = a / np.linalg.norm(a)
    y = b - (x @ b) * x
    y /= np.linalg.norm(y)
    return np.stack((x, y, np.cross(x, y)), axis=1)


def rotations(pose: torch.Tensor, rows_first: bool) -> np.ndarray:
    return np.array([[columns(six, rows_first) for six in row] for row in pose.view(len(pose), -1, 6).numpy()])


def agree(output, expected) -> None:
    for name, value in expected.items():
        found = output[name].detach().double().numpy()
        np.testing.assert_allclose(found, np.asarray(value), atol=1e-4, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(("seed", "batch"), [(11, 3)])
def test_hmr(official, tmp_path, body, seed, batch):
    weights = drawn(official, "hmr_spin", seed)
    torch.save({"model": weights, "optimizer": {}, "epoch": 1, "dataset_perm": [1, 0]}, tmp_path / "any_name.pt")
    model = HMR.from_official(tmp_path / "any_name.pt", body=body)
    images = picture(official, seed, batch, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    w = {name: value.double() for name, value in weights.items()}
    with torch.no_grad():
        output = model(images)
        features = trunk("resnet50", weights)(images.double())
        pose, betas, cam = (w[f"init_{part}"].expand(batch, -1) for part in ("pose", "shape", "cam"))
        for _ in range(3):
            x = torch.cat((features, pose, betas, cam), 1)
            for layer in ("fc1", "fc2"):
                x = x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]
            read = {n: x @ w[f"{n}.weight"].T + w[f"{n}.bias"] for n in ("decpose", "decshape", "deccam")}
            pose, betas, cam = pose + read["decpose"], betas + read["decshape"], cam + read["deccam"]
    cam_t = torch.stack((cam[:, 1], cam[:, 2], 2 * 5000 / (224 * cam[:, 0] + 1e-9)), 1)
    agree(output, {"rotmat": rotations(pose, True), "betas": betas, "cam": cam})
    # The translation divides by the scale: near 0 it has no digits to compare.
    clear = cam[:, 0].abs() > 0.05
    np.testing.assert_allclose(output["cam_t"][clear].double(), cam_t[clear], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("seed", "batch"), [(11, 3)])
def test_hmr2(official, tmp_path, body, seed, batch):
    weights = drawn(official, "hmr2", seed)
    torch.save({"state_dict": weights, "epoch": 1, "hyper_parameters": {}}, tmp_path / "any_name.ckpt")
    model = HMR2.from_official(tmp_path / "any_name.ckpt", body=body)
    images = picture(official, seed, batch, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    w = {name: value.double() for name, value in weights.items()}

    def linear(x, name):
        y = x @ w[f"{name}.weight"].T
        return y + w[f"{name}.bias"] if f"{name}.bias" in w else y

    def norm(x, name, eps):
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attend(q, k, v, heads):
        q, k, v = (part.view(batch, part.shape[1], heads, -1).transpose(1, 2) for part in (q, k, v))
        share = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return (share @ v).transpose(1, 2).reshape(batch, q.shape[2], -1)

    with torch.no_grad():
        output = model(images)
        seen = images.double()[..., 32:224]
        patches = F.conv2d(
            seen, w["backbone.patch_embed.proj.weight"], w["backbone.patch_embed.proj.bias"], stride=16, padding=2
        )
        x = patches.flatten(2).transpose(1, 2) + w["backbone.pos_embed"][:, 1:] + w["backbone.pos_embed"][:, :1]
        for block in (f"backbone.blocks.{i}" for i in range(2)):
            q, k, v = linear(norm(x, f"{block}.norm1", 1e-6), f"{block}.attn.qkv").chunk(3, -1)
            x = x + linear(attend(q, k, v, 16), f"{block}.attn.proj")
            hidden = F.gelu(linear(norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1"))
            x = x + linear(hidden, f"{block}.mlp.fc2")
        context = norm(x, "backbone.last_norm", 1e-6)
        head = "smpl_head.transformer"
        token = w[f"{head}.to_token_embedding.bias"] + w[f"{head}.pos_embedding"].expand(batch, -1, -1)
        for layer in (f"{head}.transformer.layers.{i}" for i in range(6)):
            q, k, v = linear(norm(token, f"{layer}.0.norm", 1e-5), f"{layer}.0.fn.to_qkv").chunk(3, -1)
            token = token + linear(attend(q, k, v, 8), f"{layer}.0.fn.to_out.0")
            q = linear(norm(token, f"{layer}.1.norm", 1e-5), f"{layer}.1.fn.to_q")
            k, v = linear(context, f"{layer}.1.fn.to_kv").chunk(2, -1)
            token = token + linear(attend(q, k, v, 8), f"{layer}.1.fn.to_out.0")
            hidden = F.gelu(linear(norm(token, f"{layer}.2.norm", 1e-5), f"{layer}.2.fn.net.0"))
            token = token + linear(hidden, f"{layer}.2.fn.net.3")
        token = token[:, 0]
        pose, betas, cam = (
            w[f"smpl_head.init_{own}"] + linear(token, f"smpl_head.{name}")
            for own, name in (("body_pose", "decpose"), ("betas", "decshape"), ("cam", "deccam"))
        )
    rotmat = rotations(pose, False)
    feature = context.transpose(1, 2).reshape(batch, 1280, 16, 12)
    agree(
        output,
        {"feature": feature, "global_orient": rotmat[:, :1], "body_pose": rotmat[:, 1:], "betas": betas, "cam": cam},
    )
    clear = cam[:, 0].abs() > 0.05
    cam_t = torch.stack((cam[:, 1], cam[:, 2], 2 * 5000 / (256 * cam[:, 0] + 1e-9)), 1)
    np.testing.assert_allclose(output["cam_t"][clear].double(), cam_t[clear], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("seed", "batch"), [(3, 1), (11, 3)])
def test_crowdnet(official, tmp_path, body, seed, batch):
    weights = drawn(official, "crowdnet", seed, licensed=True)
    torch.save({"epoch": 6, "network": weights, "optimizer": {}}, tmp_path / "any_name.pth.tar")
    model = CrowdNet.from_official(tmp_path / "any_name.pth.tar", body=body)
    fill, spec = official.fill, official.spec("crowdnet")
    images = picture(official, seed, batch, 256)
    joints = torch.from_numpy(64 * fill.sigmoid(fill.tensor("input:joints", (batch, 30, 2), seed)))
    mask = torch.from_numpy((fill.tensor("input:mask", (batch, 30, 1), seed) > -0.8).astype(np.float32))
    w = {name.removeprefix("module."): value.double() for name, value in weights.items()}
    net = trunk("resnet50", weights, "module.backbone.")

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def batch_norm(x, name):
        scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
        return (x - w[f"{name}.running_mean"]) * scale + w[f"{name}.bias"]

    adjacency = torch.eye(15, dtype=torch.float64)
    for a, b in spec["graph_edges"]["skeleton"] + spec["graph_edges"]["flip_pairs"]:
        adjacency[a, b] = adjacency[b, a] = 1
    root_degree = adjacency.sum(1).rsqrt()
    adjacency = root_degree[:, None] * adjacency * root_degree

    def graph(x, name):
        parts = [batch_norm(linear(x[:, j], f"{name}.fcbn_list.{j}.0"), f"{name}.fcbn_list.{j}.1") for j in range(15)]
        return (adjacency @ torch.stack(parts, 1)).relu()

    with torch.no_grad():
        output = model(images, joints, mask)
        stem = net.maxpool(net.relu(net.bn1(net.conv1(images.double()))))
        y, x = torch.meshgrid(*[torch.arange(64, dtype=torch.float64)] * 2, indexing="ij")
        at = joints.double()[..., None, None]
        heat = torch.exp(-((x - at[:, :, 0]) ** 2 + (y - at[:, :, 1]) ** 2) / (2 * 2.5**2)) * mask[..., None]
        fused = F.conv2d(
            torch.cat((stem, heat), 1), w["pose2feat.conv.0.weight"], w["pose2feat.conv.0.bias"], padding=1
        )
        early = batch_norm(fused.movedim(1, -1), "pose2feat.conv.1").movedim(-1, 1).relu()
        feature = net.layer4(net.layer3(net.layer2(net.layer1(early))))
        volume = F.conv2d(feature, w["position_net.conv.0.weight"], w["position_net.conv.0.bias"])
        volume = volume.view(batch, 15, 512).softmax(-1).view(batch, 15, 8, 8, 8)
        cells = torch.arange(8, dtype=torch.float64)
        place = torch.stack(
            [(volume.sum(rest) * cells).sum(-1) for rest in ((2, 3), (2, 4), (3, 4))], dim=-1
        )  # x, y, z
        grid = place / 7 * 2 - 1
        score = torch.stack(
            [
                F.grid_sample(volume[:, j : j + 1], grid[:, j].view(batch, 1, 1, 1, 3), align_corners=True).view(batch)
                for j in range(15)
            ],
            dim=1,
        )[..., None]
        found = F.grid_sample(feature, grid[:, :, None, :2], align_corners=True)[..., 0].transpose(1, 2)
        x = graph(torch.cat((found, place, score), -1), "rotation_net.graph_block.0")
        for i in range(1, 5):
            block = f"rotation_net.graph_block.{i}"
            x = x + graph(graph(x, f"{block}.graph_block1"), f"{block}.graph_block2")
        flat = x.reshape(batch, -1)
        root, latent, betas, cam = (
            linear(flat, f"rotation_net.{name}_out.0") for name in ("root_pose", "pose", "shape", "cam")
        )
        hidden = latent
        for layer in ("fc1", "fc2"):
            hidden = F.leaky_relu(linear(hidden, f"vposer.vposer.bodyprior_dec_{layer}"), 0.2)
        body_pose = rotations(linear(hidden, "vposer.vposer.bodyprior_dec_out"), True)
    depth = 48.828125 * cam[:, 2:].sigmoid()
    agree(
        output,
        {
            "joint_img": place * 8, "joint_score": score, "root_rot6d": root, "z": latent, "betas": betas, "cam": cam,
            "cam_t": torch.cat((cam[:, :2], depth), 1), "pose2feat": early, "feature": feature,
            "graph_adj": adjacency,
        },
    )  # fmt: skip
    rotmat = output["pose_rotmat"].double().numpy()
    np.testing.assert_allclose(rotmat[:, :1], rotations(root, True), atol=1e-4)
    np.testing.assert_allclose(rotmat[:, 1:22], body_pose, atol=1e-4)
    np.testing.assert_allclose(rotmat[:, 22:], np.broadcast_to(np.eye(3), (batch, 2, 3, 3)), atol=1e-6)


@pytest.mark.parametrize(("seed", "batch"), [(11, 3)])
def test_hybrik(official, tmp_path, body, seed, batch):
    weights = drawn(official, "hybrik", seed, licensed=True)
    torch.save(weights, tmp_path / "any_name.pth")
    model = HybrIK.from_official(tmp_path / "any_name.pth", body=body)
    images = picture(official, seed, batch, 256, (0.406, 0.457, 0.480), (0.225, 0.224, 0.229))
    corner = torch.tensor([[40.0, 25.0], [300.0, 10.0], [-20.0, 70.0]])[:batch]
    boxes = torch.cat((corner, corner + torch.tensor([[200.0], [150.0], [310.0]])[:batch]), 1)
    centre = torch.tensor([[320.0, 240.0], [250.0, 180.0], [100.0, 90.0]])[:batch]
    w = {name: value.double() for name, value in weights.items() if value.is_floating_point()}
    net = trunk("resnet34", weights, "preact.")

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    with torch.no_grad():
        output, free = model(images, boxes, centre), model(images)
        x = net.maxpool(net.relu(net.bn1(net.conv1(images.double()))))
        feature = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        x = feature
        for i in (0, 3, 6):
            x = F.conv_transpose2d(x, w[f"deconv_layers.{i}.weight"], stride=2, padding=1)
            name = f"deconv_layers.{i + 1}"
            x = F.batch_norm(
                x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"]
            ).relu()
        x = F.conv2d(x, w["final_layer.weight"], w["final_layer.bias"])
        volume = x.view(batch, 29, -1).softmax(-1)
        largest = volume.max(-1, keepdim=True).values
        volume = volume.view(batch, 29, 64, 64, 64)
        cells = torch.arange(64, dtype=torch.float64)
        uvd = torch.stack([(volume.sum(rest) * cells).sum(-1) for rest in ((2, 3), (2, 4), (3, 4))], -1) / 64 - 0.5
        hidden = linear(linear(feature.mean((2, 3)), "fc1"), "fc2")
        betas, cam = linear(hidden, "decshape") + w["init_shape"], linear(hidden, "deccam") + w["init_cam"]
        phi, sigma = linear(hidden, "decphi").view(batch, 23, 2), linear(hidden, "decsigma").sigmoid()[..., None]
    distance = 1000 / (256 * cam[:, :1, None] + 1e-9)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    offset = ((middle - centre) / (boxes[:, 2:] - boxes[:, :2]))[:, None].double()
    depth = 2.2 * uvd[..., 2:]
    for result, xy, suffix in (
        (output, (uvd[..., :2] + offset) * 256 / 1000 * (depth + distance), "with a box"),
        (free, uvd[..., :2] * 256 / 1000 * (depth + distance) - cam[:, None, 1:], "without"),
    ):
        placed = torch.cat((xy, depth), -1)
        root = torch.cat((placed[:, 0, :2], placed[:, 0, 2:] + distance[:, 0]), 1)
        for name, value in (("skeleton", placed - placed[:, :1]), ("root", root)):
            np.testing.assert_allclose(result[name].double(), value, atol=1e-4, rtol=1e-4, err_msg=f"{name} {suffix}")
    agree(
        output,
        {"feature": feature, "uvd": uvd, "heatmap_max": largest, "phi": phi, "betas": betas, "cam": cam,
         "sigma": sigma},
    )  # fmt: skip
