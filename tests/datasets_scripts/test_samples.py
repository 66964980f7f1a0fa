"""The real samples, with generated pictures: the counts are those that are known of the published files."""

import csv
import json
import random
import re

import pytest

from roc4mllm.datasets_scripts.raw_tables import read_list
from roc4mllm.datasets_scripts.registry import DATA_SETS
from roc4mllm.datasets_scripts.split_guard import PictureSet, as_hashes, name_hash


@pytest.fixture
def samples(shared):
    folder = shared / "annotations"
    if not folder.is_dir():
        pytest.skip("needs the shared annotations: there is no folder 'annotations' in the shared data")
    return folder


@pytest.fixture
def download(samples, write):
    """Puts samples into the raw folder under the names of the published files; returns their texts."""

    def place(files: dict[str, str]) -> dict[str, bytes]:
        contents = {name: (samples / source).read_bytes() for name, source in files.items()}
        write(contents)
        return contents

    return place


def column(content: bytes, name: str) -> list[str]:
    return [row[name] for row in csv.DictReader(content.decode("utf-8-sig").splitlines())]


def guarded(source: str, names: list[str]) -> PictureSet:
    hashes = as_hashes([name_hash(name, source) for name in names])
    return PictureSet(hashes, as_hashes([0] * len(names)), labels=names)


# AVA -----------------------------------------------------------------------------------------------------------------

TANET = {"val.csv": "ava/tanet_val.csv", "test.csv": "ava/tanet_test.csv"}
WORDS = {name: f"ava/AVA_dataset/{name}" for name in ("tags.txt", "challenges.txt")}
STYLES = {
    f"style_image_lists/{name}": f"ava/AVA_dataset/style_image_lists/{name}"
    for name in ("styles.txt", "train.jpgl", "train.lab", "test.jpgl", "test.multilab")
}
TEST = {"generic_test.jpgl": "ava/AVA_dataset/aesthetics_image_lists/generic_test.jpgl"}


def test_ava_of_tanet(samples, download, add_pictures, convert):
    contents = download(TANET | WORDS)
    names = [name for file in TANET for name in column(contents[file], "image_id")]
    add_pictures([f"{name}.jpg" for name in names], alike=True)
    converted = convert("ava", protocol="tanet")
    assert converted.report.rows == {"validation": 12_775, "test": 12_776}
    assert converted.report.problems.lost() == {}
    test = [row for row in converted.rows if row["split"] == "test"]
    votes = [row["num_ratings"] for row in test]
    assert (min(votes), max(votes), round(sum(votes) / len(votes))) == (80, 549, 210)
    scores = [row["score"] for row in test]
    assert (round(min(scores), 3), round(max(scores), 3)) == (1.995, 8.296)
    assert sum(scores) / len(scores) == pytest.approx(5.378, abs=5e-4)
    challenges = sum(any(tag.startswith("challenge: ") for tag in row["tags"]) for row in converted.rows)
    assert challenges == len(converted.rows)  # every challenge has a name
    known = {row["image_id"]: row["score"] for row in converted.rows}
    for other in json.loads((samples / "ava/qalign_test_ava.first200.json").read_text()):
        if (image_id := other["image"].split("/")[1].removesuffix(".jpg")) in known:
            assert known[image_id] == pytest.approx(other["gt_score"], abs=0.0051)


def test_ava_official_and_that_of_tanet_are_different_protocols(download, write, add_pictures, convert):
    contents = download(TANET | TEST | WORDS | STYLES)
    lines = [line.split(",") for file in TANET for line in contents[file].decode().splitlines()[1:]]
    write({"AVA.txt": "".join(f"{9 + i} {' '.join(line)}\n" for i, line in enumerate(lines))})
    add_pictures([f"{line[0]}.jpg" for line in lines], alike=True)
    converted = convert("ava")
    assert converted.report.rows == {"train": 25_551 - 984 - 975, "test": 984 + 975}
    assert len(converted.report.absent["in generic_test.jpgl, but not in AVA.txt"]) == 20_000 - 984 - 975
    official = guarded("ava", [row["image_id"] for row in converted.rows if row["split"] == "test"])
    tanet = guarded("ava", column(contents["test.csv"], "image_id"))
    assert tanet.overlap(official).shared == 975


