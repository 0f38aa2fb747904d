"""The parts of the Sampling page."""

from dashboard.sampling.choose import (
    Chosen,
    offer_advanced,
    pick_checkpoint,
    pick_spec,
    sharing_sentence,
)
from dashboard.sampling.formula import explain_sampler
from dashboard.sampling.modes import MODE, MODES, follow_mode
from dashboard.sampling.recall import show_history
from dashboard.sampling.restore import offer as offer_restoring
from dashboard.sampling.suggestion import show_suggestion
from dashboard.ui.older_names import update_address

__all__ = [
    "MODE",
    "MODES",
    "Chosen",
    "explain_sampler",
    "follow_mode",
    "offer_advanced",
    "offer_restoring",
    "pick_checkpoint",
    "pick_spec",
    "sharing_sentence",
    "show_history",
    "show_suggestion",
    "update_address",
]
