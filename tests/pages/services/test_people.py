"""Names: each stands for one person, and none can be another's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.services import people
from dashboard.services.people import BadName, check_name, name_of_guest, name_of_user, shown_name
from dashboard.services.users import User

SECRET, OTHER = "0" * 32, "1" * 32


def test_the_name_of_a_browser_is_the_same_each_time_and_no_other_browsers() -> None:
    ann = name_of_guest("Ann", SECRET)
    assert ann == name_of_guest("Ann", SECRET) != name_of_guest("Ann", OTHER)
    assert people.MARK.sub("", ann) == "Ann"
    assert shown_name(ann) == ann[:-8] and shown_name("ann@lab.org") == "ann@lab.org"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Type a name."),
        (" \t", "Type a name."),
        ("a" * 41, "The name has 41 characters; use at most 40."),
        ("ann@lab.org", "A name must be without @ and #."),
        ("ann\N{FULLWIDTH COMMERCIAL AT}lab.org", "A name must be without @ and #."),
        ("Ann #0123456789abcdef", "A name must be without @ and #."),
        ("Ann \N{FULLWIDTH NUMBER SIGN}01", "A name must be without @ and #."),
    ],
)
def test_a_name_that_could_be_anothers_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadName, match=f"^{said}$"):
        check_name(text)


@settings(max_examples=30)
@given(st.text(max_size=20), st.text(max_size=20))
def test_no_typed_name_is_an_address_and_no_unverified_one_is_anothers(
    typed: str, claimed: str
) -> None:
    unverified = name_of_user(User("provider 7", claimed))
    assert "@" not in unverified and people.MARK.search(unverified)
    try:
        name = check_name(typed)
    except BadName:
        return
    assert not people.is_address(name_of_guest(name, SECRET))


def test_who_is_signed_in_has_the_verified_address_only() -> None:
    assert name_of_user(User("key", "ann@lab.org", "ann@lab.org")) == "ann@lab.org"
    unverified = name_of_user(User("key", "ann@lab.org"))
    assert people.MARK.sub("", unverified) == "ann lab.org"
