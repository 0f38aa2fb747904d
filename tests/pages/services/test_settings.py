"""The settings: where they come from, which wins, and what a bad file does."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.services import settings
from dashboard.services.settings import SettingsError, get_settings


def test_without_settings_the_installation_has_its_own_checkpoints_and_no_role_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DIFFUSION_LAB_RUNS_DIR")
    monkeypatch.delenv("DIFFUSION_LAB_DEVICE")
    monkeypatch.delenv("DIFFUSION_LAB_ROLE")
    found = get_settings()
    assert found == settings.Settings()
    assert found.role is None  # by where the visitor comes from
    assert found.runs_dir == settings.REPOSITORY / "checkpoints"


def test_the_environment_sets_what_it_names(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    monkeypatch.setenv("DIFFUSION_LAB_MAX_STEPS", "500")
    found = get_settings()
    assert (found.role, found.max_steps, found.runs_dir) == ("viewer", 500, runs_dir)


def test_the_secrets_file_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_MAX_UPLOAD_MB", "3")
    settings.SECRETS_FILE.write_text("DIFFUSION_LAB_MAX_UPLOAD_MB = 5\n[other]\nkey = 1\n")
    assert get_settings().max_upload_mb == 5


def test_a_secrets_file_that_does_not_parse_is_an_error_and_not_an_open_door() -> None:
    settings.SECRETS_FILE.write_text('DIFFUSION_LAB_ROLE = "viewer')
    with pytest.raises(SettingsError, match=r"no-secrets\.toml cannot be read .* correct it\."):
        get_settings()


@pytest.mark.parametrize("name", ["DIFFUSION_LAB_MAX_IMAGES", "DIFFUSION_LAB_MAX_PICTURES"])
def test_the_most_images_have_a_new_name_and_the_one_of_earlier_versions(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "10")
    assert get_settings().max_images == 10
    monkeypatch.setenv("DIFFUSION_LAB_MAX_IMAGES", "11")
    assert get_settings().max_images == 11


@pytest.mark.parametrize("value", ["-1", "0", "1.5", "nan", "1" * 5000])
def test_a_number_that_cannot_be_used_is_named_in_one_short_sentence(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_MAX_PICTURES", value)
    with pytest.raises(
        SettingsError, match=r"^DIFFUSION_LAB_MAX_IMAGES is .*; it must be "
    ) as said:
        get_settings()
    assert len(str(said.value)) < 200


def test_an_empty_value_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "  ")
    settings.SECRETS_FILE.write_text('DIFFUSION_LAB_MAX_STEPS = ""\n')
    assert get_settings().role is None
    assert get_settings().max_steps is None