def test_ava_of_the_first_rows(samples, download, add_pictures, convert):
    names = [line.split()[1] for line in (samples / "ava/AVA_dataset/AVA.first5.txt").read_text().splitlines()]
    download({"AVA.txt": "ava/AVA_dataset/AVA.first5.txt"} | TEST | WORDS)
    add_pictures([f"{name}.jpg" for name in names])
    rows = convert("ava").by_id
    assert set(rows) == set(names)
    assert rows["953619"]["votes"] == [0, 1, 5, 17, 38, 36, 15, 6, 5, 1]
    assert rows["953619"]["tags"][-1] == "challenge: 100 Meters"


def test_styles_of_ava(samples, download):
    from roc4mllm.datasets_scripts.ava import styles_by_image
    from roc4mllm.datasets_scripts.raw_folder import RawFolder

    download(STYLES)
    root = samples / "ava/AVA_dataset/style_image_lists"
    styles = styles_by_image(RawFolder(samples / "ava"))
    train, test = (read_list(root / f"{name}.jpgl") for name in ("train", "test"))
    assert (len(train), len(test), len(styles)) == (11_270, 2_809, 14_079)
    assert sum(not styles[name] for name in test) == 236
    assert max(len(styles[name]) for name in test) == 4


# Tables by split -----------------------------------------------------------------------------------------------------


def test_tad66k_and_its_trap(samples, download, add_pictures, convert):
    files = {
        "labels/merge/test.csv": "tad66k/merge/test.csv",
        "labels/merge/train.csv": "tad66k/merge/train.first200.csv",
    }
    for part in ("train", "test"):
        for path in (samples / "tad66k/unmerge" / part).glob("*.csv"):
            files[f"labels/unmerge/{part}/{path.name}"] = f"tad66k/unmerge/{part}/{path.name}"
    contents = download(files)
    names = {name for content in contents.values() for name in column(content, "image")}
    add_pictures(names, "raw/TAD66K", alike=True)
    converted = convert("tad66k")
    assert converted.report.rows == {"train": 200, "test": 14_079}
    assert converted.report.problems.lost() == {}
    scores = [row["score"] for row in converted.rows if row["split"] == "test"]
    assert (min(scores), max(scores)) == (1.39, 9.28)
    assert sum(scores) / len(scores) == pytest.approx(5.419, abs=5e-4)

    unmerged = convert("tad66k", "unmerged", protocol="unmerge")
    test = [row for row in unmerged.rows if row["split"] == "test"]
    assert (len(test), len({row["theme"] for row in test})) == (13_601, 47)
    training = guarded("tad66k", [row["image_id"] for row in unmerged.rows if row["split"] == "train"])
    merged = [row for row in converted.rows if row["split"] == "test"]
    assert training.overlap(guarded("tad66k", [row["image_id"] for row in merged])).shared == 478
    themes = {theme: sum(row["theme"] == theme for row in merged) for theme in ("tree", "flower")}
    assert themes["tree"] >= 242
    assert themes["flower"] >= 236


def test_icaa17k_and_icaa20k_are_divided_differently(download, add_pictures, convert):
    contents = download({"1train.csv": "icaa17k/1train.first200.csv", "1test.csv": "icaa17k/1test.csv"})
    names = [name for content in contents.values() for name in column(content, "ID")]
    add_pictures(names, alike=True)
    converted = convert("icaa17k")
    assert converted.report.rows == {"train": 200, "test": 1_617}
    assert converted.report.problems.lost() == {}
    sizes = [len(row["tags"]) for row in converted.rows]
    assert set(sizes) == {2}

    later = download({f"{name}.csv": f"icaa17k/icaa20k/{name}.first200.csv" for name in ("train", "test")})
    others = {name: column(content, "ID") for name, content in later.items()}
    add_pictures(set(others["train.csv"] + others["test.csv"]) - set(names), alike=True)
    assert convert("icaa20k", "later").report.rows == {"train": 200, "test": 200}
    test = [row["image_id"] for row in converted.rows if row["split"] == "test"]
    shared = guarded("icaa20k", others["train.csv"]).overlap(guarded("icaa17k", test)).shared
    by_id, by_name = [
        len(set(map(cut, others["train.csv"])) & set(map(cut, test)))
        for cut in (str, lambda name: name.split("/")[-1])
    ]
    assert shared >= by_name > by_id > 0  # a photograph may stand under several colours


