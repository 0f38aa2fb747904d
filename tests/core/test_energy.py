"""Joules between two questions, of counters that begin again; none where nothing can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_core import energy
from diffusion_core.energy import EnergyMeter

CPU, CARD = torch.device("cpu"), torch.device("cuda:0")


def write_zone(powercap: Path, zone: str, name: str, microjoules: int) -> None:
    folder = powercap / zone
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("9999999\n")


def test_the_packages_of_a_processor_are_summed_and_begin_again(tmp_path: Path) -> None:
    for zone, name in (("intel-rapl:2", "psys"), ("intel-rapl:0:0", "core")):
        write_zone(tmp_path, zone, name, 0)
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    write_zone(tmp_path, "intel-rapl:1", "package-1", 9_000_000)
    meter = EnergyMeter(CPU, powercap=tmp_path)
    write_zone(tmp_path, "intel-rapl:0", "package-0", 3_000_000)
    write_zone(tmp_path, "intel-rapl:1", "package-1", 500_000)
    write_zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    assert meter() == pytest.approx(2.0 + 1.5)
    assert meter() == 0


def test_a_counter_that_cannot_be_read_gives_none_until_it_can(tmp_path: Path) -> None:
    assert EnergyMeter(CPU, powercap=tmp_path / "none")() is None
    write_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = EnergyMeter(CPU, powercap=tmp_path)
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    for text, expected in (("no number", None), ("2000000", None), ("3000000", 1.0)):
        counter.write_text(text)
        assert meter() == expected


def test_cards_are_summed_and_one_that_does_not_tell_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"a": 5, "b": 7}
    monkeypatch.setattr(energy, "_millijoules", told.__getitem__)
    meter = EnergyMeter(CARD, ("a", "b"))
    told.update(a=1005, b=2007)
    assert meter() == 3.0
    told.update(a=0)  # its driver began again
    assert meter() is None

    def refuse(card: str) -> int:
        raise energy.NVMLError(energy.pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(energy, "_millijoules", refuse)
    assert EnergyMeter(CARD, ("a",))() is None
    assert EnergyMeter(torch.device("mps"))() is None
