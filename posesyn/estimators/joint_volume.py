"""Joints from volumes of scores: expected places, and what the maps say there."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Of 64 cells of depth and 64² places: 8 MB. Our own choice.
_JOINTS_AT_ONCE = 8


def gaussian_heatmaps(
    places: Float[Tensor, "B J 2"], mask: Float[Tensor, "B J 1"], size: int = 64, sigma: float = 2.5
) -> Float[Tensor, "B J size size"]:
    """One Gaussian of peak 1 for each joint, rows are y; zero where the mask is 0 (estimators.md section 2.1).

    Args:
        places: x, y in cells.
        mask: 0 or 1.
        size: Cells per side.
        sigma: In cells.
    """
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

    The volumes are large (64³ cells for each joint in HybrIK): they are read in the layout they come in and the
    softmax is never written out.

    Args:
        scores: N = height · width cells, row by row, of C = J · depth channels, joint by joint.
        size: (height, width).
        depth: Cells along the depth.
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