def test_the_official_split_of_icaa17k_leaks_by_itself(download, add_pictures, convert):
    contents = download({"1train.csv": "icaa17k/1train.first200.csv", "1test.csv": "icaa17k/1test.csv"})
    train, test = (column(contents[name], "ID") for name in ("1train.csv", "1test.csv"))
    add_pictures([*train, *test], alike=True)
    converted = convert("icaa17k")
    assert "23 photographs are in train and in test, by their file name" in converted.report.notes
    assert not set(train) & set(test)  # under other colours, but with the same scores:
    scores: dict[str, set[float]] = {}
    for row in converted.rows:
        scores.setdefault(row["image_id"].split("/")[-1], set()).add(row["score"])
    assert len(scores) < len(converted.rows)
    assert {len(each) for each in scores.values()} == {1}


def test_baid(download, add_pictures, convert):
    files = {f"dataset/{name}_set.csv": f"baid/{name}_set.first200.csv" for name in ("train", "val", "test")}
    contents = download(files)
    add_pictures([name for content in contents.values() for name in column(content, "image")], alike=True)
    report = convert("baid").report
    assert report.rows == {"train": 200, "validation": 200, "test": 200}
    assert report.problems.lost() == {}


def test_koniq10k(download, add_pictures, convert):
    contents = download({"koniq10k_distributions_sets.csv": "koniq10k/koniq10k_distributions_sets.first200.csv"})
    add_pictures(column(contents["koniq10k_distributions_sets.csv"], "image_name"), "raw/1024x768", alike=True)
    converted = convert("koniq10k")
    assert sum(converted.report.rows.values()) == 200
    assert converted.report.problems.lost() == {}
    assert all(row["votes"] for row in converted.rows)


# PARA, AADB, SPAQ, EVA, FLICKR-AES -----------------------------------------------------------------------------------


def test_para(samples, download, add_pictures, convert):
    contents = download({"annotation/PARA-GiaaTest.csv": "para/PARA-GiaaTest.first200.csv"})
    content = contents["annotation/PARA-GiaaTest.csv"]
    sessions, names = column(content, "sessionId"), column(content, "imageName")
    add_pictures([f"{session}/{name}" for session, name in zip(sessions, names, strict=True)], "raw/imgs", alike=True)
    converted = convert("para")
    assert converted.report.rows == {"test": 200}
    assert converted.report.problems.lost() == {}
    for row, raw in zip(converted.rows, csv.DictReader(content.decode().splitlines()), strict=True):
        given = {entry["name"]: entry for entry in row["attributes"]}
        assert row["score"] == pytest.approx(float(raw["aestheticScore_mean"]), abs=1e-8)
        assert row["std"] == pytest.approx(float(raw["aestheticScore_std"]), abs=1e-8)
        assert given["difficulty"]["score"] == pytest.approx(float(raw["difficultyOfJudgment_mean"]), abs=1e-8)
        assert given["light"]["std"] == pytest.approx(float(raw["lightScore_std"]), abs=1e-8)
        assert 20 <= row["num_ratings"] <= 38
    for other in csv.DictReader((samples / "para/promptdet_test.first200.csv").read_text().splitlines()):
        if found := converted.by_id.get(other["ImageFile"]):
            assert found["score"] / 5 == pytest.approx(float(other["Score"]), abs=1e-8)


def test_the_table_of_ratings_of_para_has_the_columns_that_are_read(samples, write, add_pictures, convert, download):
    header = (samples / "para/PARA-Images.header_reconstructed.csv").read_text().strip().split(",")
    download({"PARA-GiaaTest.csv": "para/PARA-GiaaTest.first200.csv"})
    values = {"sessionId": "session1", "imageName": "iaa_pub1_.jpg", "semantic": "plant", "imgEmotion": "awe"}
    for line, score in enumerate((1.5, 4.0)):
        values |= {"userId": f"A{line}", "aestheticScore": score, "difficultyOfJudgment": -1, "isObjectEmphasis": 0}
        write({f"{line}.part": ",".join(str(values.get(name, 3)) for name in header)})
    text = "\n".join([",".join(header), *(read_list(write({}) / f"{line}.part")[0] for line in (0, 1))])
    write({"PARA-Images.csv": text})
    add_pictures(["session1/iaa_pub1_.jpg"], "raw/imgs")
    rows = convert("para-raters").rows
    assert [(row["rater_id"], row["score"]) for row in rows] == [("A0", 1.5), ("A1", 4.0)]


