"""Settings: where they come from, which wins, which are refused, and that secrets stay secret."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.config_section_context import ConfigSectionContext
from support.program import PATIENCE
from support.settings import refused
from support.traces import everything

from oneroster_source.config.options import OPTIONS, XPORTER
from oneroster_source.config.schools import School
from oneroster_source.config.settings import Settings, resolve
from oneroster_source.errors import ConfigurationError, FilterError
from oneroster_source.model import V1P1

PREFIX = "SOURCES__ONEROSTER__"
ONE = {"estab": "3281110", "rp": "partner-rp", "shared_secret": "super-secret"}
OAUTH = {
    "login": "oauth2",
    "estab": "3281110",
    "client_id": "me",
    "client_secret": "canary-client",
    "token_url": "https://login.example/token",
}
SECRETS = {
    "colons": "a:b::c",
    "bars": "a|b||c",
    "quotes": "a\"b'c`d",
    "backslashes": "a\\b\\n",
    "unicode": "pä55-文字-🔑",
    "blanks around": " a b ",
    "percent and plus": "a%20b+c",
    "JSON": '{"a": 1}',
    "a JSON list": '["a"]',
    "a number with zeros": "00123",
    "a date": "2026-01-01",
    "true": "true",
    "dollar": "$HOME ${HOME}",
}


def toml(settings: dict[str, Any]) -> str:
    lines = ["[sources.oneroster]"]
    schools = settings.get("schools", [])
    rest = {key: value for key, value in settings.items() if key != "schools"}
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in rest.items()]
    for school in schools:
        lines += ["[[sources.oneroster.schools]]"]
        lines += [f"{key} = {json.dumps(v, ensure_ascii=False)}" for key, v in school.items()]
    return "\n".join(lines) + "\n"


Write = Callable[..., None]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes settings where dlt finds them: environment, secrets.toml, config.toml."""
    folder = tmp_path / ".dlt"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)

    def write(*, env: Any = (), secrets: Any = (), config: Any = ()) -> None:
        for key, value in dict(env).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            monkeypatch.setenv(PREFIX + key.upper(), text)
        for name, values in (("secrets", secrets), ("config", config)):
            text = values if isinstance(values, str) else toml(dict(values)) if values else ""
            (folder / f"{name}.toml").write_text(text, encoding="utf-8")
        # dlt reads the files once, when its run context is made
        dlt.current.run_context().reload()

    write()
    yield write
    for file in folder.iterdir():
        file.unlink()
    dlt.current.run_context().reload()


# which place wins

PLACES = ("argument", "env", "secrets", "config")


@pytest.mark.parametrize("winner", [*PLACES, "default"])
def test_an_argument_beats_the_environment_beats_secrets_beat_config_beats_the_default(
    project, winner
) -> None:
    pages = {place: {"page_size": 10 + n} for n, place in enumerate(PLACES)}
    losers = PLACES[PLACES.index(winner) :] if winner != "default" else ()
    given = {place: pages[place] for place in losers}
    argument = given.pop("argument", {})
    given["env"] = ONE | given.get("env", {})
    project(**given)
    assert resolve(**argument).page_size == pages.get(winner, {"page_size": 1000})["page_size"]


@pytest.mark.parametrize("key", ["estab", "rp", "shared_secret", "base_url"])
@pytest.mark.parametrize("place", ["env", "secrets"])
def test_a_school_can_be_given_piece_by_piece_in_any_place(project, place, key) -> None:
    whole = ONE | {"base_url": "https://other.example/x"}
    project(**{place: {key: whole[key]}})
    assert resolve(**{k: v for k, v in whole.items() if k != key}).schools == (School(**whole),)


def test_an_empty_environment_variable_is_as_if_not_set(project, monkeypatch) -> None:
    project(secrets=ONE, config={"page_size": 7, "privacy": "full"})
    expected = resolve()
    for key in OPTIONS:
        monkeypatch.setenv(PREFIX + key.upper(), "")
    assert resolve() == expected and expected.page_size == 7
    project()
    assert "'estab' is missing" in str(refused())


