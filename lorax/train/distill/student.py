"""The LoRA on the target that is trained."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from lorax.errors import LoraxError
from lorax.layers import LayerId
from lorax.linalg import Factors
from lorax.train.distill.branches import LowRankBranch, hook
from lorax.train.distill.settings import LEARNING_RATE


class Student(nn.Module):
    """A low-rank branch beside each trained layer; without a start it changes nothing at first."""

    def __init__(
        self, layers: Mapping[LayerId, nn.Module], chosen: Sequence[LayerId], rank: int, start: Mapping[LayerId, Factors], seed: int
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.branches: dict[LayerId, LowRankBranch] = {}
        for n, i in enumerate(chosen):
            layer = layers.get(i)
            if not isinstance(layer, (nn.Linear, nn.Conv2d)):
                raise LoraxError(f"diffusers builds no layer {i} for the target: give its own configuration with --target-config.")
            branch = LowRankBranch(layer, _begin(layer, rank, start.get(i), generator), trained=True)
            self.branches[i] = branch
            self.add_module(str(n), branch)
        self._layers = {i: (layers[i],) for i in self.branches}  # tuples, so that they do not become submodules

    @contextmanager
    def on(self) -> Generator[None]:
        """The target with the student, for as long as the block lasts."""
        with ExitStack() as stack:
            for i, branch in self.branches.items():
                stack.callback(hook(self._layers[i][0], branch).remove)
            yield

    def factors(self) -> dict[LayerId, Factors]:
        """The deltas as they are now, balanced; the rank of one that learned nothing is 0."""
        return {i: branch.factors().compressed() for i, branch in self.branches.items()}

    def largest_learning_rate(self) -> float:
        """`LEARNING_RATE` over the mean width of the layers."""
        widths = [branch.down.shape[1] for branch in self.branches.values()]
        return LEARNING_RATE * len(widths) / sum(widths)


def _begin(layer: nn.Linear | nn.Conv2d, rank: int, start: Factors | None, generator: torch.Generator) -> Factors:
    """The start, cut to `rank`; what room is left gets random inputs and no outputs, as a fresh LoRA."""
    out, columns = layer.weight.shape[0], layer.weight[0].numel()
    begun = start.compressed(rank) if start is not None else Factors(torch.zeros(out, 0), torch.zeros(0, columns))
    room = min(rank, out, columns) - begun.rank
    fresh = torch.randn(max(0, room), columns, generator=generator) / columns**0.5
    return Factors(torch.cat([begun.up, torch.zeros(out, max(0, room))], dim=1), torch.cat([begun.down, fresh]))
