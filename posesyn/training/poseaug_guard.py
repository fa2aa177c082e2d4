"""The way back from a collapse of PoseAug's augmentor."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


class PoseAugGuard:
    """Remembers networks and optimisers while they are healthy and puts them back after a collapse.

    Attributes:
        healthy: What was remembered last.
        rescues: How often it was put back.
    """

    def __init__(self) -> None:
        self.healthy: dict[str, Any] | None = None
        self.rescues = 0

    def remember(self, networks: dict[str, nn.Module], optimizers: list[Any]) -> None:
        """Keeps a copy."""
        states = {name: network.state_dict() for name, network in networks.items()}
        saved = [optimizer.state_dict() for optimizer in optimizers]
        self.healthy = copy.deepcopy({"networks": states, "optimizers": saved})

    def rescue(self, networks: dict[str, nn.Module], optimizers: list[Any]) -> None:
        """Puts the copy back; something must have been remembered."""
        self.rescues += 1
        state = copy.deepcopy(self.healthy)
        for name, weights in state["networks"].items():
            networks[name].load_state_dict(weights)
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"healthy": self.healthy, "rescues": self.rescues}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.healthy, self.rescues = state["healthy"], state["rescues"]
