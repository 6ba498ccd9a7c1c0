"""The leaderboard: kept, ranked, shared between sites, and safe against what comes from outside."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiene.benchmark.leaderboard.entry import Entry, entries_of, entry_from_json, entry_to_json
from aiene.benchmark.leaderboard.page import page
from aiene.benchmark.leaderboard.store import (
    add_entries,
    board_file,
    boards,
    export_json,
    import_json,
    newest_only,
    read_board,
    read_entries,
)
from aiene.errors import InputError, OutputError, UsageError

ONE, TWO = "a1" * 32, "b2" * 32
SETTINGS = {"rule": 2, "iou_threshold": 0.3, "patients": "c3" * 32, "prompts": "none"}


def add_entry(board: Path, entry: Entry) -> bool:
    """Whether the entry is new there."""
    return add_entries(board, [entry]) == (1, 0)


def _entry(model: str, data: str = ONE, created: str = "2026-11-25T10:00:00+00:00", **metrics: Any) -> Entry:
    return Entry(
        data_sha256=data,
        model=model,
        settings=SETTINGS,
        model_sha256=hashlib.sha256(model.encode()).hexdigest(),
        version="0.1.0",
        machine="an ordinary processor, 2 cores",
        created=created,
        n_cases=30,
        n_done=30,
        metrics=metrics,
    )


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Two data sets with three models and one."""
    path = tmp_path / "board.sqlite"
    entries = [
        _entry("good", dice_GTVn=0.8, hd95_mm_GTVn=4.0, auc_on_truth=None),
        _entry("bad", dice_GTVn=0.4, hd95_mm_GTVn=20.0),
        _entry("silent", hd95_mm_GTVn=9.0),
        _entry("elsewhere", TWO, "2026-11-24T10:00:00+00:00", dice_GTVn=0.99),
    ]
    assert add_entries(path, entries) == (4, 0)
    return path


def _models(board: Path, data_sha256: str | None = None, **how: Any) -> list[str]:
    found = boards(read_entries(board, data_sha256=data_sha256), **how)
    return [place.entry.model for one in found for place in one.places]


def test_an_entry_comes_back_as_it_went_in(board: Path) -> None:
    entry = replace(
        _entry("new", dice_GTVn=0.5, brier_on_truth=None), site="Site B", note="boxes of the truth"
    )
    assert add_entry(board, entry)
    assert entry in read_entries(board)


def test_the_same_entry_is_kept_once(board: Path) -> None:
    assert not add_entry(board, _entry("bad", dice_GTVn=0.4, hd95_mm_GTVn=20.0))
    assert not add_entry(
        board, _entry("bad", created="2026-11-25T12:00:00+02:00", dice_GTVn=0.4, hd95_mm_GTVn=20.0)
    )
    assert len(read_entries(board)) == 4


def test_entries_are_ranked_by_any_metric_in_its_better_way(board: Path) -> None:
    assert _models(board, data_sha256=ONE) == ["good", "bad", "silent"]
    assert _models(board, data_sha256=ONE, sort="hd95_mm_GTVn") == ["good", "silent", "bad"]
    assert _models(board, data_sha256=ONE, sort="dice_GTVn", ascending=True) == ["bad", "good", "silent"]


def test_only_entries_on_the_same_data_are_compared(board: Path) -> None:
    newest, other = boards(read_entries(board))
    assert (newest.data_sha256, other.data_sha256) == (ONE, TWO)
    assert [(p.entry.model, p.rank) for p in newest.places] == [("good", 1), ("bad", 2), ("silent", None)]
    assert [(p.entry.model, p.rank) for p in other.places] == [("elsewhere", 1)]


def test_a_data_set_is_named_by_the_beginning_of_its_hash(board: Path) -> None:
    assert _models(board, data_sha256="b2b2") == ["elsewhere"]
    with pytest.raises(UsageError, match="no data set begins with ffff"):
        read_entries(board, data_sha256="ffff")
    add_entry(board, _entry("third", "b2ff" * 16, dice_GTVn=0.1))
    with pytest.raises(UsageError, match="2 data sets begin with b2"):
        read_entries(board, data_sha256="b2")


