"""Our deltas against the formulas that the hosts apply, where LyCORIS is not the only authority."""

from __future__ import annotations

import pytest
import torch

from lorax.formats.leaves import build_module
from lorax.linalg import flatten_weight


@pytest.mark.parametrize(("out", "n_in"), [(10, 6), (8, 8), (4, 12)])
def test_first_glora_files_as_a1111_applies_them(out: int, n_in: int) -> None:
    r, weight = 2, torch.randn(out, n_in)
    a1, a2, b1, b2 = torch.randn(r, n_in), torch.randn(n_in, r), torch.randn(r, n_in), torch.randn(out, r)
    leaves = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "alpha": torch.tensor(1.0)}
    expected = (b2 @ b1 + weight @ a2 @ a1) * (1 / r)
    torch.testing.assert_close(build_module(leaves)[0].delta(weight), expected)


@pytest.mark.parametrize("r", [2, 8])
def test_glora_of_any_rank_is_not_mistaken_for_the_first_files(r: int) -> None:
    weight = torch.randn(8, 8)
    a1, a2, b1, b2 = torch.randn(8, r), torch.randn(r, 8), torch.randn(8, r), torch.randn(r, 8)
    leaves = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2}
    torch.testing.assert_close(build_module(leaves)[0].delta(weight), b1 @ b2 + weight @ a1 @ a2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3, 3)])
def test_older_dora_as_a1111_and_comfyui_apply_it(shape: tuple[int, ...]) -> None:
    weight, up, down = torch.randn(shape), torch.randn(6, 2), torch.randn(2, *shape[1:])
    leaves = {"lora_up.weight": up.reshape(6, 2, *[1] * (len(shape) - 2)), "lora_down.weight": down, "alpha": torch.tensor(1.0)}
    scale = torch.rand(1, 5, *[1] * (len(shape) - 2)) + 0.5
    merged = weight + (0.5 * up @ flatten_weight(down)).reshape(shape)
    norm = merged.transpose(0, 1).reshape(5, -1).norm(dim=1).reshape(scale.shape)
    expected = merged * (scale / norm) - weight
    delta = build_module({**leaves, "dora_scale": scale})[0].delta(weight)
    torch.testing.assert_close(delta, flatten_weight(expected), rtol=1e-4, atol=1e-5)


def test_old_diagonal_oft_is_the_rotation_itself() -> None:
    """LyCORIS 2.0 saved R, with its rescaling folded in, as ``oft_diag``."""
    weight, r = torch.randn(6, 4), torch.randn(2, 3, 3)
    expected = torch.einsum("k n m, k n p -> k m p", r, weight.reshape(2, 3, 4)).reshape(6, 4) - weight
    torch.testing.assert_close(build_module({"oft_diag": r})[0].delta(weight), expected, rtol=1e-4, atol=1e-5)


def test_factors_are_given_only_where_they_are_smaller() -> None:
    big = {f"hada_{n}": torch.randn(40, 2) if n.endswith("a") else torch.randn(2, 40) for n in ("w1_a", "w1_b", "w2_a", "w2_b")}
    factors = build_module(big)[0].factors()
    assert factors is not None
    assert factors.rank == 4
    small = {name: t[:6] if name.endswith("a") else t[:, :6] for name, t in big.items()}
    assert build_module(small)[0].factors() is None
