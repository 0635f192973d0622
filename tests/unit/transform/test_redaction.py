"""What is taken from rows before anything is written, and what stays as it was sent."""

from __future__ import annotations

import pytest
from support.line import PARSER, text

from oneroster_source.config.options import Options
from oneroster_source.config.privacy import Key, privacy
from oneroster_source.model import V1P1
from oneroster_source.transform.redaction import Redaction
from oneroster_source.transform.suppression import Suppression, digest

USERS = V1P1["users"]
KEY = "0123456789abcdef0123456789abcdef"


def redaction(**given: object) -> Redaction:
    return Redaction(USERS, privacy(Options(**{"privacy": "full", **given}), V1P1))


def test_a_list_of_which_nothing_is_kept_is_no_list_any_more() -> None:
    wide = PARSER.parse(
        text(users=[{"sourcedId": "a", "userIds": [{"type": "MIS", "identifier": "1"}]}])
    )
    own = {"users__user_ids": {"exclude": ["type", "identifier"]}}
    column = USERS.child_name(next(a for a in USERS.nested if a.name == "userIds"))
    assert wide.column(column).null_count == 0
    assert redaction(columns=own)(wide).column(column).null_count == 1


def test_attributes_that_hide_nothing_stay_as_they_were_sent() -> None:
    sent = [{"sourcedId": "a", "nobody": {"knows": 1}}, {"sourcedId": "b"}]
    wide = PARSER.parse(text(users=sent))
    left = redaction(columns={"users": {"exclude": ["phone"]}})(wide)
    assert left.column("extra").to_pylist() == wide.column("extra").to_pylist()
    assert left.column("extra")[0].as_py() == '{"nobody":{"knows":1}}'


@pytest.mark.parametrize(("said", "kept"), [("b", True), ("erased", False)])
def test_of_json_only_what_names_an_erased_person_goes(said: str, kept: bool) -> None:
    key = Key(KEY.encode())
    erased = Suppression(key, "1", [digest(key, "1", "erased")], V1P1)
    sent = {"sourcedId": "a", "metadata": {"userSourcedId": said, "house": "red"}}
    wide = PARSER.parse(text(users=[sent]))
    metadata = erased.without(USERS, wide).column("metadata")[0].as_py()
    assert (f'"{said}"' in metadata) is kept and '"red"' in metadata
