"""The energy that a device takes, where the machine tells it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

try:
    import pynvml
    from pynvml import NVMLError
except ImportError:  # not on macOS
    pynvml, NVMLError = None, OSError

# A folder for each part of an Intel or AMD processor; most systems let only root read them.
POWERCAP = Path("/sys/class/powercap")
NEVER = 2**64  # where a counter begins again


class EnergyMeter:
    """Joules since the last question, the first one since it was made; None where nobody can tell.

    Those of the NVIDIA cards `cards` (see `device.cards_of`) or, without a card, of the processor.
    What other programs compute on them counts too.
    """

    def __init__(
        self, device: torch.device, cards: Sequence[str] = (), powercap: Path = POWERCAP
    ) -> None:
        self.device = device
        self.cards = cards
        self.powercap = powercap
        self.before = self._counters()

    def __call__(self) -> float | None:
        before, self.before = self.before, self._counters()
        if not before or before.keys() != self.before.keys():
            return None
        used = sum((now - before[name][0]) % most for name, (now, most) in self.before.items())
        return used / 1e6 if used < NEVER // 2 else None  # a driver that began again

    def _counters(self) -> dict[str, tuple[int, int]]:
        """Microjoules by package or card, and where they begin again at 0; empty: not readable."""
        try:
            if self.device.type == "cpu":
                return {folder.name: _microjoules(folder) for folder in _packages(self.powercap)}
            return {card: (1000 * _millijoules(card), NEVER) for card in self.cards}
        except (OSError, ValueError, NVMLError):
            return {}


def _packages(powercap: Path) -> list[Path]:
    """Without their cores and memory, which they include, and the whole machine of some laptops."""
    found = powercap.glob("intel-rapl:*")
    return [each for each in found if (each / "name").read_text().startswith("package")]


def _microjoules(package: Path) -> tuple[int, int]:
    most = int((package / "max_energy_range_uj").read_text())
    return int((package / "energy_uj").read_text()), most + 1


def _millijoules(card: str) -> int:
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{card.removeprefix('GPU-')}")
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
