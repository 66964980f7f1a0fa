"""Ray Data gives the rows of a run on one machine, also when its processes are killed. One cluster for all tests."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import time
from collections import Counter
from itertools import chain
from pathlib import Path

import datasets
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded
from ray_scorers import DeadlyScorer
from tiny import photo, scorer_parts

from roc4mllm import load_scorer
from roc4mllm.inference import ImageAestheticsScorer, ray_scoring
from roc4mllm.inference.inputs.dataset_inputs import DatasetInputs
from roc4mllm.inference.inputs.expansion import expand_inputs
from roc4mllm.inference.inputs.picture_input import PictureInput
from roc4mllm.inference.ray_scoring import BLOCK_BYTES, BLOCKS, RayScorer, block_tables, import_ray
from roc4mllm.inference.tables.score_reading import read_table
from roc4mllm_cli import main

pytestmark = [
    # Ray 2.60 sets options that it calls deprecated itself (ray/data/context.py), and leaves its own server processes
    # and their logs to the garbage collector. May go when it no longer does.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ATTRIBUTES = ("aesthetics", "color")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # actors import this checkout, wherever it is
    ray = import_ray()
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    yield ray
    del os.environ["RAY_ADDRESS"]
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def cascade(tmp_path_factory) -> list[str]:
    """A fast model and a band in which some pictures lie."""
    fast = save_model(tmp_path_factory.mktemp("models") / "fast", ("aesthetics",), (0.0, 1.0))
    scores = sorted(record["score"] for record in load_scorer(fast)([photo(number) for number in range(40)]))
    assert scores[20] - scores[10] > 1e-3
    return ["--cascade", fast, "--band", *(str((scores[n] + scores[n + 1]) / 2) for n in (10, 20))]


def save_model(folder: Path, attributes=ATTRIBUTES, score_range=(1.0, 10.0)) -> str:
    for part in scorer_parts("llava", attributes, score_range=score_range):
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All that pictures can lie in; every fifth is broken."""
    folder = tmp_path_factory.mktemp("pictures")
    contents = [b"broken" if number % 5 == 3 else encoded(photo(number), "PNG") for number in range(40)]
    for place in ("album", "store/deep", "odd"):
        (folder / place).mkdir(parents=True)
    for number, content in enumerate(contents[:10]):
        (folder / "album" / f"{number}.png").write_bytes(content)
        (folder / "store" / "deep" / f"{number}.png").write_bytes(content)
    (folder / "odd" / os.fsdecode(b"\xff.png")).write_bytes(contents[0])
    for name in ("whole.tar", "packed.tar.gz"):
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as archive:
            for number, content in enumerate(contents[:6]):
                member = tarfile.TarInfo(f"{number}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    rows = [{"bytes": content, "path": f"in/{number}.png"} for number, content in enumerate(contents)]
    pq.write_table(pa.table({"image": [*rows, None]}), folder / "named.parquet", row_group_size=7)
    pq.write_table(pa.table({"jpg": contents[:9]}), folder / "bare.parquet", row_group_size=4)
    return folder


SOURCES = ["album", "odd", "missing.png", "whole.tar", "packed.tar.gz", "named.parquet", "bare.parquet"]
STORED = ["store/deep", "store/*/1*.png", "store", "store/none.png", "whole.tar", "named.parquet", "nothing/*.png"]


def score(model: str, *arguments: str) -> int:
    return main(["score", *arguments, "-m", model])


def test_a_killed_run_goes_on_and_its_rows_are_those_of_one_machine(
    model, cascade, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    inputs = [*SOURCES, *(f"file://{folder}/{name}" for name in STORED), *cascade]
    local, parts = str(tmp_path / "local.parquet"), tmp_path / "parts"
    assert score(model, *inputs, "-o", local) == 0
    (left,) = kill_runs(1, parts, *inputs, "-m", model)
    ray = (*inputs, "-o", f"{parts}/", "--engine", "ray", "--actors", "1", "1", "--resume")
    assert score(save_model(tmp_path / "other"), *ray) == 2
    assert "of another attribute, model" in capsys.readouterr().err
    assert score(model, *ray) == 0
    told = capsys.readouterr().err
    assert f"; {left} had a row already" in told
    assert f"with a fast score from {float(cascade[-2]):g} to {float(cascade[-1]):g} went to" in told
    assert re.search("times as (fast|slow) as that model alone", told)
    expected, rows = list(read_table(local)), list(read_table(parts))
    failed = sum(row["error"] is not None for row in expected)
    print(f"{len(expected)} rows of one machine, {failed} failed; by Ray {left} and then {len(rows) - left}")  # noqa: T201
    assert len(expected) == 10 + 1 + 1 + 6 + 6 + 41 + 9 + (10 + 1 + 1 + 1 + 6 + 41 + 1)
    assert failed > 20
    assert 0 < left < len(expected)
    assert min(Counter(row["model"] for row in rows if row["error"] is None).values()) > 10
    assert_same(rows, expected)
    assert pq.read_schema(parts / "part-00000.parquet").equals(pq.read_schema(local))


def kill_runs(kills: int, parts: Path, *arguments: str) -> list[int]:
    """Rows that are there after each of so many runs that were killed at random moments."""
    command = [sys.executable, str(Path(__file__).parents[1] / "killed_ray_runs.py"), str(kills), str(parts)]
    child = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60 + 60 * kills)
    assert child.returncode == 0, child.stderr
    told = json.loads(child.stdout.splitlines()[-1])
    print(f"{told['killed']} of {kills} runs killed, rows after each {told['left']}")  # noqa: T201
    assert told["killed"] == kills
    assert told["left"] == sorted(told["left"])
    return told["left"]


@pytest.mark.slow
def test_runs_killed_at_twenty_random_moments_leave_every_input_once(model, tmp_path):
    album, parts = tmp_path / "album", tmp_path / "parts"
    album.mkdir()
    for number in range(3000):
        (album / f"{number:04}.png").write_bytes(b"broken" if number % 50 == 7 else encoded(photo(number % 5), "PNG"))
    left = kill_runs(20, parts, str(album), "-m", model)
    assert 0 < left[-1] < 3000
    assert score(model, str(album), "-o", f"{parts}/", "--engine", "ray", "--resume") == 0
    rows = list(read_table(parts))
    failed = sum(row["score"] is None for row in rows)
    print(f"{len(rows)} rows at the end, {failed} failed")  # noqa: T201
    paths = Counter(row["path"] for row in rows)
    assert paths == dict.fromkeys((str(album / f"{number:04}.png") for number in range(3000)), 1)
    assert failed == 60
    time.sleep(5)
    assert not any("BlockScorer" in "".join(found.info["cmdline"] or []) for found in psutil.process_iter(["cmdline"]))


def assert_same(rows, expected) -> None:
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            assert row[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), name
        if other["normalized"] is not None:
            assert row["normalized"] == pytest.approx(other["normalized"], abs=1e-5)
    scores = [row["score"] for row in rows if row["score"] is not None]
    assert max(scores) - min(scores) > 1e-3


def test_a_picture_that_kills_is_a_row_and_the_others_are_scored(model, folder, tmp_path, caplog):
    """First a worker that reads, then an actor twice; in a pool that grows, on half CPUs, with bytes of a data set."""
    for place in ("album", "log", "data"):
        (tmp_path / place).mkdir()
    for number in range(120):
        name = "deadly" if number == 50 else f"{number:03}"
        (tmp_path / "album" / f"{name}.png").write_bytes(encoded(photo(number % 7), "PNG"))
    rows = pq.read_table(folder / "named.parquet").slice(0, 5).to_pylist()
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "data" / "train.parquet")
    scorer = DeadlyScorer(model, str(tmp_path / "log"), device="cpu")
    on_ray = RayScorer(scorer, load_scorer(model, device="cpu"), actors=(1, 5), num_cpus=0.5)
    names = sorted((tmp_path / "album").iterdir(), key=lambda path: (path.stem != "deadly", path.name))
    names = [*names[1:40], names[0], *names[40:]]
    inputs = chain(expand_inputs(map(str, names)), DatasetInputs(str(tmp_path / "data")))
    with caplog.at_level(logging.WARNING):
        records = on_ray.score_inputs(inputs, batch_size=4, num_workers=1)
        found = [(item.path, record["error"]) for item, record in records]
    log = Counter(path.name.partition("-")[0] for path in (tmp_path / "log").iterdir())
    print(f"{len(found)} rows, {log['death']} processes killed by one picture, {log['load']} loaded the model")  # noqa: T201
    assert [path for path, _ in found[:120]] == list(map(str, names))
    assert len(found) == 125
    failed = {path: error for path, error in found if error is not None}
    assert failed.pop(str(tmp_path / "album" / "deadly.png")) == "the process that scored it was killed, 3 times of 3"
    assert list(failed) == [found[123][0]]  # every fifth of the data set is broken
    assert log["death"] == 3
    assert 1 + 2 <= log["load"] <= 4 + 2  # once each, and once for each that was killed
    assert "the cluster has room for 4 of up to 5 actors: the others start when it grows" in caplog.text