def test_equal_figures_share_the_better_place() -> None:
    (found,) = boards([_entry(m, dice_GTVn=d) for m, d in (("a", 0.5), ("b", 0.7), ("c", 0.7))])
    assert [(p.entry.model, p.rank) for p in found.places] == [("b", 1), ("c", 1), ("a", 3)]


def test_errors_of_volume_are_best_near_0() -> None:
    (found,) = boards(
        [_entry(m, volume_error_ml_GTVn=v) for m, v in (("a", 5.0), ("b", 2.0), ("c", 1.0))],
        sort="volume_error_ml_GTVn",
    )
    assert [p.entry.model for p in found.places] == ["c", "b", "a"]


def test_a_metric_that_no_entry_has_is_named_with_the_nearest(board: Path) -> None:
    with pytest.raises(UsageError, match=r"no entry has the metric dise_GTVn; did you mean dice_GTVn\?"):
        boards(read_entries(board), sort="dise_GTVn")
    with pytest.raises(UsageError, match="there are auc_on_truth, dice_GTVn, hd95_mm_GTVn"):
        boards(read_entries(board), sort="zzzzzzz")


@pytest.mark.parametrize(
    "other", [{"iou_threshold": 0.5}, {"prompts": "truth"}, {"patients": "d4" * 32}, {"rule": 3}]
)
def test_entries_of_other_settings_stand_on_another_board(other: dict[str, Any]) -> None:
    plain = _entry("a", dice_GTVn=0.5)
    prompted = replace(_entry("b", dice_GTVn=0.9), settings={**SETTINGS, **other})
    assert [len(one.places) for one in boards([plain, prompted])] == [1, 1]


def test_of_each_model_the_newest_run_can_be_taken() -> None:
    old, new = _entry("a", dice_GTVn=0.5), _entry("a", created="2026-12-01T00:00:00+00:00", dice_GTVn=0.4)
    assert newest_only([new, old]) == (new,)


def test_without_the_usual_metric_the_commonest_is_taken() -> None:
    (found,) = boards([_entry("a", froc=1.0), _entry("b", froc=0.5, node_dice=1.0)])
    assert found.sort == "froc"
    (bare,) = boards([_entry("a")])
    assert bare.places[0].rank is None
    assert boards([]) == ()


def test_a_folder_is_a_place_for_a_leaderboard(tmp_path: Path) -> None:
    folder = tmp_path / "boards"
    add_entry(folder, _entry("a", dice_GTVn=0.5))
    assert board_file(folder) == folder / "leaderboard.sqlite"
    assert _models(folder) == ["a"]
    assert _models(folder / "leaderboard.sqlite") == ["a"]


def test_where_there_is_no_leaderboard_reading_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite"
    with pytest.raises(InputError, match="there is no leaderboard"):
        read_entries(path)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"hello, this is no database at all" * 50, b"PK\x03\x04" * 300])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for use in (lambda: read_entries(path), lambda: add_entry(path, _entry("a"))):
        with pytest.raises(InputError, match="not a leaderboard"):
            use()
    assert path.read_bytes() == content


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE patients (name TEXT)")
    connection.close()
    before = path.read_bytes()
    for use in (lambda: read_entries(path), lambda: add_entry(path, _entry("a"))):
        with pytest.raises(InputError, match="not a leaderboard"):
            use()
    assert path.read_bytes() == before


def test_a_leaderboard_of_a_later_version_is_refused(board: Path) -> None:
    connection = sqlite3.connect(board)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(InputError, match="different version"):
        read_entries(board)


def test_a_truncated_leaderboard_is_one_sentence(board: Path) -> None:
    board.write_bytes(board.read_bytes()[:3000])
    with pytest.raises(InputError, match="leaderboard"):
        read_entries(board)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_leaderboard_that_cannot_be_written_is_one_sentence(board: Path) -> None:
    board.chmod(0o400)
    with pytest.raises(OutputError):
        add_entry(board, _entry("new"))