def test_a_pipeline_may_have_settings_of_its_own(project) -> None:
    own = "[sources.oneroster]\nrp = 'all'\n[nightly.sources.oneroster]\nrp = 'own'\n"
    project(secrets=own)
    given = {"estab": "1", "shared_secret": "s"}
    assert resolve(**given).schools[0].rp == "all"
    # as dlt gives it to a source while a pipeline is active
    with Container().injectable_context(ConfigSectionContext(pipeline_name="nightly")):
        assert resolve(**given).schools[0].rp == "own"


def test_an_argument_of_none_is_as_if_not_given(project) -> None:
    project(env=ONE | {"page_size": 7})
    assert resolve(page_size=None, schools=None).page_size == 7


def test_defaults_are_what_options_declare(project) -> None:
    settings = resolve(**ONE)
    for key in ("page_size", "deleted", "reference_tables", "concurrency", "lag", "login"):
        assert getattr(settings, key) == OPTIONS[key].default
    assert settings.endpoints == V1P1.names and settings.filters == {} and settings.scope == ""
    assert settings.schools[0].base_url == XPORTER


def test_the_default_address_is_the_vendors() -> None:
    assert XPORTER == "https://xporter.groupcall.com/api/ims/oneroster/v1p1/school"


def test_the_time_zone_is_that_of_the_schools(project) -> None:
    assert resolve(**ONE).time_zone == "Europe/London"
    assert resolve(**OAUTH).time_zone == "UTC"
    project(config={"time_zone": "America/New_York"})
    assert resolve(**ONE).time_zone == resolve(**OAUTH).time_zone == "America/New_York"


@pytest.mark.parametrize("place", ["env", "secrets", "config"])
def test_every_kind_of_value_is_read_from_every_place(project, place) -> None:
    given = {
        "page_size": 50,
        "reference_tables": False,
        "request_timeout": 1.5,
        "endpoints": ["users", "orgs"],
        "deleted": "remove",
    }
    project(**{place: given})
    settings = resolve(**ONE)
    assert (settings.page_size, settings.reference_tables) == (50, False)
    assert (settings.request_timeout, settings.deleted) == (1.5, "remove")
    assert settings.endpoints == ("orgs", "users")


FILTERS = {"users": "role='student'"}


@pytest.mark.parametrize("place", ["argument", "env", "secrets", "config"])
def test_filters_are_read_from_every_place(project, place) -> None:
    table = "[sources.oneroster.filters]\nusers = \"role='student'\"\n"
    project(**{"env": {"env": {"filters": FILTERS}}, "argument": {}}.get(place, {place: table}))
    given = {"filters": FILTERS} if place == "argument" else {}
    assert str(resolve(**ONE, **given).filters["users"]) == FILTERS["users"]


# one school, many schools

TWO = [{"estab": "1", "shared_secret": "one"}, {"estab": "2", "shared_secret": "two"}]


@pytest.mark.parametrize("place", ["argument", "env", "secrets"])
def test_many_schools_share_rp_and_address_unless_they_have_their_own(project, place) -> None:
    own = {"rp": "other", "base_url": "https://other.example/v1p1/"}
    schools = [TWO[0], TWO[1] | own]
    project(**({} if place == "argument" else {place: {"schools": schools}}))
    given = {"schools": schools} if place == "argument" else {}
    assert resolve(rp="shared", **given).schools == (
        School("1", "shared", "one"),
        School("2", "other", "two", "https://other.example/v1p1"),
    )


def test_schools_of_different_hosts_are_on_different_servers(project) -> None:
    schools = [TWO[0], TWO[1] | {"base_url": "https://other.example:8443/x"}]
    settings = resolve(rp="rp", schools=schools)
    assert [s.server for s in settings.schools] == ["xporter.groupcall.com", "other.example:8443"]


def test_a_school_in_a_list_never_takes_the_secret_of_another(project) -> None:
    project(env={"shared_secret": "of-one-school", "rp": "rp"})
    assert "'shared_secret' is missing in entry 2" in str(refused(schools=[TWO[0], {"estab": "2"}]))


