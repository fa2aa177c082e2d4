"""History of generated samples for the discriminators (Shrivastava et al. 2017), without a loop over samples."""

from __future__ import annotations

import torch
from torch import Tensor

from posesyn.errors import InputError

SIZE = 4096  # poseaug.md section 3


class FakePool:
    """Keeps up to ``size`` samples. Once full, a coming sample is swapped for a random stored one with probability ½.

    Stored places are drawn without repetition within a batch, so that all swaps happen at once; the official loop may
    meet one place twice. The distribution of a single swap is the same.

    Args:
        size: Number of samples.
        seed: Decides the swaps.
    """

    def __init__(self, size: int = SIZE, seed: int = 0) -> None:
        if size < 1:
            raise InputError("a pool holds at least one sample", where="FakePool", got=size)
        self.size = size
        self.count = 0
        self.items: Tensor | None = None
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, fakes: Tensor) -> Tensor:
        """(B, ...) → (B, ...) of which some come from earlier batches; detached."""
        fakes = fakes.detach()
        if self.items is None:
            self.items = fakes.new_empty(self.size, *fakes.shape[1:])
        self.items = self.items.to(fakes.device)  # checkpoints are read on the CPU
        room = min(self.size - self.count, len(fakes))
        self.items[self.count : self.count + room] = fakes[:room]
        self.count += room
        rest = fakes[room:]
        if not len(rest):
            return fakes
        given = rest.clone()
        swaps = torch.nonzero(torch.rand(len(rest), generator=self.generator) < 0.5).flatten()[: self.size]
        places = torch.randperm(self.size, generator=self.generator)[: len(swaps)].to(self.items.device)
        swaps = swaps.to(self.items.device)
        given[swaps] = self.items[places]
        self.items[places] = rest[swaps]
        return torch.cat((fakes[:room], given))

    def clear(self) -> None:
        """Forgets all samples."""
        self.items, self.count = None, 0

    def state_dict(self) -> dict:
        """For checkpoints."""
        return {"items": self.items, "count": self.count, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Restores :meth:`state_dict`."""
        self.items, self.count = state["items"], state["count"]
        self.generator.set_state(state["generator"])
