"""The pure parts of the pages."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import overview
from controller.fleet import STATUSES
from controller.web import histogram, new_rollout, series, tiles, words
from shoal.errors import InvalidInputError

RELEASE = {
    "release": "pump 1.0.0",
    "selector": "site:north",
    "waves": "2, 25%, 100%",
    "soak_seconds": "30",
    "on_failure": "pause",
}


def test_sites_come_worst_first():
    rows = [
        ("a", "a-1", "ok"), ("b", "b-1", "offline"), ("b", "b-2", "ok"),
        ("c", "c-1", "failing"), ("c", "c-2", "ok"), ("d", "d-1", "degraded"),
    ]  # fmt: skip
    view = overview.view_fleet(rows)
    assert [site.site for site in view.sites] == ["c", "b", "d", "a"]
    assert view.counters["ok"] == 3
    assert view.sites[0].trouble == "1 failing"
    assert view.sites[3].trouble == ""


@given(
    st.lists(st.sampled_from(STATUSES), min_size=1, max_size=200),
    st.integers(1, 30),
    st.integers(1, 6),
)
def test_picture_holds_one_cell_for_each_device(statuses, columns, cell):
    picture = tiles.draw(statuses, columns, cell)
    data = base64.b64decode(picture.source.partition(",")[2])
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (picture.width, picture.height)
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    pixels = zlib.decompress(data[at + 4 : at + 4 + length])
    assert len(pixels) == (width + 1) * height
    for place, status in enumerate(statuses):
        row, column = divmod(place, columns)
        value = pixels[row * cell * (width + 1) + 1 + column * cell]
        assert value == STATUSES.index(status) + 1


@pytest.mark.parametrize(
    ("total", "kind"), [(0, "named"), (60, "named"), (61, "linked"), (501, "pictures")]
)
def test_map_is_drawn_by_the_size_of_the_fleet(total, kind):
    from controller.web.fleet_page import site_map

    view = overview.view_fleet([("north", f"gw-{i}", "ok") for i in range(total)])
    assert site_map(view)["kind"] == kind


def _window(start, end, version="1", p95=2000.0):
    return {
        "start_ms": start, "end_ms": end, "version": version, "in_count": 10, "failed": {"a": 1},
        "latency_p50_us": p95 / 2, "latency_p95_us": p95,
    }  # fmt: skip


def test_silence_is_a_gap_and_a_new_release_is_marked():
    found = series.columns([_window(0, 1000), _window(9000, 10000, "2", 0.0)])
    assert found["t"] == [1.0, 5.0, 10.0]
    assert found["p95_ms"] == [2.0, None, None]
    assert found["rows_per_second"] == [10.0, None, 10.0]
    assert found["changes"] == [{"t": 0.0, "version": "1"}, {"t": 9.0, "version": "2"}]
    assert found["last_ms"] == 10000


def test_windows_that_follow_each_other_have_no_gap():
    found = series.columns([_window(0, 1000), _window(1500, 2500), _window(2600, 3600)])
    assert None not in found["p95_ms"]


def test_histogram_compares_shares_and_not_counts():
    bars = histogram.draw_histogram([1.0, 2.0], [10, 20, 10], [100, 200, 100])
    assert [bar.baseline for bar in bars] == [bar.live for bar in bars]
    assert bars[1].baseline == histogram.HEIGHT
    assert bars[0].title == "lowest to 1: training 25.0%, live 25.0%"


@given(st.integers(1, 256))
def test_histogram_of_any_number_of_bins_stays_readable(bins):
    bars = histogram.draw_histogram([float(i) for i in range(bins - 1)], [1] * bins, [2] * bins)
    assert 1 <= len(bars) <= histogram.BARS_MOST
    assert sum(bar.width for bar in bars) == pytest.approx(histogram.WIDTH, rel=0.01)


def test_field_whose_mean_overflowed_still_reads():
    row = {
        "unit": "bar", "mean": None, "baseline_mean": 2.0, "baseline_std": 1.0,
        "missing_ratio": 0.5, "out_of_range_ratio": 0.0,
    }  # fmt: skip
    assert words.field_words(row) == "mean – bar, in training 2 bar, 50 % missing"


def test_form_becomes_a_specification():
    found = new_rollout.read_specification(RELEASE)
    assert (found.model, found.version, found.on_failure) == ("pump", "1.0.0", "pause")
    assert [wave.name for wave in found.waves] == ["canary", "25 %", "100 %"]


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("release", "", "release"),
        ("waves", " , ", "waves"),
        ("waves", "half", "half"),
        ("soak_seconds", "long", "soak"),
        ("soak_seconds", "nan", "soak"),
        ("on_failure", "shrug", "on_failure"),
    ],
)
def test_wrong_field_is_named(field, value, word):
    with pytest.raises(InvalidInputError, match=word):
        new_rollout.read_specification(RELEASE | {field: value})


def test_vendored_scripts_are_the_ones_that_are_noted(repository_root):
    folder = repository_root / "controller" / "web" / "static" / "vendor"
    noted = dict(
        re.findall(
            r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", (folder / "VERSIONS.md").read_text(), re.M
        )
    )
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix in (".js", ".css")
    }
    assert found == noted
