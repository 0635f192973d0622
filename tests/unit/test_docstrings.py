"""The examples in the docstrings of all public names run, against a simulator."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator

import pytest
from support.settings import environment

import oneroster_source
from oneroster_source.simulator import School

WITHOUT = {"Delta", "ENDPOINTS"}
"""A destination that needs a bucket, and a tuple."""


def public() -> Iterator[tuple[str, object]]:
    """All public names, but for the errors."""
    yield "oneroster_source", oneroster_source
    for name in sorted(set(oneroster_source.__all__) - WITHOUT):
        value = getattr(oneroster_source, name)
        if not (inspect.isclass(value) and issubclass(value, Exception)):
            yield name, value


def examples() -> Iterator[tuple[str, doctest.DocTest]]:
    parser = doctest.DocTestParser()
    for name, value in public():
        members = vars(value).items() if inspect.isclass(value) else ()
        methods = [(f"{name}.{n}", m) for n, m in members if not n.startswith("_")]
        for path, documented in ((name, value), *methods):
            text = inspect.getdoc(documented) or ""
            found = parser.get_doctest(text, {}, path, None, 0)
            if found.examples:
                yield path, found


EXAMPLES = dict(examples())


def test_every_public_name_has_an_example() -> None:
    assert [name for name, _ in public() if name not in EXAMPLES] == []


def test_every_public_method_says_what_it_does() -> None:
    for name, value in public():
        for member, method in vars(value).items() if inspect.isclass(value) else ():
            if not member.startswith("_") and inspect.isfunction(method):
                assert method.__doc__, f"{name}.{member}"


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(
    name: str, serve, school: School, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    for key, value in environment(serve(school), school).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(EXAMPLES[name], out=said.append)
    assert runner.failures == 0, "".join(said)
