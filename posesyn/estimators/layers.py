"""Layers that several networks share: a folded ResNet, volumes of joint positions, the iterative regressor."""

from __future__ import annotations

import torch
from jaxtyping import Float
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn import functional

from posesyn.estimators.weights import fold


def is_foldable(trunk: nn.Module) -> bool:
    """Whether :func:`folded_forward` gives what ``trunk`` gives and no gradient is asked for.

    True for timm's plain ResNets (also as ``features_only``) in eval mode where gradients are off. A compiled trunk is
    left to its compiler.
    """
    if trunk._compiled_call_impl is not None:
        return False
    if torch.is_grad_enabled() or trunk.training or not hasattr(trunk, "layer4") or not hasattr(trunk, "conv1"):
        return False
    return isinstance(trunk.conv1, nn.Conv2d) and all(
        _is_plain(block) for number in (1, 2, 3, 4) for block in getattr(trunk, f"layer{number}")
    )


def _is_plain(block: nn.Module) -> bool:
    if type(block) not in (BasicBlock, Bottleneck) or block.se is not None:
        return False
    extras = (block.drop_block, block.aa, getattr(block, "drop_path", None))
    simple = all(extra is None or isinstance(extra, nn.Identity) for extra in extras)
    return simple and (block.downsample is None or len(block.downsample) == 2)


