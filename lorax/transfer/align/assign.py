"""One-to-one assignment of channels, and of attention heads with a rotation each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lorax.errors import MissingPackage
from lorax.linalg import svd
from lorax.spectral import above_chance
from lorax.transfer.align.evidence import Evidence
from lorax.transfer.align.maps import ChannelMap, HeadRotation, Selection

GOOD = 0.8
"""Agreement above chance at which the channels of heads are taken one by one; below it a rotation is tried."""
TINY = 1e-12
FAMILY_HEADS = {"sd1": 8}
HEAD_WIDTH = 64
"""Of SD2 and SDXL; SD1 has 8 heads at every width. Nothing in a single file says it."""


@dataclass(frozen=True)
class Fit:
    """How well a map explains the weights on both of its sides."""

    agreement: float
    """Cosine of the matched channels' weights, weighted by their norms"""
    chance: float
    """The same of each channel's best wrong partner: what a fit of this freedom reaches on unrelated weights."""

    @property
    def above_chance(self) -> float:
        """0 is chance, 1 is full agreement."""
        return above_chance(self.agreement, self.chance) if self.chance < 1.0 else 0.0


def assign(score: Tensor) -> Tensor:
    """[n_t] for score [n_t, n_s]: the partner of each row in the one-to-one assignment of the largest sum, −1 for none."""
    n_t, n_s = score.shape
    if n_t > n_s:
        back = assign(score.T)
        partner = torch.full((n_t,), -1, device=score.device)
        partner[back] = torch.arange(n_s, device=score.device)
        return partner
    best = score.argmax(1)
    if best.unique().numel() == n_t:
        return best
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingPackage("aligning channels needs scipy, which is not installed: pip install scipy") from error
    rows, columns = linear_sum_assignment(score.cpu().numpy(), maximize=True)
    partner = torch.full((n_t,), -1)
    partner[torch.as_tensor(rows)] = torch.as_tensor(columns)
    return partner.to(score.device)


def fit_of(score: Tensor, bound: Tensor, partner: Tensor) -> Fit:
    """The `Fit` of an assignment. score, bound: [n_t, n_s], bound the largest value that a score could have."""
    rows = (partner >= 0).nonzero().flatten()
    agreement = ratio(score[rows, partner[rows]], bound[rows, partner[rows]])
    if score.shape[1] < 2:
        return Fit(agreement, 0.0)
    wrong = score[rows].scatter(1, partner[rows, None], -math.inf).argmax(1)
    return Fit(agreement, max(0.0, ratio(score[rows, wrong], bound[rows, wrong])))


def ratio(part: Tensor, whole: Tensor) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else 0.0


def select(evidence: Evidence) -> tuple[Selection, Fit]:
    """Channels by the assignment of the largest total cosine: inner products alone would prefer a loud wrong channel to a quiet
    right one, where the source has channels to spare."""
    score, bound = evidence.total(), evidence.bound()
    partner = assign(score / bound.clamp_min(TINY))
    sign = None
    if evidence.signed is not None:
        sign = evidence.signed.gather(1, partner.clamp_min(0)[:, None])[:, 0].sign()
        sign = torch.where(sign == 0, 1.0, sign).cpu()
    return Selection(partner.cpu(), score.shape[1], sign), fit_of(score, bound, partner)


def rotate(evidence: Evidence, partner: Evidence | None, family: str) -> tuple[ChannelMap, Fit]:
    """Heads by one assignment on the summed nuclear norms of both of an attention's spaces, then a polar factor for each.

    partner: the evidence for the other space (queries and keys, or values and outputs), which has the same head order.
    """
    score = evidence.total()
    width_t, width_s = head_widths(score, family)
    blocks = into_blocks(score, width_t, width_s)
    u, s, vh = svd(blocks)
    nuclear, bound = s.sum(-1), evidence.head_bound(width_t, width_s)
    both = nuclear / bound.clamp_min(TINY)
    if partner is not None and partner.sizes == evidence.sizes:
        beside = svd(into_blocks(partner.total(), width_t, width_s))[1].sum(-1)
        both = both + beside / partner.head_bound(width_t, width_s).clamp_min(TINY)
    heads = assign(both)
    taken = heads.clamp_min(0)
    order = torch.arange(len(heads), device=score.device)
    rotation = HeadRotation(heads.cpu(), (u @ vh)[order, taken].cpu(), score.shape[1])
    return rotation, fit_of(nuclear, bound, heads)


def into_blocks(score: Tensor, width_t: int, width_s: int) -> Tensor:
    """[h_t, h_s, d_t, d_s] of [n_t, n_s]."""
    return score.reshape(score.shape[0] // width_t, width_t, score.shape[1] // width_s, width_s).transpose(1, 2)


def head_widths(score: Tensor, family: str) -> tuple[int, int]:
    """Width of the heads on either side: the family's where the scores agree with it, else what they show.

    With the true width all of the score lies in the blocks of matched heads; with a smaller one it is spread over several.
    """
    n_t, n_s = score.shape
    usual = (n_t // FAMILY_HEADS[family], n_s // FAMILY_HEADS[family]) if family in FAMILY_HEADS else (HEAD_WIDTH, HEAD_WIDTH)
    fits = min(usual) > 0 and n_t % usual[0] == 0 and n_s % usual[1] == 0
    common = math.gcd(n_t, n_s)
    widths = {(d, d) for d in range(1, common + 1) if common % d == 0} | ({usual} if fits else set())
    gain = {w: concentration(score, *w) - w[1] / n_s for w in sorted(widths)}
    best = max(gain, key=lambda w: (gain[w], -w[0]))
    return usual if fits and gain[usual] >= 0.9 * gain[best] else best


def concentration(score: Tensor, width_t: int, width_s: int) -> float:
    """Share of the squared score that lies in the blocks of the best head assignment."""
    energy = into_blocks(score, width_t, width_s).square().sum((-1, -2))
    partner = assign(energy)
    rows = (partner >= 0).nonzero().flatten()
    return ratio(energy[rows, partner[rows]], energy)
