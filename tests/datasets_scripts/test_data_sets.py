"""Every data set from a raw folder of invented rows in its own form to rows of the schema."""

import json

import numpy as np
import pytest

from roc4mllm.datasets_scripts.card import data_card
from roc4mllm.datasets_scripts.convert import Report
from roc4mllm.datasets_scripts.para import EMOTIONS, FURTHER, LEVELS
from roc4mllm.datasets_scripts.registry import DATA_SETS
from roc4mllm.hub.data_terms import card_head, data_terms

AVA_LISTS = "AVA_dataset/aesthetics_image_lists"
AVA_FILES = {
    "AVA_dataset/AVA.txt": "1 101 0 0 0 1 2 1 0 0 0 0 22 1 1396\n"
    "2 102 9 0 0 0 0 0 0 0 0 1 0 0 5\n"
    "3 103 0 0 0 0 0 5 5 0 0 0 1 0 5\n"
    "4 104 0 0 0 0 0 5 5 0 0 0 1\n",
    "AVA_dataset/tags.txt": "22 Black and White\n1 Abstract\n",
    "AVA_dataset/challenges.txt": "1396 100_Meters\n",
    f"{AVA_LISTS}/generic_test.jpgl": "102\n999\n",
    f"{AVA_LISTS}/animal_train.jpgl": "101\n",
    f"{AVA_LISTS}/animal_test.jpgl": "103\n",
    "AVA_dataset/style_image_lists/styles.txt": "1 Complementary_Colors\n2 HDR\n",
    "AVA_dataset/style_image_lists/train.jpgl": "103\n",
    "AVA_dataset/style_image_lists/train.lab": "2\n",
    "AVA_dataset/style_image_lists/test.jpgl": "101\n102\n",
    "AVA_dataset/style_image_lists/test.multilab": "1 1\n0 0\n",
}


def attributes(row):
    return {entry["name"]: (entry["score"], entry["score_range"]) for entry in row["attributes"]}


# AVA -----------------------------------------------------------------------------------------------------------------


def test_ava_official(write, add_pictures, convert):
    write(AVA_FILES)
    add_pictures(["101.jpg", "102.jpg", "103.jpg"])
    converted = convert("ava")
    rows = converted.by_id
    assert {name: row["split"] for name, row in rows.items()} == {"101": "train", "102": "test", "103": "train"}
    assert {row["split_protocol"] for row in rows.values()} == {"ava-official"}
    assert rows["101"]["votes"] == [0, 0, 0, 1, 2, 1, 0, 0, 0, 0]
    assert (rows["101"]["score"], rows["101"]["score_range"], rows["101"]["num_ratings"]) == (5, [1, 10], 4)
    assert rows["102"]["score"] == 1.9  # a slice that drops the tens gives 1
    assert (rows["101"]["theme"], rows["102"]["theme"]) == ("Black and White", None)
    assert rows["101"]["tags"] == [
        "Black and White",
        "Abstract",
        "style: Complementary Colors",
        "style: HDR",
        "challenge: 100 Meters",
    ]
    assert (rows["102"]["tags"], rows["103"]["tags"]) == ([], ["Abstract", "style: HDR"])
    assert converted.report.problems.bad_rows == [
        {
            "where": "AVA.txt, line 4",
            "reason": "13 words, expected 15: index, image_id, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, tag1, tag2, challenge",
        }
    ]
    assert converted.report.absent == {"in generic_test.jpgl, but not in AVA.txt": ["999"]}


def test_ava_by_category_leaves_the_others_out(write, add_pictures, convert):
    write(AVA_FILES)
    add_pictures(["101.jpg", "102.jpg", "103.jpg"])
    converted = convert("ava", protocol="ava-animal")
    assert {row["image_id"]: row["split"] for row in converted.rows} == {"101": "train", "103": "test"}
    assert converted.report.protocol == "ava-animal"


