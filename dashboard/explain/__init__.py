"""The parts of the pages that explain, one module per page: its controls, figures and tables."""

from dashboard.explain.embedding import (
    pick_embedding,
    show_embedding,
    show_embedding_row,
    show_trained_embedding,
)
from dashboard.explain.network import (
    pick_network,
    pick_network_size,
    show_network_costs,
    show_network_table,
    show_network_totals,
    show_unet,
)
from dashboard.explain.noising import (
    pick_image,
    pick_noise_seed,
    show_noising,
    show_noising_strip,
    show_value_spread,
)
from dashboard.explain.schedule import (
    pick_schedules,
    show_coefficients,
    show_noising_links,
    show_schedule_curves,
)

__all__ = [
    "pick_embedding",
    "pick_image",
    "pick_network",
    "pick_network_size",
    "pick_noise_seed",
    "pick_schedules",
    "show_coefficients",
    "show_embedding",
    "show_embedding_row",
    "show_network_costs",
    "show_network_table",
    "show_network_totals",
    "show_noising",
    "show_noising_links",
    "show_noising_strip",
    "show_schedule_curves",
    "show_trained_embedding",
    "show_unet",
    "show_value_spread",
]