def folded_forward(trunk: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
    """The last feature map."""
    return folded_stages(trunk, folded_stem(trunk, images))


def folded_stem(trunk: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 64 h w"]:
    """First convolution and pooling."""
    return trunk.maxpool(_convolve(images, trunk.conv1, trunk.bn1))


def folded_stages(trunk: nn.Module, maps: Float[Tensor, "B 64 h w"]) -> Float[Tensor, "B C h w"]:
    """The four residual stages."""
    for number in (1, 2, 3, 4):
        for block in getattr(trunk, f"layer{number}"):
            maps = _residual(block, maps)
    return maps


def _residual(block: nn.Module, maps: Tensor) -> Tensor:
    shortcut = maps if block.downsample is None else _convolve(maps, *block.downsample, relu=False)
    inner = _convolve(maps, block.conv1, block.bn1)
    if isinstance(block, BasicBlock):
        return _convolve(inner, block.conv2, block.bn2, shortcut)
    return _convolve(_convolve(inner, block.conv2, block.bn2), block.conv3, block.bn3, shortcut)


def _convolve(
    maps: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d, added: Tensor | None = None, *, relu: bool = True
) -> Tensor:
    """Convolution and normalisation, then ``added``, then ReLU."""
    # Folded anew in every call: a percent or two of the time, and it can never be out of date.
    weight, bias = fold(convolution.weight, norm)
    return convolve(maps, weight, bias, convolution.stride, convolution.padding, added, relu)


# oneDNN's convolution with what follows it in the same pass over memory, as torch.compile uses it on CPUs.
_ONE_PASS = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if torch.backends.mkldnn.is_available() else None


def convolve(
    maps: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, ...], padding: tuple[int, ...],
    added: Tensor | None = None, relu: bool = True,
) -> Tensor:  # fmt: skip
    """Convolution, then ``added``, then ReLU; no gradients."""
    plain = maps.device.type == "cpu" and maps.dtype == weight.dtype == torch.float32
    if _ONE_PASS is None or not plain or torch.is_autocast_enabled("cpu"):
        result = functional.conv2d(maps, weight, bias, stride, padding)
        result = result if added is None else result.add_(added)
        return result.relu_() if relu else result
    shape = (list(padding), list(stride), [1, 1], 1)
    if added is None:
        return _ONE_PASS(maps, weight, bias, *shape, "relu" if relu else "none", [], "")
    return _ONE_PASS.binary(maps, added, weight, bias, *shape, "add", 1.0, "relu" if relu else None, [], None)


# Of 64 cells of depth and 64² places: 8 MB. Our own choice.
_JOINTS_AT_ONCE = 8


def gaussian_heatmaps(
    places: Float[Tensor, "B J 2"], mask: Float[Tensor, "B J 1"], size: int = 64, sigma: float = 2.5
) -> Float[Tensor, "B J size size"]:
    """One Gaussian of peak 1 for each joint, rows are y; zero where the mask is 0 (3DCrowdNet). Places and sigma are in
    cells."""
    cells = torch.arange(size, dtype=places.dtype, device=places.device)
    falloff = torch.exp(-0.5 * ((cells - places[..., None]) / sigma).square())
    return (mask[..., None] * falloff[:, :, 1, :, None]) * falloff[:, :, 0, None, :]


def softargmax3d(logits: Float[Tensor, "B J D H W"]) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B J D H W"]]:
    """Expected index (x, y, z) under the softmax over the volume, and that softmax."""
    share = logits.flatten(2).softmax(-1).view(logits.shape)
    expected = [
        share.sum(rest) @ torch.arange(count, dtype=share.dtype, device=share.device)
        for rest, count in (((2, 3), share.shape[4]), ((2, 4), share.shape[3]), ((3, 4), share.shape[2]))
    ]
    return torch.stack(expected, dim=-1), share


def _tent(places: Float[Tensor, "B J"], count: int) -> Float[Tensor, "B J count"]:
    """Weights of linear interpolation between cells whose centres are 0 … count - 1."""
    cells = torch.arange(count, dtype=places.dtype, device=places.device)
    return torch.relu(1 - (places[..., None] - cells).abs())


def sample_volume(volume: Float[Tensor, "B J D H W"], places: Float[Tensor, "B J 3"]) -> Float[Tensor, "B J 1"]:
    """Trilinear interpolation of each joint's volume at its own (x, y, z), in cells."""
    depth, height, width = volume.shape[2:]
    rows = (volume @ _tent(places[..., 0], width)[:, :, None, :, None])[..., 0]
    planes = (rows @ _tent(places[..., 1], height)[..., None])[..., 0]
    return (planes * _tent(places[..., 2], depth)).sum(-1, keepdim=True)


def sample_maps(maps: Float[Tensor, "B C H W"], places: Float[Tensor, "B J 2"]) -> Float[Tensor, "B J C"]:
    """Bilinear interpolation of all channels at (x, y), in cells; one matrix product."""
    height, width = maps.shape[2:]
    weights = _tent(places[..., 1], height)[..., None] * _tent(places[..., 0], width)[:, :, None]
    return weights.flatten(2) @ maps.permute(0, 2, 3, 1).flatten(1, 2)


def expected_uvd(
    scores: Float[Tensor, "B N C"], size: tuple[int, int], depth: int
) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B J 1"]]:
    """Expected index / size - 0.5 of each joint along x, y and depth, and the largest softmax value (no gradient).

    The volumes are large (64³ cells for each joint in HybrIK): they are read in the layout they come in, N = height ·
    width cells of ``size``, row by row, of C = J · depth channels, joint by joint, and the softmax is never written
    out.
    """
    top = scores.detach().amax(1).view(len(scores), -1, depth).amax(-1)
    weights = (scores - top.repeat_interleave(depth, dim=1)[:, None]).exp_()
    return _expectation(_cell_places(size, scores) @ weights, size, depth)


def expected_uvd_by_parts(
    cells: Float[Tensor, "B N F"],
    weight: Float[Tensor, "C F"],
    bias: Float[Tensor, " C"],
    size: tuple[int, int],
    depth: int,
) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B J 1"]]:
    """:func:`expected_uvd` of ``linear(cells, weight, bias)``, a few joints of one image at a time.

    The scores of a part stay in a CPU's cache from the product to the sums; all of them together (a quarter of a
    gigabyte for 8 images of HybrIK) go through memory five times. No gradients.
    """
    places, part = _cell_places(size, cells), _JOINTS_AT_ONCE * depth
    sums = cells.new_empty(len(cells), 3, len(weight))
    for image, found in zip(cells, sums):
        for start in range(0, len(weight), part):
            stop = start + part
            scores = image @ weight[start:stop].T
            # The bias is the same for all cells of a channel: it can be added to the maximum instead of the scores.
            top = (scores.amax(0) + bias[start:stop]).view(-1, depth).amax(-1)
            scores.sub_(top.repeat_interleave(depth) - bias[start:stop]).exp_()
            torch.matmul(places, scores, out=found[:, start:stop])
    return _expectation(sums, size, depth)


def _cell_places(size: tuple[int, int], like: Tensor) -> Float[Tensor, "3 N"]:
    """One, x and y of every cell."""
    height, width = size
    x = torch.arange(width, dtype=like.dtype, device=like.device).repeat(height)
    y = torch.arange(height, dtype=like.dtype, device=like.device).repeat_interleave(width)
    return torch.stack((torch.ones_like(x), x, y))


def _expectation(
    sums: Float[Tensor, "B 3 C"], size: tuple[int, int], depth: int
) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B J 1"]]:
    height, width = size
    mass, x_sum, y_sum = sums.unflatten(2, (-1, depth)).unbind(1)
    total = mass.sum(-1)
    z_sum = mass @ torch.arange(depth, dtype=sums.dtype, device=sums.device)
    expected = (x_sum.sum(-1) / total / width, y_sum.sum(-1) / total / height, z_sum / total / depth)
    return torch.stack(expected, dim=-1) - 0.5, (1 / total.detach())[..., None]


# 24 joints x 6D, betas, (s, tx, ty).
POSE_SIZE, SHAPE_SIZE, CAM_SIZE = 144, 10, 3
# A SMPL body stands with y up, the camera's y points down: half a turn about x, interleaved 6D, as in SPIN's file.
_UPRIGHT = (1.0, 0.0, 0.0, -1.0, 0.0, 0.0)
_IDENTITY = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


class IterativeRegressor(nn.Module):
    """Refines (pose, shape, camera) ``iterations`` times from F image ``features`` and the current estimate.

    Source: nkolot/SPIN ``models/hmr.py``: two linear layers of ``hidden`` with ``dropout`` after each and no activation
    between them, three read-outs with Xavier gain 0.01, residual updates.
    """

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(self, features: int, hidden: int = 1024, iterations: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.iterations = iterations
        self.fc1 = nn.Linear(features + POSE_SIZE + SHAPE_SIZE + CAM_SIZE, hidden)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, hidden)
        self.drop2 = nn.Dropout(dropout)
        self.decpose = nn.Linear(hidden, POSE_SIZE)
        self.decshape = nn.Linear(hidden, SHAPE_SIZE)
        self.deccam = nn.Linear(hidden, CAM_SIZE)
        for readout in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(readout.weight, gain=0.01)
        # Start of the first round. Official checkpoints bring mean parameters of mocap; the default is the rest pose.
        self.register_buffer("init_pose", torch.tensor([_UPRIGHT + _IDENTITY * 23]))
        self.register_buffer("init_shape", torch.zeros(1, SHAPE_SIZE))
        self.register_buffer("init_cam", torch.tensor([[0.9, 0.0, 0.0]]))

    def forward(
        self, features: Float[Tensor, "B F"]
    ) -> tuple[Float[Tensor, "B 144"], Float[Tensor, "B 10"], Float[Tensor, "B 3"]]:
        """Returns 6D pose (24 x 6, flattened), betas and weak-perspective camera (s, tx, ty)."""
        batch = len(features)
        pose, betas, cam = (x.expand(batch, -1) for x in (self.init_pose, self.init_shape, self.init_cam))
        for _ in range(self.iterations):
            hidden = torch.cat((features, pose, betas, cam), dim=1)
            hidden = self.drop1(self.fc1(hidden))
            hidden = self.drop2(self.fc2(hidden))
            pose = pose + self.decpose(hidden)
            betas = betas + self.decshape(hidden)
            cam = cam + self.deccam(hidden)
        return pose, betas, cam
