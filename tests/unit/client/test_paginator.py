"""Paging over collections that change, and over servers that do as they like: all in memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneroster_source.client.paginator import Page, PageSource, read
from oneroster_source.errors import IncompleteRead


@dataclass
class Rows:
    """A buffer that remembers the keys."""

    found: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.found.clear()

    def add(self, content: list[str], start: int) -> None:
        self.found += content[start:]

    def keys(self) -> set[str]:
        return set(self.found)

    def keys_of(self, content: list[str]) -> list[str]:
        return content

    def expect_repeats(self) -> None:
        self.found = list(dict.fromkeys(self.found))


@dataclass
class Server:
    """A collection that is asked for pages, and may change after each."""

    ids: list[str]
    cap: int = 10**9
    total: Callable[[int], int | None] = lambda rows: rows
    change: Callable[[list[str]], None] = lambda ids: None
    arrange: Callable[[list[str]], list[str]] = sorted
    asked: list[tuple[int | None, int | None]] = field(default_factory=list)

    def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
        self.asked.append((offset, limit))
        rows = self.arrange(self.ids)
        page = rows[offset or 0 :][: min(self.cap, limit or self.cap)]
        answer = Page(page, page, self.total(len(rows)))
        self.change(self.ids)
        return answer

    @property
    def passes(self) -> int:
        """How often it was read from the start on."""
        offsets = [offset for offset, _ in self.asked]
        return sum(pair[0] == 0 != pair[1] for pair in pairwise(offsets))

    def down(self, offset: int, rows: int) -> list[str] | None:
        return self.arrange(self.ids)[::-1][offset : offset + rows]


def ids(count: int) -> list[str]:
    return [f"{i:05}" for i in range(count)]


def taken(server: Server, *, limit: int = 10, notes: list[str] | None = None) -> list[str]:
    rows = Rows()
    noted = [] if notes is None else notes
    read(PageSource(server, limit, server.down, note=noted.append), rows)
    return rows.found


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10, 11, 19, 20, 21, 100])
@pytest.mark.parametrize("total", [lambda n: n, lambda n: None, lambda n: 0, lambda n: 1])
def test_every_row_is_read_once(count: int, total: Callable[[int], int | None]) -> None:
    server = Server(ids(count), total=total if count else lambda n: n)
    assert taken(server) == ids(count)


@pytest.mark.parametrize("cap", [1, 2, 3, 7])
def test_a_cap_below_the_limit_loses_nothing(cap: int) -> None:
    notes: list[str] = []
    assert taken(Server(ids(40), cap=cap), notes=notes) == ids(40)
    assert any(f"caps pages at {cap} " in note for note in notes) or cap == 1


def test_an_empty_answer_before_the_stated_total_is_an_error() -> None:
    with pytest.raises(IncompleteRead, match="total of 7"):
        taken(Server([], total=lambda n: 7))


@pytest.mark.parametrize("total", [lambda n: n, lambda n: None])
def test_an_empty_answer_that_is_stale_is_not_believed(total: Callable[[int], int | None]) -> None:
    """The first pass loses its place; the next begins with the answer to an older request."""

    class Stale(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            page = super().__call__(offset, limit)
            answers = {2: [*page.keys, "00000", "00001"], 3: []}
            keys = answers.get(len(self.asked), page.keys)
            return Page(keys, keys, page.total)

    server = Stale(ids(30), total=total)
    assert taken(server) == ids(30)
    assert server.asked[2][0] == 0


@pytest.mark.parametrize("place", [5, 9, 18, 30, 35, 38])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_first_page_from_further_down_is_not_believed(place: int, times: int) -> None:
    class Stale(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            stale = len(self.asked) < times
            return super().__call__(place if stale else offset, limit)

    for server in (Stale(ids(40)), Stale(ids(40), total=lambda n: None)):
        assert set(taken(server)) == set(ids(40))


@pytest.mark.parametrize("cap", [1, 10])
def test_an_empty_page_after_a_single_row_is_no_end_where_more_are_stated(cap: int) -> None:
    class Hole(Server):
        """Gives nothing at one place; capped, or after a first page that was cut to one row."""

        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            page = super().__call__(offset, limit)
            keys = [] if offset == (3 if cap == 1 else 1) else page.keys
            keys = keys[:1] if offset == 0 else keys
            return Page(keys, keys, page.total)

    with pytest.raises(IncompleteRead, match="total of 15"):
        taken(Hole(ids(15), cap=cap))


def test_a_collection_that_empties_while_it_is_read_is_empty() -> None:
    server = Server(ids(30))

    def leave(all_ids: list[str]) -> None:
        if len(server.asked) == 2:
            all_ids.clear()

    server.change = leave
    assert taken(server) == []


def test_an_empty_answer_to_a_filter_is_believed_unless_there_is_a_last_row() -> None:
    """The total may be that of all rows, whatever the filter."""
    empty = Server([], total=lambda n: 7)
    rows = Rows()
    source = PageSource(empty, 10, empty.down, unfiltered_total=lambda: None)
    read(source, rows)
    assert rows.found == []
    with pytest.raises(IncompleteRead, match="total of 7"):
        read(replace(source, descending=lambda offset, rows: ["00006"]), rows)


def test_a_server_that_stops_short_of_its_total_is_asked_once_more_then_believed() -> None:
    notes: list[str] = []
    server = Server(ids(25), total=lambda n: 100)
    assert taken(server, notes=notes) == ids(25)
    assert server.passes == 2
    assert any("states a total of 100" in note for note in notes)


def test_a_server_that_gives_nothing_beyond_an_offset_is_an_error() -> None:
    class Window(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            page = super().__call__(offset, limit)
            kept = page.keys[: max(0, 30 - (offset or 0))]
            return Page(kept, kept, page.total)

    with pytest.raises(IncompleteRead, match="nothing beyond the first 30"):
        taken(Window(ids(50)))


def test_a_page_of_one_row_in_the_middle_is_no_end() -> None:
    class Bytes(Server):
        """Caps its pages by size, and has one row that fills a page."""

        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            page = super().__call__(offset, limit)
            if "00018" in page.keys[1:]:
                cut = page.keys[: page.keys.index("00018")]
                return Page(cut, cut, None)
            return page

    assert taken(Bytes(ids(50), total=lambda n: None)) == ids(50)


def test_rows_that_never_come_with_the_one_before_are_read_until_two_passes_agree() -> None:
    class Heavy(Server):
        """Cuts a page before each of its large rows."""

        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            page = super().__call__(offset, limit)
            ends = (i for i, key in enumerate(page.keys) if i and int(key) % 7 == 0)
            kept = page.keys[: next(ends, None)]
            return Page(kept, kept, None)

    server = Heavy(ids(50))
    assert taken(server) == ids(50)
    assert server.passes == 2


@pytest.mark.parametrize("total", [lambda n: None, lambda n: 10, lambda n: 40])
def test_a_server_that_ignores_offset_and_caps_is_an_error(total) -> None:
    class Stubborn(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            return super().__call__(0, min(limit or 10, 10))

    with pytest.raises(IncompleteRead, match="ignores offset"):
        taken(Stubborn(ids(40), total=total))


def test_rows_that_leave_before_the_position_are_noticed_and_nothing_is_lost() -> None:
    server = Server(ids(60))
    removed = iter(["00003", "00004", "00012", "00019", "00025"])
    server.change = lambda all_ids: all_ids.remove(gone) if (gone := next(removed, "")) else None
    notes: list[str] = []
    found = taken(server, notes=notes)
    assert set(server.ids) <= set(found)
    assert len(found) == len(set(found))
    assert any("kept its place" in note for note in notes)


def test_a_whole_page_that_leaves_at_once_is_found_again() -> None:
    server = Server(ids(100))

    def leave(all_ids: list[str]) -> None:
        if len(server.asked) == 5:
            del all_ids[10:40]

    server.change = leave
    assert set(server.ids) <= set(taken(server))


def test_rows_in_another_order_at_every_request_are_an_error() -> None:
    shuffle = Random(1)
    server = Server(ids(60), arrange=lambda rows: shuffle.sample(rows, len(rows)))
    with pytest.raises(IncompleteRead, match="order"):
        taken(server)


@pytest.mark.parametrize("limit", [12, 16, 20, 25, 29])
@pytest.mark.parametrize("total", [lambda n: n, lambda n: None])
def test_random_order_is_an_error_also_where_a_page_holds_nearly_all(
    limit: int, total: Callable[[int], int | None]
) -> None:
    shuffle = Random(limit)
    for _ in range(30):
        server = Server(ids(30), total=total, arrange=lambda rows: shuffle.sample(rows, len(rows)))
        try:
            found = taken(server, limit=limit)
        except IncompleteRead:
            pass
        else:
            # two passes had as many different rows as the server says that there are
            assert total(30) == 30
            assert sorted(found) == ids(30)
        assert len(server.asked) < 400


def test_rows_that_come_in_while_the_end_is_looked_for_cost_no_second_pass() -> None:
    """One with each request, before the last row: the offset was not ignored, nor the order."""
    server = Server([f"{i * 100:05}" for i in range(20)], total=lambda n: None)
    new = iter(f"{1850 + i:05}" for i in range(8))

    def come(all_ids: list[str]) -> None:
        if len(server.asked) > 2 and (row := next(new, "")):
            all_ids.append(row)

    server.change = come
    assert set(taken(server)) >= {f"{i * 100:05}" for i in range(20)}
    assert server.passes == 1


def test_rows_that_come_in_beside_the_position_are_no_other_order() -> None:
    server = Server([f"{i * 100:05}" for i in range(40)])

    def come(all_ids: list[str]) -> None:
        if len(server.asked) == 4:
            # one shifts the place by one, the others push the last row off its page
            all_ids += ["00001", *(f"{i:05}" for i in range(1101, 1110))]

    server.change = come
    found = taken(server, limit=4)
    assert {f"{i * 100:05}" for i in range(40)} <= set(found)
    assert len(found) == len(set(found))
    assert server.passes == 1


def test_what_began_with_single_rows_is_read_until_two_passes_agree() -> None:
    class Narrow(Server):
        """Its first row is so large that it comes alone; then that row is gone."""

        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            page = super().__call__(offset, limit)
            return Page(page.keys[:1], page.keys[:1], None) if "00000" in page.keys else page

    server = Narrow(ids(40), total=lambda n: None)
    server.change = lambda all_ids: all_ids.remove("00000") if "00000" in all_ids else None
    assert set(taken(server)) == set(ids(40)) - {"00000"}


def test_more_rows_than_two_pages_hold_come_in_at_once() -> None:
    server = Server([f"{i * 100:05}" for i in range(40)])

    def come(all_ids: list[str]) -> None:
        if len(server.asked) == 6:
            all_ids += [f"{i:05}" for i in range(1, 12)]

    server.change = come
    found = taken(server, limit=4)
    assert {f"{i * 100:05}" for i in range(40)} <= set(found)
    assert len(found) == len(set(found))
    assert server.passes == 1


def test_a_fixed_order_that_is_not_by_id_is_read_until_two_passes_agree() -> None:
    order = Random(1).sample(ids(60), 60)
    notes: list[str] = []
    server = Server(ids(60), arrange=lambda rows: [i for i in order if i in rows])
    assert taken(server, notes=notes) == order
    assert any("two whole passes agreed" in note for note in notes)
    assert server.passes == 2


@pytest.mark.parametrize(
    "order",
    [str.casefold, lambda i: i.replace("-", "").casefold(), int],
    ids=["without case", "without punctuation", "numbers"],
)
def test_the_orders_of_databases_need_one_pass_only(order: Callable[[str], object]) -> None:
    names = [str(i) for i in range(1, 40)]
    if order is not int:
        names = [f"{name}{i}" for name in ("b-2", "B1", "a-9", "Ab", "c") for i in range(3, 7)]
    server = Server(names, arrange=lambda rows: sorted(rows, key=order))  # type: ignore[arg-type]
    assert taken(server, limit=6) == sorted(names, key=order)  # type: ignore[arg-type]
    assert server.passes == 1


def test_a_server_that_ignores_offset_is_read_in_one_answer() -> None:
    notes: list[str] = []

    class Stubborn(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            return super().__call__(0, limit)

    assert taken(Stubborn(ids(40)), notes=notes) == ids(40)
    assert any("ignores offset" in note for note in notes)
    with pytest.raises(IncompleteRead, match="ignores offset"):
        taken(Stubborn(ids(40), cap=30))


def test_a_server_that_starts_over_at_the_end_is_an_error() -> None:
    class Wheel(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            rows = (self.ids * 3)[(offset or 0) % len(self.ids) :][: limit or 1]
            self.asked.append((offset, limit))
            return Page(rows, rows, None)

    server = Wheel(ids(35))
    with pytest.raises(IncompleteRead):
        taken(server)
    assert len(server.asked) < 100


def test_pages_are_asked_for_ahead_and_taken_in_order() -> None:
    server = Server(ids(95))
    with ThreadPoolExecutor(4) as pool:
        rows = Rows()
        read(PageSource(server, 10, ahead=4, executor=pool), rows)
    assert rows.found == ids(95)
    # 12 pages of 10 that overlap by two, and the proof of the end: nothing was asked in vain
    assert len(server.asked) == 13


_changes = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "none"]), st.integers(0, 9999)), max_size=60
)


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 80), st.integers(2, 12), _changes)
def test_a_row_that_is_there_all_the_time_is_read_exactly_once(
    count: int, limit: int, changes: list[tuple[str, int]]
) -> None:
    """Rows come and go between any two requests; a quiet end is not needed."""
    server = Server([f"{i * 100:05}" for i in range(count)])
    always = set(server.ids)
    script = iter(changes)

    def change(all_ids: list[str]) -> None:
        kind, place = next(script, ("none", 0))
        if kind == "add" and f"{place:05}" not in all_ids:
            all_ids.append(f"{place:05}")
        elif kind == "remove" and all_ids:
            gone = all_ids.pop(place % len(all_ids))
            always.discard(gone)

    server.change = change
    try:
        found = taken(server, limit=limit)
    except IncompleteRead:
        # said aloud, and only where the ground moved all the time
        assert sum(kind != "none" for kind, _ in changes) > 5
        return
    assert always <= set(found)
    assert len(found) == len(set(found))
    assert len(server.asked) < 20 + 10 * (count + len(changes))


def pages(server: Server, keys: list[str], limit: int | None, total: int | None) -> Page[list[str]]:
    found = keys[: limit or None]
    return Page(found, found, total)


@pytest.mark.parametrize("window", [10, 50, 100])
@pytest.mark.parametrize("more", [0, 7])
def test_a_window_of_half_the_rows_is_no_whole_page(window: int, more: int) -> None:
    """Two from its end, the descending order gives a row that was read, beside one that was not."""

    class Window(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            self.asked.append((offset, limit))
            return pages(self, sorted(self.ids)[:window][offset or 0 :], limit, window)

    with pytest.raises(IncompleteRead, match=f"beyond the first {window}"):
        taken(Window(ids(2 * window - 1)), limit=window + more)


@pytest.mark.parametrize("total", [None, 100])
def test_a_window_that_ends_among_equal_ids_is_an_error(total: int | None) -> None:
    class Window(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            self.asked.append((offset, limit))
            return pages(self, self.arrange(self.ids)[:100][offset or 0 :], limit, total)

    twins = [f"k{i:05}" for i in range(99)] + ["k99999", "K99999"]
    rest = [f"k{i:05}" for i in range(90)] + ["-" * i + "z" for i in range(30)]
    for names in (twins, rest):
        server = Window(names, arrange=lambda rows: rows)
        with pytest.raises(IncompleteRead):
            taken(server, limit=40)


@pytest.mark.parametrize("limit", [50, 100, 500])
@pytest.mark.parametrize("down", [True, False])
def test_answers_of_one_size_whatever_is_asked_are_not_all(limit: int, down: bool) -> None:
    class Fixed(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            self.asked.append((offset, limit))
            return pages(self, sorted(self.ids), 100, None)

    server = Fixed(ids(240))
    rows = Rows()
    with pytest.raises(IncompleteRead):
        read(PageSource(server, limit, **({"descending": server.down} if down else {})), rows)


@pytest.mark.parametrize("sorts_down", [True, False])
def test_single_rows_that_are_counted_by_the_page_are_not_all(sorts_down: bool) -> None:
    server = Server(ids(40), cap=1, total=lambda n: 1)
    rows = Rows()
    with_down = {"descending": server.down} if sorts_down else {}
    try:
        read(PageSource(server, 50, **with_down), rows)
    except IncompleteRead:
        return
    assert set(rows.found) == set(ids(40))


@pytest.mark.parametrize(("names", "copies"), [(1, 51), (1, 8), (1, 150), (2, 60), (3, 6)])
def test_one_id_on_more_rows_than_a_page_holds_has_an_end(names: int, copies: int) -> None:
    server = Server([name for name in ids(names) for _ in range(copies)])
    assert set(taken(server, limit=50 if copies > 8 else 5)) == set(ids(names))
    assert len(server.asked) < 60


class OncePerPage(Rows):
    """A buffer that sees by itself what a page has twice."""

    def add(self, content: list[str], start: int) -> None:
        self.found += dict.fromkeys(content[start:])


def test_an_id_that_comes_again_behind_its_equal_is_announced() -> None:
    names = [f"k{i:05}" for i in range(60)]
    for place in range(40, 58):
        twice = [*names[: place + 1], names[place].upper(), *names[place:]]
        server = Server(twice, arrange=lambda rows: rows)
        rows = OncePerPage()
        read(PageSource(server, 50, server.down), rows)
        assert sorted(rows.found) == sorted({*names, names[place].upper()})


def test_a_filtered_total_that_is_not_reached_is_an_error() -> None:
    class Window(Server):
        def __call__(self, offset: int | None, limit: int | None) -> Page[list[str]]:
            page = super().__call__(offset, limit)
            kept = page.keys[: max(0, 30 - (offset or 0))]
            return Page(kept, kept, page.total)

    for every, whole in ((None, False), (70, False), (50, True)):
        rows = Rows()
        # where the unfiltered total is another one, the one that is stated is that of the filter
        error = pytest.raises(IncompleteRead) if not whole else nullcontext()
        with error:
            read(PageSource(Window(ids(50)), 10, unfiltered_total=lambda every=every: every), rows)