WRITER = """
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from aiene.benchmark.leaderboard.entry import Entry
from aiene.benchmark.leaderboard.store import add_entries

for number in range(6):
    name = f"model {sys.argv[2]}.{number}"
    settings = {"rule": 2, "iou_threshold": 0.3, "patients": "c3" * 32, "prompts": "none"}
    figures = {"dice_GTVn": 0.5}
    entry = Entry("a1" * 32, settings, name, None, "0.1.0", "", "2026-11-25", 3, 3, figures)
    add_entries(Path(sys.argv[1]), [entry])
"""


@pytest.mark.slow
def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "board.sqlite"
    words = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*words, str(number)]) for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert len(read_entries(path)) == 24


@pytest.mark.slow
def test_a_writer_waits_for_another_in_the_midst_of_writing(board: Path) -> None:
    with closing(sqlite3.connect(board, isolation_level=None, timeout=1)) as other:
        other.execute("BEGIN IMMEDIATE")
        row = [GOOD["sha256"], GOOD["data_sha256"], GOOD["created"], json.dumps(GOOD)]
        other.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", row)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(add_entry, board, _entry("late", dice_GTVn=0.5))
            time.sleep(0.3)
            other.execute("COMMIT")
            assert waiting.result(20)
    assert len(read_entries(board)) == 6


def test_what_is_exported_is_imported_whole_and_once(board: Path, tmp_path: Path) -> None:
    file, elsewhere = tmp_path / "shared.json", tmp_path / "elsewhere.sqlite"
    assert export_json(board, file) == 4
    assert import_json(elsewhere, file) == (4, 0)
    assert set(map(str, read_entries(elsewhere))) == set(map(str, read_entries(board)))
    assert import_json(elsewhere, file) == (0, 4)
    assert export_json(board, file, data_sha256="b2") == 1


def test_an_export_holds_figures_and_no_patients(board: Path, tmp_path: Path) -> None:
    export_json(board, tmp_path / "shared.json")
    content = json.loads((tmp_path / "shared.json").read_text())
    assert set(content) == {"kind", "format", "notice", "entries"}
    assert all(set(entry) == set(GOOD) for entry in content["entries"])
    assert set(GOOD) == {
        *("data_sha256", "settings", "model", "model_sha256", "version", "machine", "created"),
        *("n_cases", "n_done", "metrics", "intervals", "site", "note", "sha256"),
    }