def test_ava_of_tanet_shifts_the_names_of_votes_back(write, add_pictures, convert):
    header = "image_id," + ",".join(f"score{level}" for level in range(2, 12)) + ",tag1,tag2,tag3\n"
    write(
        {"val.csv": header + "5,9,0,0,0,0,0,0,0,0,1,22,0,1396\n", "test.csv": header + "6,0,1,0,0,0,0,0,0,0,0,0,0,1\n"}
    )
    write({"tags.txt": AVA_FILES["AVA_dataset/tags.txt"], "challenges.txt": "1396 100_Meters\n"})
    add_pictures(["5.jpg", "6.jpg"])
    converted = convert("ava", protocol="tanet")
    five, six = converted.by_id["5"], converted.by_id["6"]
    assert (five["split"], five["split_protocol"], five["score"]) == ("validation", "ava-tanet", 1.9)
    assert (six["split"], six["score"]) == ("test", 2)
    assert five["tags"] == ["Black and White", "challenge: 100 Meters"]
    assert "train.csv is not there, so there are no rows of train" in converted.report.notes


def test_ava_captions_with_the_votes_of_ava(write, add_pictures, convert):
    def entry(imgid, split, *texts):
        return {"imgid": imgid, "split": split, "sentences": [{"raw": text, "tokens": []} for text in texts]}

    images = [entry(101, "val", "Good  light.", "nice"), entry(105, "train", "dull"), {"iid": 7, "reviews": []}]
    write({"CLEAN_AVA_FULL_AFTER_SUBJECTIVE_CLEANING.json": json.dumps({"dataset": "AVA", "images": images})})
    write(AVA_FILES)
    add_pictures(["101.jpg", "105.jpg"])
    converted = convert("ava-captions")
    rows = converted.by_id
    assert rows["101"]["comments"] == ["Good light.", "nice"]
    assert (rows["101"]["score"], rows["101"]["split"]) == (5, "validation")
    assert (rows["105"]["score"], rows["105"]["votes"]) == (None, None)
    assert converted.report.problems.bad_rows[0]["where"].endswith(".json, entry 3")
    assert "keys ['iid', 'reviews']" in converted.report.problems.bad_rows[0]["reason"]


def test_ava_comments(write, add_pictures, convert):
    write(AVA_FILES | {"AVA_Comments_Full.txt": "x# 102 #Great#Dull \n\nx#abc#no image\nx#103##\n"})
    add_pictures(["102.jpg", "103.jpg"])
    converted = convert("ava-comments")
    assert converted.by_id["102"]["comments"] == ["Great", "Dull"]
    assert converted.by_id["102"]["split"] == "test"
    assert (converted.by_id["103"]["comments"], converted.by_id["103"]["score"]) == ([], 6.5)
    assert converted.report.problems.bad_rows == [
        {"where": "AVA_Comments_Full.txt, line 3", "reason": "the image id is 'abc', which is no number"}
    ]


# Tables by split -----------------------------------------------------------------------------------------------------

TAD66K_FILES = {
    "labels/merge/train.csv": "image,score\r\n-4u-1.jpg,2.85\r\na@N08.jpg,9.13\r\n",
    "labels/merge/test.csv": "image,score\r\noak.jpg,5.5\r\n",
    "labels/unmerge/train/tree.csv": "image,score\r\noak.jpg,5.5\r\n-4u-1.jpg,2.85\r\n",
    "labels/unmerge/test/flower.csv": "image,score\r\na@N08.jpg,9.13\r\n",
}


def test_tad66k_takes_the_split_of_merge_and_the_theme_of_unmerge(write, add_pictures, convert):
    write(TAD66K_FILES)
    add_pictures(["-4u-1.jpg", "a@N08.jpg", "oak.jpg"])
    rows = convert("tad66k").by_id
    assert {name: (row["split"], row["theme"]) for name, row in rows.items()} == {
        "-4u-1.jpg": ("train", "tree"),
        "a@N08.jpg": ("train", "flower"),
        "oak.jpg": ("test", "tree"),  # which is in the training half of unmerge
    }
    assert (rows["a@N08.jpg"]["score"], rows["a@N08.jpg"]["score_range"]) == (9.13, [1, 10])
    unmerged = convert("tad66k", "unmerged", protocol="unmerge").by_id
    assert {name: row["split"] for name, row in unmerged.items()} == {
        "oak.jpg": "train",
        "-4u-1.jpg": "train",
        "a@N08.jpg": "test",
    }