def test_aadb(samples, download, add_pictures, convert):
    scipy_io = pytest.importorskip("scipy.io")
    download({"AADBinfo.mat": "aadb/AADBinfo.mat"})
    content = scipy_io.loadmat(samples / "aadb/AADBinfo.mat")
    names = [str(name[0]) for split in ("train", "test") for name in content[f"{split}NameList"].ravel()]
    add_pictures(names, alike=True)
    converted = convert("aadb")
    assert converted.report.rows == {"train": 8_458, "test": 1_000}
    assert converted.report.problems.lost() == {}
    scores = {split: [row["score"] for row in converted.rows if row["split"] == split] for split in ("train", "test")}
    assert {split: (min(each), max(each)) for split, each in scores.items()} == {
        "train": (0.0, 1.0),
        "test": (0.05, 1.0),
    }
    for split in ("train", "test"):
        lines = read_list(samples / f"aadb/from_AADBinfo_mat_{split}.first200.tsv")
        for line in lines:
            image, score = line.split("\t")
            assert converted.by_id[image]["score"] == float(re.search(r"[\d.]+(?=\)$)", score)[0])


def test_the_genuine_line_of_aadb(samples, download, write, add_pictures, convert):
    name = "imgListTrainRegression_ColorHarmony.txt"
    contents = download({f"imgListFiles_label/{name}": "aadb/imgListTrainRegression_ColorHarmony.oneline.txt"})
    image = contents[f"imgListFiles_label/{name}"].decode().split()[0]
    write({"imgListFiles_label/imgListTrainRegression_score.txt": f"{image} 0.300\n"})
    add_pictures([image])
    (row,) = convert("aadb").rows
    assert [(entry["name"], entry["score"]) for entry in row["attributes"]] == [("color_harmony", -0.4)]


def test_spaq(samples, download, add_pictures, convert):
    contents = download({"spaqTrain.csv": "spaq/spaqTrain.first200.csv", "spaqTest.csv": "spaq/spaqTest.csv"})
    add_pictures([name for content in contents.values() for name in column(content, "image_id")], alike=True)
    converted = convert("spaq", protocol="woshidandan")
    assert converted.report.rows == {"train": 200, "test": 1_125}
    assert converted.report.problems.lost() == {}
    compared = 0
    for other in json.loads((samples / "spaq/qalign_test_spaq.first100.json").read_text()):
        if found := converted.by_id.get(other["image"].split("/")[1]):
            assert found["score"] == pytest.approx(other["gt_score"], abs=0.051)
            compared += 1
    assert compared > 5


def test_eva_and_flickr_aes_by_their_genuine_headers(samples, download, write, add_pictures, convert):
    contents = download({"data/image_content_category.csv": "eva/image_content_category.first200.csv"})
    header = (samples / "eva/votes_filtered.header_only.csv").read_text().strip()
    names, draw = column(contents["data/image_content_category.csv"], "image_id"), random.Random(0)
    assert len(names) == 200
    lines = [f"{name}=E{rater}={draw.randint(0, 10)}=1=2=3=4=1=9=0=0=0=0" for name in names for rater in range(30)]
    write({"data/votes_filtered.csv": "\n".join([header, *lines])})
    add_pictures([f"{name}.jpg" for name in names], alike=True)
    converted = convert("eva")
    assert converted.report.rows == {"train": 200}
    assert all(row["num_ratings"] == 30 and row["theme"] for row in converted.rows)

    path = "flickr_aes/FLICKR-AES_image_labeled_by_each_worker.header_only.csv"
    header = (samples / path).read_text().rstrip("\r\n")
    write({"FLICKR-AES_image_labeled_by_each_worker.csv": f"{header}\nA1, {names[0]}.jpg, 4\n"})
    assert convert("flickr-aes-workers", "workers").rows[0]["score"] == 4


def test_oasis_beauty(shared, tmp_path):
    from roc4mllm.datasets_scripts.convert import convert_data

    folder = shared / "data" / "oasis_beauty"
    if not folder.is_dir():
        pytest.skip("needs the shared data: there is no folder 'data/oasis_beauty'")
    report = convert_data(DATA_SETS["oasis-beauty"], folder, tmp_path / "out")
    assert report.rows == {"train": 416}
    assert report.problems.lost() == {}
