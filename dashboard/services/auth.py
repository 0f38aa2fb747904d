"""`[auth]` of `.streamlit/secrets.toml`: what `st.login` needs, checked before anybody needs it.

No message quotes a secret.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from diffusion_core.text import shown


def _secret(name: str, least: int) -> BeforeValidator:
    """A text of at least so many characters."""

    def check(given: object) -> object:
        if not isinstance(given, str) or len(given) < least:
            characters = f"{least} characters" if least > 1 else "one character"
            raise ValueError(f"{name} in [auth] must be a text of at least {characters}.")
        return given

    return BeforeValidator(check)


def _callback(address: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/[^\s?#]*)?/oauth2callback", address):
        raise ValueError(
            f"redirect_uri in [auth] is {shown(address)}; it must be the address of this app with "
            "/oauth2callback at its end."
        )
    return address


def _web_address(address: str) -> str:
    if not re.fullmatch(r"https?://\S+", address):
        raise ValueError(
            f"server_metadata_url in [auth] is {shown(address)}; it must begin with https://."
        )
    return address


def _provider_name(name: str) -> str:
    if "_" in name:
        raise ValueError(f"[auth.{name}] cannot be used: Streamlit allows no _ in that name.")
    return name


class Provider(BaseModel):
    """Who is asked who somebody is: `[auth.NAME]`, or `[auth]` itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    client_id: Annotated[str, Field(min_length=1)]
    client_secret: Annotated[str, _secret("client_secret", 1)] = Field(repr=False)
    server_metadata_url: Annotated[str, AfterValidator(_web_address)]


class Auth(BaseModel):
    """`[auth]`, with its providers by the names that `st.login` takes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    redirect_uri: Annotated[str, AfterValidator(_callback)]
    # Whoever knows or guesses it can sign in as anybody.
    cookie_secret: Annotated[str, _secret("cookie_secret", 32)] = Field(repr=False)
    providers: dict[Annotated[str, AfterValidator(_provider_name)], Provider]

    @model_validator(mode="before")
    @classmethod
    def _find_providers(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        found = {name: each for name, each in table.items() if isinstance(each, dict)}
        found.pop("client_kwargs", None)
        if "client_id" in table or not found:
            found = {"default": table, **found}
        return {**table, "providers": found}