def test_icaa17k_is_about_colour(write, add_pictures, convert):
    one, two = "complementary/orange_blue/a1.jpg", "monochromatic/red/b2.jpg"
    write({"1train.csv": f"ID,color,MOS,probability\n{one},5.6,0.83,0.69\n", "1all.csv": "ID\n"})
    write({"1test.csv": f"ID,color,MOS,probability\n{two},9.12,8.95,0.91\n"})
    add_pictures([one, two])
    rows = convert("icaa17k").by_id
    assert (rows[one]["score"], rows[one]["score_range"], rows[one]["theme"]) == (5.6, [0, 10], "orange_blue")
    assert rows[one]["tags"] == ["complementary", "orange_blue"]
    assert attributes(rows[two]) == {"mos": (8.95, [0, 10]), "probability": (0.91, [0, 1])}
    assert (rows[one]["split"], rows[two]["split"]) == ("train", "test")


def test_icaa20k(write, add_pictures, convert):
    header = "ID,holistic_color,temperature,colorfulness,color_harmony\n"
    write({"train.csv": f"{header}monochromatic/red/b2.jpg,5.43,7.63,4.27,6.92\n", "test.csv": header})
    add_pictures(["monochromatic/red/b2.jpg"])
    (row,) = convert("icaa20k").rows
    assert row["score"] == 5.43
    assert attributes(row) == {
        "temperature": (7.63, [0, 10]),
        "colorfulness": (4.27, [0, 10]),
        "color_harmony": (6.92, [0, 10]),
    }


def test_baid(write, add_pictures, convert):
    write(
        {
            f"dataset/{name}_set.csv": f"image,score\n{i}.jpg,{3 + i}\n"
            for i, name in enumerate(("train", "val", "test"))
        }
    )
    add_pictures(["0.jpg", "1.jpg", "2.jpg"])
    rows = convert("baid").by_id
    assert {name: (row["split"], row["score"], row["score_range"]) for name, row in rows.items()} == {
        "0.jpg": ("train", 3, [0, 10]),
        "1.jpg": ("validation", 4, [0, 10]),
        "2.jpg": ("test", 5, [0, 10]),
    }


# PARA ----------------------------------------------------------------------------------------------------------------


def para_row(name: str, votes: list[int]) -> dict[str, object]:
    mean = sum((2 + level) / 2 * count for level, count in enumerate(votes)) / sum(votes)
    cells = {"imageName": name, "sessionId": "session7", "semantic": "plant"}
    cells |= {f"aestheticScore_{level}": count for level, count in zip(LEVELS, votes, strict=True)}
    cells |= {"aestheticScore_mean": mean, "qualityScore_mean": 3.25, "qualityScore_std": 0.5}
    for column in FURTHER.values():
        cells |= {f"{column}_{level}": int(level == 4) for level in range(1, 6)}
    cells |= {f"imgEmotion_{name}": 0 for name in EMOTIONS} | {"imgEmotion_awe": 1, "imgEmotion_neutral": 3}
    cells |= {"difficultyOfJudgment_-1": 4, "difficultyOfJudgment_0": 0, "difficultyOfJudgment_1": 0}
    return cells | {"isObjectEmphasis_0": 3, "isObjectEmphasis_1": 1}


def table(rows: list[dict[str, object]], end: str = "\n") -> str:
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    return end.join([*lines, ""])


def test_para_by_pictures(write, add_pictures, convert):
    train = para_row("iaa_pub1_.jpg", [0, 0, 0, 0, 2, 2, 0, 0, 0])
    train = dict(reversed(train.items())) | {"personality-E": 6.5}  # columns are read by name
    test = para_row("iaa_pub2_.jpg", [0, 0, 0, 0, 0, 0, 0, 0, 4])
    write({"annotation/PARA-GiaaTrain.csv": table([train]), "annotation/PARA-GiaaTest.csv": table([test], "\r\n")})
    add_pictures(["session7/iaa_pub1_.jpg", "session7/iaa_pub2_.jpg"], "raw/imgs")
    converted = convert("para")
    one, two = converted.by_id["iaa_pub1_.jpg"], converted.by_id["iaa_pub2_.jpg"]
    assert (one["split"], one["score"], one["std"], one["theme"]) == ("train", 3.25, 0.25, "plant")
    assert (two["split"], two["score"], two["score_range"], two["num_ratings"]) == ("test", 5, [1, 5], 4)
    found = attributes(one)
    assert found["quality"] == (3.25, [1, 5])
    assert found["depth_of_field"] == (4, [1, 5])
    assert found["difficulty"] == (-1, [-1, 1])
    assert found["object_emphasis"] == (0.25, [0, 1])
    assert (found["emotion_awe"], found["emotion_fear"]) == ((0.25, [0, 1]), (0, [0, 1]))
    assert converted.report.problems.minus_one == {
        "difficulty": {"count": 2, "first": ["iaa_pub1_.jpg", "iaa_pub2_.jpg"]}
    }