def test_a_run_can_be_narrowed_to_some_schools(project) -> None:
    settings = resolve(rp="rp", schools=TWO)
    assert [s.estab for s in settings.only(["2"]).schools] == ["2"]
    assert settings.only(None) is settings
    with pytest.raises(ConfigurationError, match=r"no school '3'.*\n.*1, 2"):
        settings.only(["3"])


def test_a_school_of_a_plain_oauth2_provider(project) -> None:
    settings = resolve(**OAUTH, client_auth="body", scope="a b")
    school = settings.schools[0]
    assert (settings.login, settings.client_auth, settings.scope) == ("oauth2", "body", "a b")
    assert (school.client_id, school.client_secret) == ("me", "canary-client")


@pytest.mark.parametrize("place", ["argument", "env", "secrets"])
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_comes_through_unchanged(project, secret, place) -> None:
    given = {"shared_secret": secret}
    project(**({} if place == "argument" else {place: given}))
    found = resolve(estab="1", rp="rp", **(given if place == "argument" else {}))
    assert found.schools[0].shared_secret == secret


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_in_the_json_of_schools_comes_through_unchanged(project, secret) -> None:
    project(env={"schools": [{"estab": "1", "rp": "rp", "shared_secret": secret}]})
    assert resolve().schools[0].shared_secret == secret


def test_settings_and_schools_are_frozen(project) -> None:
    settings = resolve(**ONE)
    for frozen, key in ((settings, "page_size"), (settings.schools[0], "estab")):
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, key, "other")


# what is wrong

MISSING = [
    ("estab", {k: v for k, v in ONE.items() if k != "estab"}),
    ("rp", {k: v for k, v in ONE.items() if k != "rp"}),
    ("shared_secret", {k: v for k, v in ONE.items() if k != "shared_secret"}),
    *[
        (key, {k: v for k, v in OAUTH.items() if k != key})
        for key in ("client_id", "client_secret", "token_url")
    ],
]


def names_places(error: ConfigurationError, key: str, folder: Path) -> bool:
    """Whether a message names the key and all the places where it can be set."""
    files = (str(folder / ".dlt" / "secrets.toml"), str(folder / ".dlt" / "config.toml"))
    named = (f"'{key}'", f"{key}=", PREFIX + key.upper(), "[sources.oneroster]", *files)
    return all(name in str(error) for name in named)


@pytest.mark.parametrize(("key", "given"), MISSING, ids=[key for key, _ in MISSING])
def test_a_missing_setting_is_named_with_its_places(project, tmp_path, key, given) -> None:
    error = refused(**given)
    assert f"'{key}' is missing" in str(error) and names_places(error, key, tmp_path)
    assert OPTIONS[key].metadata["about"] in str(error)


@pytest.mark.parametrize("key", ["estab", "rp", "shared_secret"])
def test_an_empty_setting_is_a_missing_one(project, key) -> None:
    assert f"'{key}' is missing" in str(refused(**ONE | {key: ""}))


WRONG_TEXT = [
    ("page_size", "0"),
    ("page_size", "100001"),
    ("page_size", "many"),
    ("page_size", "1.5"),
    ("concurrency", "0"),
    ("concurrency", "65"),
    ("request_timeout", "0"),
    ("request_timeout", "-1"),
    ("request_timeout", "nan"),
    ("request_timeout", "soon"),
    ("retry_budget", "-0.1"),
    ("max_page_mb", "0"),
    ("max_page_mb", "1025"),
    ("lag", "-1"),
    ("time_zone", "Europe/Londinium"),
    ("time_zone", "BST"),
    ("time_zone", "Europe"),
    ("time_zone", "../UTC"),
    ("time_zone", "/etc/localtime"),
    ("time_zone", "posix/Europe/London"),
    ("deleted", "drop"),
    ("reference_tables", "maybe"),
    ("login", "Xporter"),
    ("client_auth", "query"),
    ("endpoints", "users"),
    ("endpoints", '["pupils"]'),
    ("endpoints", "[1]"),
    ("filters", "users"),
    ("filters", '{"pupils": "a=\'b\'"}'),
    ("filters", '{"users": "role~\'student\'"}'),
    ("filters", '{"users": "shoeSize=\'9\'"}'),
    ("estab", "328:1110"),
    ("estab", "328\n1110"),
    ("rp", "part|ner"),
    ("rp", "part:ner"),
    ("shared_secret", "line\nbreak"),
    ("base_url", "xporter.groupcall.com"),
    ("base_url", "ftp://xporter.groupcall.com/x"),
    ("base_url", "https:///x"),
    ("base_url", "https://user:word@xporter.groupcall.com/x"),
    ("base_url", "https://xporter.groupcall.com/x?a=b"),
    ("base_url", "https://xporter.groupcall.com/x#a"),
    ("base_url", "https://[xporter/x"),
    ("base_url", "https://[xporter]/x"),
    ("base_url", "https://xporter.groupcall.com:port/x"),
    ("base_url", "http://xporter.groupcall.com/x"),
    ("base_url", "http://localhost.example/x"),
    ("base_url", "http://127.0.0.1.example/x"),
    ("token_url", "http://login.example/token"),
    ("schools", "7"),
    ("schools", "[]"),
    ("schools", "[1]"),
    ("schools", '{"estab": "1"}'),
    ("schools", '[{"estab": "1"'),
]