GOOD = entry_to_json(_entry("a", dice_GTVn=0.5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patient_id": "P1"}, r"unknown fields \(patient_id\)"),
        ({"cases": [{"case_id": "P1", "dice": 1}]}, r"unknown fields \(cases\)"),
        ({"data_sha256": None}, "data_sha256 of an entry is not a SHA-256"),
        ({"data_sha256": "A1" * 32}, "data_sha256 of an entry is not a SHA-256"),
        ({"model_sha256": "x"}, "model_sha256 of an entry is not a SHA-256"),
        ({"model": 5}, "model of an entry is not a text"),
        ({"model": "x" * 501}, "model of an entry is not a text"),
        ({"model": "a\x1b[31m"}, "cannot be printed"),
        ({"note": "line\nline"}, "cannot be printed"),
        ({"site": "\ud800"}, "cannot be printed"),
        ({"created": "yesterday"}, "not a date"),
        ({"created": "0001-01-01T00:00:00+14:00"}, "not a date"),
        ({"n_cases": 0}, "n_cases"),
        ({"n_cases": 2.5}, "n_cases"),
        ({"n_cases": True}, "n_cases"),
        ({"n_done": 31}, "more cases that are done than cases"),
        ({"n_done": 3}, "dice_GTVn of an entry cannot be, as 27 of its cases have no prediction"),
        ({"settings": {**SETTINGS, "tricks": 1}}, r"unknown settings \(tricks\)"),
        ({"settings": {"rule": 2}}, "lacks the settings iou_threshold, patients, prompts"),
        ({"settings": {**SETTINGS, "iou_threshold": 0}}, "iou_threshold"),
        ({"settings": {**SETTINGS, "prompts": "oracle"}}, "prompts"),
        ({"settings": {**SETTINGS, "rule": 99}}, "counts by rule 99, which this version does not know"),
        ({"metrics": {"dice_GTVn": 0.3, "iou_GTVn": 0.4}}, "iou_GTVn of an entry is 0.4 and dice_GTVn 0.3"),
        ({"metrics": {"dice_GTVn": 0.8, "iou_GTVn": 0.6}}, "which cannot be together"),
        ({"intervals": {"dice_GTVn": [0.6, 0.7]}}, "is 0.5, outside its interval 0.6 to 0.7"),
        ({"intervals": {"froc": [0.6, 0.7]}}, "an interval of froc without a figure"),
        ({"n_done": 29, "metrics": {"hd95_mm_GTVn": 0}}, "as 1 of its cases have no prediction"),
        ({"metrics": [0.5]}, "metrics"),
        ({"metrics": {"dice_GTVn": "0.5"}}, "dice_GTVn of an entry is not a finite number"),
        ({"metrics": {"dice_GTVn": True}}, "not a finite number"),
        ({"metrics": {"dice_GTVn": 10**400}}, "not a finite number"),
        ({"metrics": {"dice_GTVn": 1e999}}, "not a finite number|not valid JSON"),
        ({"metrics": {"dice_GTVn": 1.01}}, "dice_GTVn of an entry is 1.01, which cannot be"),
        ({"metrics": {"hd95_mm_GTVn": -1}}, "is -1, which cannot be"),
        ({"metrics": {"<script>x</script>()": 1}}, "metric that is not known"),
        ({"metrics": {"": 1}}, "metric that is not known"),
        ({"intervals": {"dice_GTVn": [0.6, 0.4]}}, "interval of dice_GTVn of an entry is 0.6 to 0.4"),
        ({"intervals": {"dice_GTVn": [0.4, 1.4]}}, "which cannot be"),
        ({"intervals": {"dice_GTVn": [0.4]}}, "not a pair of numbers"),
        ({"metrics": {"dice_GTVn": 0.99}}, "changed after it was made"),
        ({"site": "another"}, "changed after it was made"),
        ({"sha256": "0" * 64}, "changed after it was made"),
    ],
)
def test_a_malformed_entry_of_another_site_is_refused_in_one_sentence_and_nothing_added(
    board: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    file = tmp_path / "foreign.json"
    entries = [GOOD, {**GOOD, **change}]
    file.write_text(json.dumps({"kind": "aiene-leaderboard", "format": 2, "entries": entries}))
    with pytest.raises(InputError, match=said) as caught:
        import_json(board, file)
    _assert_one_sentence(str(caught.value))
    assert str(caught.value).startswith("foreign.json: ")
    assert len(read_entries(board)) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not an export of a leaderboard"),
        (b"null", "not an export of a leaderboard"),
        (b'{"kind": "other"}', "not an export of a leaderboard"),
        (b'{"kind": "aiene-leaderboard", "format": 1}', "different version"),
        (b'{"kind": "aiene-leaderboard", "format": 2}', "no list of entries"),
        (b'{"kind": "aiene-leaderboard", "format": 2, "entries": {}}', "no list of entries"),
        (
            b'{"kind": "aiene-leaderboard", "format": 2, "entries": [3]}',
            "entry 1: an entry is not a JSON object",
        ),
        (b'{"kind": "aiene-leaderboard", "format": 2, "entries": [{}]}', "entry 1: an entry lacks created"),
        (b'{"kind": "aiene-leaderboard", "format": 2, "entries": [NaN]}', "not valid JSON"),
    ],
)
def test_another_file_is_no_import(board: Path, tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "foreign.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        import_json(board, file)
    _assert_one_sentence(str(caught.value))


def test_a_file_that_is_not_there_and_a_folder_are_one_sentence(board: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError) as caught:
            import_json(board, path)
        _assert_one_sentence(str(caught.value))


def test_an_import_that_adds_nothing_makes_no_leaderboard(tmp_path: Path) -> None:
    file = tmp_path / "foreign.json"
    file.write_text("{}")
    with pytest.raises(InputError):
        import_json(tmp_path / "new.sqlite", file)
    assert not (tmp_path / "new.sqlite").exists()


def test_a_byte_order_mark_is_no_obstacle(board: Path, tmp_path: Path) -> None:
    file = tmp_path / "shared.json"
    export_json(board, file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert import_json(tmp_path / "new.sqlite", file) == (4, 0)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*GOOD, "extra"]), _JSON, max_size=4))