def test_para_by_ratings_keeps_each_picture_once(write, add_pictures, convert):
    header = (
        "sessionId,imageName,userId,aestheticScore,qualityScore,compositionScore,colorScore,dofScore,contentScore,"
    )
    header += (
        "lightScore,isObjectEmphasis,imgEmotion,difficultyOfJudgment,contentPreference,willingnessToShare,semantic\n"
    )
    lines = [f"session7,iaa_pub{i % 3}_.jpg,u{i // 3},{1 + i / 8},3,3,3,3,3,3,1,awe,-1,3,3,plant\n" for i in range(30)]
    test = table([para_row("iaa_pub2_.jpg", [0] * 8 + [4])])
    write({"PARA-Images.csv": header + "".join(lines), "PARA-GiaaTest.csv": test})
    add_pictures([f"session7/iaa_pub{i}_.jpg" for i in range(3)], "raw/imgs")
    converted = convert("para-raters")
    assert converted.report.rows == {"train": 20, "test": 10}
    rows = [row for row in converted.rows if row["split"] == "train"]
    assert [row["image_id"] for row in rows] in (
        [f"iaa_pub{i}_.jpg"] * 10 + [f"iaa_pub{1 - i}_.jpg"] * 10 for i in (0, 1)
    )
    assert [row["rater_id"] for row in rows[:10]] == [f"u{i}" for i in range(10)]
    assert (rows[0]["num_ratings"], rows[0]["score_range"], rows[0]["tags"]) == (1, [1, 5], ["plant", "emotion: awe"])
    assert attributes(rows[0])["difficulty"] == (-1, [-1, 1])
    assert converted.report.problems.minus_one["difficulty"]["count"] == 30
    picture = len(rows[0]["image"]["bytes"])
    assert converted.report.bytes["train"] < 20 * picture  # twenty rows of two pictures


# Others --------------------------------------------------------------------------------------------------------------


def test_aadb_lists(write, add_pictures, convert):
    names = {"TrainRegression": "a.jpg", "ValidationRegression": "b.jpg", "TestNewRegression": "c.jpg"}
    files = {}
    for name, image in names.items():
        files[f"imgListFiles_label/imgList{name}_score.txt"] = f"{image} 0.188\n"
        files[f"imgListFiles_label/imgList{name}_ColorHarmony.txt"] = f"{image}  -0.400\n"
        files[f"imgListFiles_label/imgList{name}_BalacingElements.txt"] = f"{image} -1.000\n"
    write(files | {"imgListFiles_label/imgListTestRegression_score.txt": "bad.jpg 0.5\n"})
    add_pictures(["a.jpg", "b.jpg"], "raw/datasetImages_warp256")
    add_pictures(["a.jpg", "b.jpg", "c.jpg"], "raw/datasetImages_originalSize")
    converted = convert("aadb")
    assert {row["image_id"]: row["split"] for row in converted.rows} == {
        "a.jpg": "train",
        "b.jpg": "validation",
        "c.jpg": "test",
    }
    found = attributes(converted.by_id["a.jpg"])
    assert found == {"balancing_elements": (-1, [-1, 1]), "color_harmony": (-0.4, [-1, 1])}
    assert converted.by_id["a.jpg"]["score_range"] == [0, 1]
    assert converted.report.problems.minus_one["balancing_elements"]["count"] == 3
    assert sum("is not known there" in note for note in converted.report.notes) == 27


