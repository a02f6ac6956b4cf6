"""Intervals, comparisons, tables and what they refuse."""

import json

import numpy as np
import pandas as pd
import pytest
from course import ROOT

from sepbook.engine.tables import sortable
from sepbook.leaderboard import (
    FIELDS,
    SETS,
    Board,
    advise,
    check_row,
    compare,
    find_results,
    interactive,
    interval,
    matter,
    mean_of_draws,
    pareto,
    read,
    redraw,
    statistic,
    table,
)

PAIRS = [["a", "b"], ["b", "c"], ["a", "c"], ["c", "d"]]


def row(**more):
    """A row that is right."""
    made = dict.fromkeys(FIELDS) | {
        "set": "clips",
        "system": "x",
        "chapter": "1",
        "kind": "shipped",
    }
    made |= {
        "score": 1.0,
        "statistic": statistic("clips"),
        "items": 4,
        "groups": 4,
        "scores": [1.0] * 4,
    }
    return made | {"parts": {}, "command": "make", "date": "2026-11-29", "speed": 2.0} | more


def board(*rows):
    return Board(pd.DataFrame(rows, columns=list(FIELDS)), {"clips": PAIRS})


def test_a_pair_counts_as_often_as_both_are_drawn():
    weight = redraw(PAIRS, draws=500, seed=1)
    count = np.random.default_rng(1).multinomial(4, np.full(4, 0.25), size=500)
    want = np.stack([count[:, 0] * count[:, 1], count[:, 1] * count[:, 2]], 1)
    assert (weight[:, :2] == want).all() and weight.shape == (500, 4)
    single = redraw([["a"], ["b"], ["c"]], draws=50)
    assert (single.sum(1) == 3).all()


def test_intervals_repeat_and_hold_their_mean():
    scores = [1.0, 2.0, 4.0, 3.0]
    low, high = interval(scores, PAIRS)
    assert (low, high) == interval(scores, PAIRS) and 1 <= low < 2.5 < high <= 4
    assert interval(scores, PAIRS, 0.5)[0] > low
    assert interval([5.0] * 4, PAIRS) == (5.0, 5.0)
    moved = interval([s + 10 for s in scores], PAIRS)
    assert np.allclose(moved, [low + 10, high + 10])


def test_an_interval_over_speakers_is_wider_than_over_clips():
    rng = np.random.default_rng(0)
    skill = rng.normal(0, 3, 10)
    pairs = [rng.choice(10, 2, replace=False) for _ in range(80)]
    scores = [float(skill[p].mean()) for p in pairs]
    people = interval(scores, [[str(k) for k in p] for p in pairs])
    clips = interval(scores, [[str(k)] for k in range(80)])
    assert people[1] - people[0] > 1.5 * (clips[1] - clips[0])


def test_few_groups_have_no_interval():
    assert interval([1.0, 2.0], [["a"], ["b"]]) == (None, None)
    assert interval([1.0, None, 2.0], [["a"], ["b"], ["c"]]) == (None, None)
    assert len(mean_of_draws([1.0, 2.0, 3.0], [["a"], ["b"], ["c"]], draws=7)) == 7


def test_missing_scores_are_left_out():
    scores = [1.0, None, 3.0, 2.0]
    known = [k for k in range(4) if scores[k] is not None]
    want = mean_of_draws([scores[k] for k in known], [PAIRS[k] for k in known])
    assert np.array_equal(mean_of_draws(scores, PAIRS), want)


