"""The results of a blind vote, for those who cannot vote in it any more."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.components.chart.chart import show_live
from dashboard.figures.votes import share_figure, strength_figure
from dashboard.ui import run_wording
from dashboard.ui.outside import plain
from diffusion_core.evaluation.preference import (
    Agreement,
    agreement,
    bradley_terry,
    count_choices,
    shares,
)
from diffusion_core.review.polls import Poll
from diffusion_core.runs.votes import Votes


def show_results(poll: Poll, read: Callable[[Poll], Votes]) -> None:
    """The fragment: votes of others show in it by themselves."""
    found = read(poll)
    if found.problem:
        st.warning(f"The votes cannot be read in full. {plain(found.problem)}")
    if not found.entries:
        st.info("Nobody has voted yet.")
        return
    people = len({vote.by for vote in found.entries})
    st.markdown(
        f"{run_wording.count(len(found.entries), 'vote')} by {people:,} "
        f"{'person' if people == 1 else 'people'}. {_in_words(agreement(found.entries))}"
    )
    choices = count_choices(found.entries)
    chosen, strengths = shares(choices), bradley_terry(choices)
    sizes = {len(shown) for _, shown in choices}
    chance = 1 / sizes.pop() if len(sizes) == 1 else None
    show_live(share_figure(chosen, chance), "vote-shares", "How often each was chosen")
    if len(chosen) > 2:
        show_live(strength_figure(strengths.by_name), "vote-strengths", "The strength of each")
    st.dataframe(
        [
            {
                "Checkpoint": name,
                "Share": f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})",
                "Votes": share.n,
                "Strength": f"{strength.value:.2f} ({strength.low:.2f} to {strength.high:.2f})",
            }
            for name, share in chosen.items()
            for strength in [strengths.by_name[name]]
        ],
        hide_index=True,
        height="content",
        column_config={
            "Share": st.column_config.TextColumn(
                help="How often it was chosen where it was shown, with Wilson's 95 % interval."
            ),
            "Strength": st.column_config.TextColumn(
                help="Bradley–Terry: of two, one is chosen with the probability strength / (sum of "
                "both). With its 95 % interval."
            ),
        },
        alt="Results of the vote",
    )
    if strengths.penalised:
        st.caption(
            "One was always or never chosen, so no finite strengths fit best: each is given half a "
            "win and half a loss."
        )
    st.caption(
        "The dashed lines are chance. Intervals take votes for independent; those of few people "
        "or images are wider in truth."
    )


def _in_words(found: Agreement) -> str:
    if found.share is None:
        return "No question was answered by two people yet."
    alpha = "" if found.alpha is None else f" (Krippendorff's α {found.alpha:.2f})"
    return f"Two people chose the same in {found.share:.0%} of {found.pairs:,} cases{alpha}."