@pytest.mark.parametrize(("key", "text"), WRONG_TEXT, ids=[f"{k} {v!r}" for k, v in WRONG_TEXT])
def test_a_wrong_value_is_named_with_its_places_and_the_legal_ones(
    project, tmp_path, key, text
) -> None:
    own = {} if key == "schools" else OAUTH if key == "token_url" else ONE
    project(env=own | {key: text})
    error = refused()
    assert names_places(error, key, tmp_path)
    assert OPTIONS[key].metadata["legal"] in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("page_size", "10", id="text for a number"),
        pytest.param("page_size", True, id="a boolean for a number"),
        pytest.param("page_size", 1.5, id="a fraction of a row"),
        pytest.param("concurrency", 2.5, id="a fraction of a request"),
        pytest.param("max_page_mb", 1.5, id="a fraction that cannot be shifted"),
        pytest.param("page_size", [10], id="a list for a number"),
        pytest.param("reference_tables", "true", id="text for a boolean"),
        pytest.param("time_zone", "", id="no name of a time zone"),
        pytest.param("time_zone", 1, id="a number for a time zone"),
        pytest.param("deleted", ["keep"], id="a list for a choice"),
        pytest.param("endpoints", "users", id="text for a list"),
        pytest.param("endpoints", [["users"]], id="a list in a list"),
        pytest.param("filters", "role='student'", id="text for a table"),
        pytest.param("filters", {"users": 3}, id="a number for a filter"),
        pytest.param("estab", {"a": 1}, id="a table for text"),
        pytest.param("rp", ["partner-rp"], id="a list for text"),
        pytest.param("shared_secret", ["super-secret"], id="a list for a secret"),
        pytest.param("shared_secret", "caf\udce9", id="a secret that UTF-8 cannot write"),
        pytest.param("scope", ["a"], id="a list for scopes"),
        pytest.param("base_url", 7, id="a number for an address"),
    ],
)
def test_a_wrong_argument_is_named_with_its_places_and_the_legal_ones(
    project, tmp_path, key, value
) -> None:
    error = refused(**ONE | {key: value})
    assert names_places(error, key, tmp_path)
    assert OPTIONS[key].metadata["legal"] in str(error)


def test_a_filter_that_does_not_parse_is_a_filter_error_too(project) -> None:
    assert isinstance(refused(**ONE, filters={"users": "role~'x'"}), FilterError)


def test_the_json_text_of_schools_is_legal_as_an_argument_too(project) -> None:
    # the message of the setting says "a list of tables, or its JSON text"
    assert resolve(rp="rp", schools=json.dumps(TWO)) == resolve(rp="rp", schools=TWO)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        pytest.param([TWO[0], TWO[0]], "names the estab '1' twice", id="twice"),
        pytest.param([TWO[0], "2"], "entry 2", id="an entry that is no table"),
        pytest.param([TWO[0] | {"page_size": 7}], "'page_size' in entry 1", id="not a school's"),
        pytest.param([TWO[0] | {"secret": "x"}], "'secret' in entry 1", id="unknown"),
        pytest.param([{"shared_secret": "x"}], "'estab' is missing in entry 1", id="no estab"),
        pytest.param([TWO[0] | {"estab": "a:b"}], "contains ':' in entry 1", id="a colon"),
        pytest.param([TWO[0] | {"base_url": "http://x.example"}], "plain http", id="plain http"),
    ],
)
def test_a_wrong_entry_in_the_list_of_schools_is_named(project, entries, said) -> None:
    assert said in str(refused(rp="rp", schools=entries))