@pytest.mark.slow
def test_whatever_an_entry_holds_it_is_an_entry_or_one_sentence(changes: dict[str, Any]) -> None:
    try:
        entry = entry_from_json({**GOOD, **changes})
    except UsageError as error:
        _assert_one_sentence(str(error))
        return
    assert entry_from_json(json.loads(json.dumps(entry_to_json(entry), allow_nan=False))) == entry


def _assert_one_sentence(text: str) -> None:
    assert text.endswith(".")
    assert len(text) < 400
    assert text.isprintable()


def test_an_entry_that_must_not_be_is_not_added(board: Path) -> None:
    with pytest.raises(UsageError, match="not a finite number"):
        add_entries(board, [_entry("fine", dice_GTVn=0.5), _entry("broken", dice_GTVn=float("nan"))])
    assert len(read_entries(board)) == 4


def test_the_page_needs_nothing_else_and_escapes_what_comes_from_outside() -> None:
    entries = [
        replace(
            _entry("<b>a</b>", dice_GTVn=0.81234),
            intervals={"dice_GTVn": (0.7, 0.9)},
            note='"><script>alert(1)</script>',
        ),
        _entry("b", dice_GTVn=0.5),
    ]
    text = page(entries)
    assert "<b>a</b>" not in text
    assert "<script>alert" not in text
    assert "&lt;b&gt;a&lt;/b&gt;" in text
    assert not any(word in text for word in ("http://", "https://", "src=", "@import", "url("))
    assert "Research software, not a medical device." in text
    assert 'class="best" data-value="0.81234">0.8123<small>0.7 to 0.9</small><' in text


def test_the_page_has_a_table_for_each_data_set(board: Path) -> None:
    text = page(read_entries(board), sort="hd95_mm_GTVn")
    assert text.count("<table>") == 2
    assert text.index(ONE) < text.index(TWO)
    assert text.index(">good<") < text.index(">silent<") < text.index(">bad<")
    assert "There are no entries." in page([])


def _edit(board: Path, model: str, by: Any) -> None:
    """Change a row of the file by hand."""
    with closing(sqlite3.connect(board)) as connection:
        rows = connection.execute("SELECT id, content FROM entries").fetchall()
        for name, content in rows:
            entry = json.loads(content)
            if entry["model"] == model:
                changed = by(entry)
                said = changed if isinstance(changed, str) else json.dumps(entry)
                connection.execute("UPDATE entries SET content = ? WHERE id = ?", [said, name])
        connection.commit()


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (lambda e: e["metrics"].update(dice_GTVn=0.99), "changed after it was made"),
        (lambda e: e["metrics"].update(dice_GTVn=7), "cannot be"),
        (lambda e: e["settings"].update(tricks=1), "unknown settings"),
        (lambda e: e.update(data_sha256=TWO), "changed after it was made"),
        (lambda e: e.__delitem__("sha256"), "lacks sha256"),
        (lambda e: "{", "not valid JSON"),
        (lambda e: "[" * 100_000, "not valid JSON"),
        (lambda e: json.dumps(entry_to_json(_entry("bad", dice_GTVn=0.95))), "changed after it was made"),
    ],
)
def test_a_row_that_was_changed_by_hand_is_told_and_not_ranked(board: Path, by: Any, said: str) -> None:
    _edit(board, "bad", by)
    entries, rejected = read_board(board)
    assert "bad" not in [entry.model for entry in entries]
    assert len(entries) == 3
    ((_, reason),) = rejected
    assert said in reason
    text = page(entries, rejected=rejected)
    assert "Not ranked" in text
    assert said in text


def test_a_column_that_does_not_repeat_its_entry_is_told(board: Path) -> None:
    with closing(sqlite3.connect(board)) as connection:
        connection.execute("UPDATE entries SET created = '2999-01-01' WHERE content LIKE '%\"bad\"%'")
        connection.commit()
    entries, rejected = read_board(board)
    assert len(entries) == 3
    assert "changed after it was made" in rejected[0][1]


