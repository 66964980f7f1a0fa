"""Ray Data gives the rows of a run on one machine, also when its processes are killed. One cluster for all tests."""

import io
import os
import signal
import sys
import tarfile
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded
from tiny import photo, scorer_parts

from roc4mllm import load_scorer
from roc4mllm.inference import ImageAestheticsScorer
from roc4mllm.inference.inputs.expansion import expand_inputs
from roc4mllm.inference.inputs.picture_input import PictureInput
from roc4mllm.inference.ray_blocks import block_table
from roc4mllm.inference.ray_scoring import RayScorer, import_ray, in_order
from roc4mllm.inference.tables.score_reading import read_table
from roc4mllm.inference.tables.score_writing import TableFile
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
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


def save_model(folder: Path) -> str:
    for part in scorer_parts("llava", ATTRIBUTES, score_range=(1.0, 10.0)):
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


def test_a_broken_run_goes_on_and_its_rows_are_those_of_one_machine(model, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    inputs = [*SOURCES, *(f"file://{folder}/{name}" for name in STORED)]
    local, parts = str(tmp_path / "local.parquet"), str(tmp_path / "parts/")
    assert score(model, *inputs, "-o", local) == 0
    ray = (*inputs, "-o", parts + "/", "--engine", "ray", "--actors", "1", "1", "--resume")
    monkeypatch.setattr("roc4mllm.inference.tables.score_formats.ParquetPartsWriter.rows_per_part", 8)
    monkeypatch.setattr("roc4mllm.inference.tables.score_formats.ParquetPartsWriter.seconds_per_part", 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(TableFile, "write", full_after(20, TableFile.write))
        assert score(model, *ray) == 2
    (tmp_path / "parts" / "part-00002.parquet").unlink()  # written when the run ended; a kill leaves none
    assert score(save_model(tmp_path / "other"), *ray) == 2
    assert "of another attribute, model" in capsys.readouterr().err
    assert score(model, *ray) == 0
    assert "; 16 had a row already" in capsys.readouterr().err
    expected, rows = read_table(local), read_table(parts)
    failed = sum(row["error"] is not None for row in expected)
    print(f"{len(expected)} rows of one machine, {failed} failed; by Ray 16 and then {len(rows) - 16}")  # noqa: T201
    assert len(expected) == 10 + 1 + 1 + 6 + 6 + 41 + 9 + (10 + 1 + 1 + 1 + 6 + 41 + 1)
    assert failed > 20
    assert_same(rows, expected)
    assert pq.read_schema(f"{parts}/part-00000.parquet").equals(pq.read_schema(local))


def full_after(count, write):
    left = iter(range(count))

    def write_some(table, row):
        if next(left, None) is None:
            raise OSError("the disk is full")
        write(table, row)

    return write_some


def assert_same(rows, expected) -> None:
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            assert row[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), name
        if other["normalized"] is not None:
            assert row["normalized"] == pytest.approx(other["normalized"], abs=1e-5)
    scores = [row["score"] for row in rows if row["score"] is not None]
    assert max(scores) - min(scores) > 1e-3


def test_a_killed_actor_is_replaced_and_every_input_is_there_once(model, tmp_path):
    for number in range(200):
        (tmp_path / f"{number:03}.png").write_bytes(encoded(photo(number % 7), "PNG"))
    scorer = RayScorer(ImageAestheticsScorer(model, device="cpu"), load_scorer(model, device="cpu"), actors=(1, 1))
    paths, killed = [], 0
    for item, record in scorer.score_inputs(expand_inputs([str(tmp_path)]), batch_size=4):
        if not paths:
            killed = kill_actors()
        assert record["error"] is None
        paths.append(item.path)
    different = len(set(paths))
    print(f"{killed} actor(s) killed after the first of 200 records; {len(paths)} came, {different} different")  # noqa: T201
    assert killed >= 1
    assert paths == [str(tmp_path / f"{number:03}.png") for number in range(200)]


def test_blocks_come_back_in_any_order_and_a_lost_one_is_told():
    blocks = [block_table([PictureInput(f"{place + n}") for n in range(2)], place) for place in range(0, 8, 2)]
    done = [block.append_column("record", [['{"error": null}'] * 2]) for block in blocks]
    assert [item.path for item, _ in in_order([done[2], done[0], done[3], done[1]])] == [str(n) for n in range(8)]
    with pytest.raises(RuntimeError, match="picture 3 on"):
        list(in_order([done[0], done[2]]))


def kill_actors() -> int:
    killed = 0
    for process in psutil.Process().children(recursive=True):
        if "BlockScorer" in "".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
    return killed


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
        (["a.png", "--cascade", "x", "--band", "1", "2", "-o", "s.csv", "--engine", "ray"], "runs on one machine"),
        (["--dataset", "user/photos", "--engine", "ray"], "hf://datasets/user/photos/**/*.parquet"),
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
