"""A fast scorer decides which pictures the slow one sees, and every row says who decided."""

import re
import time

import pytest
from pictures import encoded
from tiny import photo, scorer_parts

from roc4mllm import load_scorer
from roc4mllm.inference import cascade
from roc4mllm.inference.cascade import Cascade

PICTURES = [*(photo(seed) for seed in range(12)), b"broken"]


def make_scorer(attributes, score_range, name, **options):
    model, processor = scorer_parts("llava", attributes, score_range=score_range, **options)
    model.config.name_or_path = model.name_or_path = name
    return load_scorer(model, processor=processor)


@pytest.fixture(scope="module")
def fast():
    return make_scorer(("aesthetics", "color"), (0.0, 1.0), "fast")


@pytest.fixture(scope="module")
def slow():
    return make_scorer(("aesthetics", "color", "light"), (1.0, 10.0), "slow")


@pytest.fixture(scope="module")
def band(fast) -> tuple[float, float]:
    """That of the middle four."""
    scores = sorted(record["score"] for record in fast(PICTURES) if record["score"] is not None)
    assert scores[7] - scores[4] > 1e-3
    return (scores[4] + scores[3]) / 2, (scores[7] + scores[8]) / 2


@pytest.mark.parametrize("waiting", [3, 1024])
def test_the_band_decides(monkeypatch, fast, slow, band, waiting):
    monkeypatch.setattr(cascade, "WAITING", waiting)
    both = Cascade(fast, slow, band)
    records = list(both(iter(PICTURES), batch_size=2))
    alone = fast(PICTURES)
    assert [record["fast_score"] for record in records] == pytest.approx([r["score"] for r in alone], abs=1e-5)
    inside = [r["score"] is not None and band[0] <= r["score"] <= band[1] for r in alone]
    assert sum(inside) == 4
    assert both.counts == {"fast": 12, "slow": 4}
    for record, quick, sure, looked_at in zip(records, alone, slow(PICTURES), inside, strict=True):
        decided = sure if looked_at else quick
        assert record["model"] == ("slow" if looked_at else "fast")
        assert (record["fast_model"], record["fast_revision"]) == ("fast", None)
        assert record["score_range"] == decided["score_range"]
        assert record["score"] == (None if decided["score"] is None else pytest.approx(decided["score"], abs=1e-4))
    assert records[-1]["error"] is not None
    assert "4 of 12 with a fast score from" in both.saving()
    assert re.search(r"went to slow: [\d.]+ times as (fast|slow) as that model alone", both.saving())


def test_the_saving_counts_forward_passes_and_no_reading(fast, slow, band):
    class Far:
        """A picture that takes long to fetch."""

        def read_bytes(self):
            time.sleep(0.05)
            return encoded(photo(0), "PNG")

    both = Cascade(fast, slow, (0.0, 1.0))
    start = time.perf_counter()
    records = list(both([Far() for _ in range(8)], batch_size=8))
    assert {record["model"] for record in records} == {"slow"}
    assert sum(both.seconds.values()) < time.perf_counter() - start - 16 * 0.05 + 0.05
    totals = both.take_totals()
    assert totals["counts"] == {"fast": 8, "slow": 8}
    assert min(totals["seconds"].values()) > 0
    assert both.counts == {"fast": 0, "slow": 0}
    both.add_totals(totals)
    both.add_totals(totals)
    assert both.counts == {"fast": 16, "slow": 16}
    assert both.seconds == {name: 2 * seconds for name, seconds in totals["seconds"].items()}


def test_attributes_that_only_one_of_them_knows(fast, slow, band):
    records = list(Cascade(fast, slow, band, ["aesthetics", "light"])(PICTURES[:12]))
    by_model = {record["model"]: set(record["attributes"]) for record in records}
    assert by_model == {"fast": {"aesthetics"}, "slow": {"aesthetics", "light"}}
    with pytest.raises(ValueError, match="the fast model does not score light, which the band would be of"):
        Cascade(fast, slow, band, ["light", "aesthetics"])


def test_the_band_is_of_the_first_attribute(fast, slow):
    scores = [record["score"] for record in fast(PICTURES[:12], attributes=["color"])]
    low, high = sorted(scores)[3] - 1e-4, sorted(scores)[6] + 1e-4
    records = list(Cascade(fast, slow, (low, high), ["color"])(PICTURES[:12]))
    assert [record["fast_score"] for record in records] == pytest.approx(scores, abs=1e-5)
    assert [record["model"] for record in records] == ["slow" if low <= s <= high else "fast" for s in scores]
    assert all(set(record["attributes"]) == {"color"} for record in records)


def test_rows_come_as_soon_as_their_order_allows(fast, slow):
    """Outside the band nothing waits, however long the stream is."""
    pulled = []
    both = Cascade(fast, slow, (0.0, 0.0))
    next(both((pulled.append(seed) or photo(seed) for seed in range(100)), batch_size=4))
    assert len(pulled) <= 8


def test_nothing_in_the_band(fast, slow):
    both = Cascade(fast, slow, (0.0, 0.0))
    assert {record["model"] for record in both(PICTURES[:4])} == {"fast"}
    assert both.saving().startswith("0 of 4")


@pytest.mark.parametrize("wrong", [(0.7, 0.3), (-1.0, 0.5), (0.5, 5.0)])
def test_a_band_that_cannot_be_meant(fast, slow, wrong):
    with pytest.raises(ValueError, match="expected LOW <= HIGH in the units of the fast model.* from 0 to 1"):
        Cascade(fast, slow, wrong)


def test_models_that_count_the_other_way_round(fast):
    other = make_scorer(("aesthetics",), (1.0, 10.0), "other")
    other.model.config.higher_is_better = False
    with pytest.raises(ValueError, match="they do not agree"):
        Cascade(fast, other, (0.2, 0.4))