def test_an_entry_over_fewer_cases_of_the_same_data_is_told_and_not_ranked(board: Path) -> None:
    add_entry(board, replace(_entry("one case", dice_GTVn=0.99), n_cases=1, n_done=1))
    entries, rejected = read_board(board)
    assert "one case" not in [entry.model for entry in entries]
    assert [reason for _, reason in rejected] == [
        "an entry is over 1 cases, others of the same data set over 30."
    ]


def test_an_import_that_contradicts_the_board_is_refused(board: Path, tmp_path: Path) -> None:
    add_entry(tmp_path / "b.sqlite", replace(_entry("m", dice_GTVn=0.99), n_cases=1, n_done=1))
    export_json(tmp_path / "b.sqlite", tmp_path / "b.json")
    with pytest.raises(InputError, match="entry 1: an entry is over 1 cases"):
        import_json(board, tmp_path / "b.json")
    assert len(read_entries(board)) == 4


def test_where_two_entries_contradict_each_other_none_is_ranked(tmp_path: Path) -> None:
    two = [replace(_entry("m", dice_GTVn=0.5), n_cases=n, n_done=n) for n in (1, 30)]
    add_entries(tmp_path / "b.sqlite", two)
    entries, rejected = read_board(tmp_path / "b.sqlite")
    assert (len(entries), len(rejected)) == (0, 2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_figures_that_are_of_the_same_cases_are_never_taken_for_impossible(dice: list[float]) -> None:
    iou = [d / (2 - d) for d in dice]
    metrics: dict[str, Any] = {"dice_GTVn": sum(dice) / len(dice), "iou_GTVn": sum(iou) / len(iou)}
    entry = entry_from_json(entry_to_json(_entry("m", **metrics)))
    assert entry.metrics == metrics


def test_two_sites_with_the_same_data_meet_on_one_board(tmp_path: Path) -> None:
    ours, theirs = (replace(_entry("m", dice_GTVn=d), site=s) for d, s in ((0.8, "A"), (0.7, "B")))
    add_entry(tmp_path / "a.sqlite", ours)
    add_entry(tmp_path / "b.sqlite", theirs)
    export_json(tmp_path / "b.sqlite", tmp_path / "b.json")
    assert import_json(tmp_path / "a.sqlite", tmp_path / "b.json") == (1, 0)
    (found,) = boards(read_entries(tmp_path / "a.sqlite"))
    assert [(p.rank, p.entry.site) for p in found.places] == [(1, "A"), (2, "B")]


def test_a_run_without_an_answer_is_no_entry_and_one_with_some_counts_them_all() -> None:
    estimate = {"value": 0.4, "low": 0.2, "high": 0.6}
    model = {  # type: ignore[var-annotated]
        "name": "m", "sha256": "0" * 64, "status": "ok", "said": [], "prompts": "none",
        "cases": {"ok": 4, "failed": 6}, "segmentation": {"GTVn": {"dice": {"mean": estimate}}},
        "aggregated_dice": {"GTVn": estimate}, "detection": None, "classification": None,
        "resources": {"seconds": {"total": {"median": estimate}}, "peak_rss_mib": {"max": 3.0}},
    }  # fmt: skip
    data = {"sha256": ONE, "settings": {k: v for k, v in SETTINGS.items() if k != "prompts"}}
    summary = {
        "machine": {"gpu": None, "cpu": "x", "cores": 2}, "data": data, "aiene": "0.1.0",
        "created": "2026-11-25T10:00:00Z", "models": [model, {**model, "cases": {"ok": 0, "failed": 10}}],
    }  # fmt: skip
    (entry,) = entries_of(summary, "Site A")
    assert (entry.n_cases, entry.n_done, entry.site) == (10, 4, "Site A")
    assert entry.metrics == {"dice_GTVn": 0.4}  # what a lost case leaves unknown is not there
    assert entry.intervals == {"dice_GTVn": (0.2, 0.6)}
    assert entry_from_json(entry_to_json(entry)).metrics == entry.metrics