def test_aadb_of_matlab(write, add_pictures, convert):
    scipy_io = pytest.importorskip("scipy.io")
    folder = write({"x.txt": ""})
    content = {f"{split}NameList": np.array([[f"{split}.jpg"]], object) for split in ("train", "test")}
    scipy_io.savemat(folder / "AADBinfo.mat", content | {"trainScore": [[0.3]], "testScore": [[0.65]]})
    add_pictures(["train.jpg", "test.jpg"])
    rows = convert("aadb").by_id
    assert {name: (row["score"], row["attributes"]) for name, row in rows.items()} == {
        "train.jpg": (0.3, []),
        "test.jpg": (0.65, []),
    }
    table = folder / "AADBinfo.mat"
    table.write_bytes(table.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"AADBinfo.mat is damaged, or not that of AADB"):
        convert("aadb", "damaged")


def test_flickr_aes(write, add_pictures, convert):
    write({"FLICKR-AES_image_score.txt": "farm1.jpg 0.5125\nfarm2.jpg 0.25 x\nfarm3.jpg 1\n"})
    write(
        {
            "FLICKR-AES_image_labeled_by_each_worker.csv": "worker, imagePair, score\n"
            "A1, farm1.jpg, 5\nA2, farm1.jpg,-1\n"
        }
    )
    add_pictures(["farm1.jpg", "farm9.jpg"], "raw/40K")
    converted = convert("flickr-aes")
    (row,) = converted.rows
    assert (row["image_id"], row["score"], row["score_range"]) == ("farm1.jpg", 0.5125, [0, 1])
    assert converted.report.problems.missing[0]["where"] == "FLICKR-AES_image_score.txt, line 3"
    assert converted.report.problems.bad_rows[0]["reason"] == "3 words, expected 2: image, score"
    workers = convert("flickr-aes-workers", "workers")
    assert [(row["rater_id"], row["score"], row["score_range"]) for row in workers.rows] == [("A1", 5, [1, 5])]
    reason = "score is -1.0; expected a number from 1 to 5"
    assert workers.report.problems.bad_rows[0]["reason"] == reason  # where -1 is no value


def test_eva_counts_votes(write, add_pictures, convert):
    header = "image_id=user_id=score=difficulty=visual=composition=quality=semantic=vote_time=1=2=3=4\n"
    votes = "71=E1=0=1=1=2=3=4=9=0=0=0=0\n71.0=E2=10.0=1=4.0=2=3==9=1=0=0=0\n"
    votes += "106=E1=5=1=2=2=2=2=9=0=0=0=0\n106=E2=11=1=2=2=2=2=9=0=0=0=0\n"
    write({"data/votes_filtered.csv": header + votes})
    write({"data/image_content_category.csv": '\ufeff"image_id","sort"\n"71","5"\n"106","2"\n'})
    add_pictures(["71.jpg", "106.jpg"], "raw/EVA_together")
    converted = convert("eva")
    row = converted.by_id["71"]
    assert row["votes"] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert (row["score"], row["score_range"], row["theme"]) == (5, [0, 10], "still life")
    assert attributes(row)["light_and_color"] == (2.5, [1, 4])
    assert row["attributes"][3]["votes"] == [0, 0, 0, 1]
    assert (converted.by_id["106"]["num_ratings"], converted.by_id["106"]["theme"]) == (
        1,
        "architectures and city scenes",
    )
    assert converted.report.problems.bad_rows == [
        {"where": "votes_filtered.csv, line 5", "reason": "score is 11; expected 0 to 10"}
    ]


SPAQ_HEADER = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]