def test_one_school_and_many_exclude_each_other(project) -> None:
    assert "both 'estab' and 'schools'" in str(refused(**ONE, schools=TWO))


@pytest.mark.parametrize("place", ["argument", "env", "secrets", "config"])
def test_an_unknown_setting_is_refused_in_every_place(project, place) -> None:
    project(**({} if place == "argument" else {place: {"page_sise": 7}}))
    error = refused(**ONE | ({"page_sise": 7} if place == "argument" else {}))
    found = {"argument": "an argument", "env": PREFIX + "PAGE_SISE"}.get(place, f"{place}.toml")
    assert all(word in str(error) for word in ("'page_sise'", found, "page_size"))


def test_a_secret_in_config_toml_is_refused_by_name(project, tmp_path) -> None:
    project(config=ONE)
    error = refused()
    assert "shared_secret" in str(error) and "secrets.toml" in str(error)
    assert "super-secret" not in everything(error)


@pytest.mark.parametrize("name", ["secrets", "config"])
def test_a_broken_file_is_one_of_our_errors_and_names_the_file(tmp_path, name) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / f"{name}.toml").write_text("[sources.oneroster]\nshared_secret='canary\n")
    code = (
        "from oneroster_source.config.settings import resolve\n"
        "from oneroster_source.errors import ConfigurationError\n"
        "try:\n    resolve()\nexcept ConfigurationError as error:\n    print(error)\n"
    )
    # in a process of its own: dlt reads the files when it is first asked for anything
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert run.returncode == 0, run.stderr.splitlines()[-3:]
    assert f"{name}.toml" in run.stdout and "canary" not in run.stdout + run.stderr


# addresses


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000/x", "http://127.0.0.1/x", "http://[::1]:80/x", "HTTPS://A.example/x"],
)
def test_plain_http_is_for_this_machine_alone(project, url) -> None:
    assert resolve(**ONE, base_url=url + "/").schools[0].base_url == url


# secrets stay secret


@pytest.fixture
def secretive(project) -> Settings:
    schools = [
        {"estab": n, "shared_secret": f"canary-{n}", "client_secret": f"canary-c{n}"} for n in "12"
    ]
    return resolve(rp="rp", schools=schools)


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r:>5}".format])
def test_no_secret_is_shown_by_settings_or_schools(secretive, show) -> None:
    assert "canary" not in show(secretive) + "".join(map(show, secretive.schools))


def test_no_secret_is_shown_by_an_error_about_settings(secretive) -> None:
    with pytest.raises(ConfigurationError) as caught:
        secretive.only(["3"])
    assert "canary" not in everything(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(ONE | {"shared_secret": "canary\n"}, id="a secret with a line break"),
        pytest.param({"schools": '[{"shared_secret": "canary"'}, id="broken JSON"),
        pytest.param({"schools": {"shared_secret": "canary"}}, id="a table for a list"),
        pytest.param({"schools": ["canary"]}, id="a secret for a school"),
        pytest.param({"rp": "r", "schools": [{"shared_secret": "canary"}]}, id="no estab"),
        pytest.param(ONE | {"shared_secret": "canary", "page_size": "x"}, id="another is wrong"),
        pytest.param(ONE | {"base_url": "https://u:canary@x.example/"}, id="one in an address"),
        pytest.param(ONE | {"base_url": "https://x.example/?key=canary"}, id="one in a query"),
    ],
)
@pytest.mark.parametrize("place", ["argument", "env"])
def test_no_secret_is_shown_when_settings_are_refused(project, given, place) -> None:
    if place == "env":
        project(env=given)
    assert "canary" not in everything(refused(**(given if place == "argument" else {})))