def test_blocks_and_waves_are_bounded_in_pictures_and_in_bytes(monkeypatch):
    assert [table.num_rows for table in block_tables(PictureInput(f"{n}.jpg") for n in range(70))] == [32, 32, 6]
    assert BLOCKS[0] == 32
    heavy = [PictureInput(f"{n}", content=bytes(BLOCK_BYTES // 2)) for n in range(5)]
    assert [table.num_rows for table in block_tables(iter(heavy))] == [2, 2, 1]
    monkeypatch.setattr(ray_scoring, "WAVE_BYTES", BLOCK_BYTES + 1)
    assert [list(wave.values()) for wave in ray_scoring.waves(iter(heavy))] == [[2], [2], [1]]
    assert [list(wave.values()) for wave in ray_scoring.waves(PictureInput(f"{n}") for n in range(70))] == [
        [32, 32, 6]
    ]


def test_a_lost_block_is_told(model):
    on_ray = RayScorer(ImageAestheticsScorer(model), load_scorer(model))
    rows = [{"place": place, "path": f"{place}", "record": "{}", "totals": None} for place in range(6)]
    blocks = [pa.Table.from_pylist(rows[start : start + 2]) for start in (0, 2, 4)]
    assert [item.path for item, _ in on_ray._records(blocks, 0, 6)] == [str(n) for n in range(6)]
    assert [item.path for item, _ in on_ray._records(blocks[1:], 2, 4)] == [str(n) for n in range(2, 6)]
    for left in (blocks[::2], blocks[:1]):
        with pytest.raises(RuntimeError, match="picture 3 on"):
            list(on_ray._records(left, 0, 6))


def encoded_album(folder: Path) -> list[dict]:
    names = [folder / "album" / f"{number}.png" for number in range(10)]
    return [{"number": number, "image": name.read_bytes()} for number, name in enumerate(names)]


def assert_scored(rows, model) -> None:
    expected = load_scorer(model)([row["image"] for row in rows])
    for number, (row, record) in enumerate(zip(rows, expected, strict=True)):
        assert row["number"] == number
        assert row["error"] == record["error"]
        assert row["score"] == (None if record["score"] is None else pytest.approx(record["score"], abs=1e-4))
    assert [row["error"] is None for row in rows] == [number % 5 != 3 for number in range(10)]


def test_the_scorer_is_a_class_for_map_batches(cluster, model, folder):
    scored = cluster.data.from_items(encoded_album(folder)).map_batches(
        ImageAestheticsScorer,
        fn_constructor_kwargs={"model": model, "device": "cpu"},
        batch_format="pyarrow",
        batch_size=5,
        compute=cluster.data.ActorPoolStrategy(size=1),
    )
    assert_scored(sorted(scored.take_all(), key=lambda row: row["number"]), model)


@pytest.mark.parametrize("form", ["pyarrow", "numpy", "pandas"])
def test_batches_of_every_format_become_blocks_with_nulls(model, folder, form):
    from ray.data.block import BlockAccessor

    block = BlockAccessor.for_block(pa.Table.from_pylist(encoded_album(folder)))
    scored = ImageAestheticsScorer(model)(block.to_batch_format(form))
    table = BlockAccessor.for_block(BlockAccessor.batch_to_block(scored)).to_arrow()
    assert_scored(table.to_pylist(), model)
    assert [str(table.schema.field(name).type) for name in ("score", "normalized")] == ["double", "double"]
    assert "string" in str(table.schema.field("error").type)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["a.png", "--num-gpus", "0.25"], "add --engine ray"),
        (["nowhere://a.png", "--engine", "ray"], "nowhere"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, reason, capsys):
    assert main(["score", *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_without_ray_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    assert main(["score", "a.png", "--engine", "ray"]) == 2
    assert "pip install 'roc4mllm[bulk]'" in capsys.readouterr().err