def test_spaq_of_spreadsheets(write, add_pictures, convert, spreadsheet):
    scores = [
        SPAQ_HEADER,
        ["00001.jpg", 48.9, 47.0, 55.6, 55.7, 37.9, 42.6],
        ["00002.jpg", 6.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    ]
    scenes = [["Image name", "Human", "Night scene"], ["00001.jpg", 1.0, 0.0], ["00002.jpg", 1.0, 2.0]]
    write({"Annotations/MOS and Image attribute scores.xlsx": spreadsheet(scores)})
    write({"Annotations/Scene category labels.xlsx": spreadsheet(scenes)})
    add_pictures(["00001.jpg", "00002.jpg"], "raw/TestImage")
    rows = convert("spaq").by_id
    assert (rows["00001.jpg"]["score"], rows["00001.jpg"]["score_range"]) == (48.9, [0, 100])
    assert rows["00002.jpg"]["score"] == 6
    assert attributes(rows["00001.jpg"])["sharpness"] == (42.6, [0, 100])
    assert (rows["00001.jpg"]["theme"], rows["00002.jpg"]["theme"]) == ("Human", None)
    assert rows["00002.jpg"]["tags"] == ["Human", "Night scene"]


def test_spaq_of_tables_is_brought_back_from_a_tenth(write, add_pictures, convert):
    header = ",".join(["image_id", *SPAQ_HEADER[1:]])
    write({"spaqTrain.csv": f"{header}\n00001.jpg,4.89,4.7,5.56,5.57,3.79,4.26\n"})
    write({"spaqTest.csv": f"{header}\n10001.jpg,61,42,61,60,72,66\n"})
    add_pictures(["00001.jpg", "10001.jpg"])
    rows = convert("spaq", protocol="woshidandan").by_id
    assert rows["00001.jpg"]["score"] == pytest.approx(48.9)
    assert (rows["10001.jpg"]["score"], rows["10001.jpg"]["split"]) == (61, "test")


def test_koniq10k(write, add_pictures, convert):
    lines = ["image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set", "1.jpg,0.0,0.25,0.25,0.5,0.0,4,60.0,0.5,training"]
    lines += ["2.jpg,0.0,0.0,0.0,0.0,1.0,3,80.0,0.0,validation", "3.jpg,0.1,0.2,0.0,0.0,0.0,3,80.0,0.0,test"]
    lines += ["4.jpg,inf,0.2,0.0,0.0,0.0,3,80.0,0.0,test"]
    write({"koniq10k_distributions_sets.csv": "\n".join(lines)})
    add_pictures(["1.jpg", "2.jpg", "3.jpg"], "raw/512x384")
    converted = convert("koniq10k")
    one, two = converted.by_id["1.jpg"], converted.by_id["2.jpg"]
    assert (one["score"], one["score_range"], one["std"], one["votes"]) == (60, [0, 100], 12.5, [0, 1, 1, 2, 0])
    assert (two["split"], two["votes"], two["distribution"]) == ("validation", None, [0, 0, 0, 0, 1])
    sum_is_off, no_share = converted.report.problems.bad_rows
    assert "do not sum to 3" in sum_is_off["reason"]
    assert "expected shares from 0 to 1" in no_share["reason"]


def test_oasis_beauty(write, add_pictures, convert):
    write(
        {
            "ratings.csv": "image,mean,std,n,r1,r2,r3,r4,r5,r6,r7,theme,category\n"
            "Bar 1.jpg,2,1,2,1,0,1,0,0,0,0,Bar,Scene\n"
        }
    )
    add_pictures(["Bar 1.jpg"])
    (row,) = convert("oasis-beauty").rows
    assert (row["score"], row["std"], row["score_range"], row["theme"]) == (2, 1, [1, 7], "Bar")
    assert row["tags"] == ["Bar", "Scene"]


# All -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_set", DATA_SETS.values(), ids=lambda data_set: data_set.name)
def test_every_data_set_says_what_a_card_needs(data_set):
    texts = (data_set.title, data_set.score, data_set.homepage, data_set.terms, data_set.citation)
    assert all(texts)
    assert data_set.homepage.startswith("https://")
    assert data_set.protocols
    assert data_set.protocol(None) == data_set.protocol(data_set.protocol_name(next(iter(data_set.protocols))))
    with pytest.raises(ValueError, match=f"{data_set.title} has no protocol 'none'; it has"):
        data_set.protocol("none")


@pytest.mark.parametrize("data_set", DATA_SETS.values(), ids=lambda data_set: data_set.name)
def test_a_card_says_whether_the_data_may_be_passed_on(data_set):
    counts = {"train": 1}
    report = Report(data_set.name, data_set.protocol_name(next(iter(data_set.protocols))), "0", {"max_side": None})
    for name in ("rows", "pictures", "bytes", "loaded_bytes", "id_set_hash"):
        setattr(report, name, counts)
    card = data_card(data_set, report)
    terms = data_terms(card)  # what `roc4mllm publish` goes by
    assert terms.may_be_shared is data_set.may_be_shared is False  # of none are the pictures free
    assert terms.text.startswith(data_set.terms)
    head = card_head(card)
    assert head["license"] != "other" or (head["license_name"], head["license_link"]) == (
        f"{data_set.name}-terms", data_set.homepage
    )  # fmt: skip