def test_a_comparison_is_paired():
    hard = np.array([0.0, 9.0, -9.0, 3.0])
    told = compare(list(hard + 0.5), list(hard), PAIRS)
    assert told.gain == told.low == told.high == 0.5 and told.better == 1 and told.items == 4
    told = compare([1.0, None, 3.0, 2.0], [0.0, 5.0, None, 1.0], PAIRS)
    assert told.items == 2 and told.gain == 1.0
    with pytest.raises(ValueError, match="one set"):
        compare([1.0], [1.0, 2.0], PAIRS)
    with pytest.raises(ValueError, match="no item in common"):
        compare([1.0, None, None, None], [None, 1.0, 1.0, 1.0], PAIRS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"set": "mine"}, "set"),
        ({"kind": "best"}, "kind"),
        ({"score": "5 dB"}, "score"),
        ({"score": True}, "score"),
        ({"scores": [1.0]}, "4 items"),
        ({"command": None}, "command"),
        ({"command": " "}, "no command"),
        ({"statistic": "median over the best ten clips"}, "its statistic"),
        ({"set": "songs"}, "its statistic"),
        ({"score": 1.01}, "mean of its scores"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(change, said):
    check_row(row(), PAIRS)
    with pytest.raises(ValueError, match=said) as error:
        check_row(row(**change), PAIRS)
    assert "\n" not in str(error.value)


def test_a_row_without_a_field_is_refused():
    short = row()
    del short["speed"]
    with pytest.raises(ValueError, match="no 'speed'"):
        check_row(short, PAIRS)


def test_files_of_other_items_do_not_mix(tmp_path):
    told = {"sets": {"clips": {"groups": PAIRS}}, "rows": [row()]}
    (tmp_path / "a.json").write_text(json.dumps(told))
    (tmp_path / "speed.json").write_text(json.dumps({"rows": [{"other": 1}]}))
    assert len(read(tmp_path).rows) == 1
    told["sets"]["clips"]["groups"] = [*PAIRS[:3], ["x", "y"]]
    (tmp_path / "b.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"b\.json has other clips"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="clone"):
        find_results(tmp_path)


def test_the_front_is_what_nothing_cheaper_beats():
    rows = [row(system=n, parameters=p, score=s) for n, p, s in (("a", 1, 1.0), ("b", 2, 3.0))]
    rows += [row(system=n, parameters=p, score=s) for n, p, s in (("c", 2, 2.0), ("d", 5, 3.0))]
    rows += [row(system="e", score=9.0)]
    assert list(pareto(board(*rows).rows)["system"]) == ["a", "b"]


def test_advice_fits_and_knows_no_answers():
    rows = board(
        row(system="oracle", kind="bound", score=20.0, speed=99.0),
        row(system="large", parameters=10, megabytes=9.0, score=5.0),
        row(system="small", parameters=2, megabytes=1.0, score=3.0, speed=50.0),
        row(system="rule", kind="classical", score=1.0, speed=9.0),
    ).rows
    assert advise(rows, "clips")["system"] == "large"
    assert advise(rows, "clips", megabytes=4)["system"] == "small"
    assert advise(rows, "clips", parameters=0)["system"] == "rule"
    assert advise(rows, "clips", speed=10)["system"] == "small"
    assert advise(rows, "songs") is None and advise(rows, "clips", speed=1e9) is None


def test_tables_hold_one_set_and_sort_it():
    rows = board(row(system="a", score=1.0, parts={"vocals": 2.0}), row(system="b", score=4.0)).rows
    found = table(rows, "clips")
    assert list(found["system"]) == ["b", "a"] and found["vocals"][1] == 2.0
    assert not len(table(rows, "songs")) and not len(table(rows, "clips", ["bound"]))
    with pytest.raises(ValueError, match="which"):
        table(rows, "opera")


def test_the_page_table_is_whole_and_safe():
    rows = board(row(system="<i>x</i>"), row(system="y", command='echo "&"')).rows
    text = interactive(rows)._repr_html_()
    assert text.count("<tr") == 3 and "&lt;i&gt;x" in text and "<i>" not in text
    assert "echo &quot;&amp;&quot;" in text and "http" not in text
    with pytest.raises(KeyError, match="no column 'z'"):
        sortable(rows, "", {"z": None})


def test_the_stored_board_is_whole():
    """Every set has its bounds, a system that ships, and rows that fit."""
    found = read(ROOT / "results")
    for name in SETS:
        kinds = set(found.rows[found.rows["set"] == name]["kind"])
        assert {"bound", "shipped"} <= kinds, name
    double = found.rows.duplicated(["set", "system", "kind"])
    assert not double.any(), found.rows[double]["system"].tolist()
    for _, one in found.rows.iterrows():
        have = [s for s in one["scores"] if s is not None]
        assert abs(float(np.mean(have)) - one["score"]) < 0.002, one["system"]
        low, high = interval(one["scores"], found.groups[one["set"]])
        assert (low is None) == (one["low"] is None or np.isnan(one["low"]))
        if low is not None:
            assert abs(low - one["low"]) < 0.002 and abs(high - one["high"]) < 0.002
        assert one["command"].startswith(("python benchmarks/", "sepbook "))


def test_eight_rows_matter():
    found = matter(ROOT / "results")
    assert list(found) == ["What", "Measured", "Repeat it"] and len(found) == 8
    assert not found.isna().any().any() and found["What"].is_unique


def test_a_browser_sorts_and_filters():
    """With the keyboard, on a narrow screen; it says how many rows are left."""
    sync = pytest.importorskip("playwright.sync_api")
    frame = pd.DataFrame({"name": ["a", "b", "c"], "dB": [1.0, 10.0, None], "set": ["x", "x", "y"]})
    page_text = f"<body>{sortable(frame, 'three', {'set': None}).text}</body>"
    with sync.sync_playwright() as play:
        try:
            browser = play.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
        except sync.Error as error:
            pytest.skip(f"no browser: {error.message.splitlines()[0]}")
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.set_content(page_text)
        names = lambda: page.locator("tbody tr:visible th").all_inner_texts()
        page.get_by_role("button", name="dB").focus()
        page.keyboard.press("Enter")
        assert names() == ["b", "a", "c"]
        assert page.locator("thead th").nth(1).get_attribute("aria-sort") == "descending"
        page.keyboard.press("Enter")
        assert names() == ["a", "b", "c"]
        page.get_by_label("set").select_option("y")
        assert names() == ["c"] and page.get_by_role("status").inner_text() == "1 of 3 rows"
        page.get_by_label("set").select_option("")
        page.get_by_label("words").fill("B")
        assert names() == ["b"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()


def test_what_ships_stands_beside_its_commands():
    """Every figure of the models has the command that printed it, and is that on the card."""
    from sepbook.zoo import available, read_card

    rows = json.loads((ROOT / "results" / "shipped.json").read_text())["rows"]
    assert {row["model"] for row in rows} == set(available().index)
    for one in rows:
        lines, card = one["commands"], read_card(one["model"])
        assert all(one["model"] in line for line in lines.values() if line)
        assert "DATA" in (lines["kept apart"] or lines["packaged"])
        if card.get("evaluation"):
            assert lines["kept apart"].endswith("--as-card")
            assert abs(one["kept apart: SI-SDR gain"] - card["scores"]["si_sdri"]) < 0.015
        if "sepbook" in str(lines["packaged"]):
            assert lines["packaged"].endswith("--data example --size 100")
