"""Folders to the Hub: what goes, what must not, what the card says, and how it travels, against a small Hub."""

import copy
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from family_weights import original
from hub_server import HubServer, client
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from safetensors.numpy import save_file
from tiny import scorer_parts

from roc4mllm import add_lora, load_scorer
from roc4mllm.hub.conversion_card import FAMILIES
from roc4mllm.hub.data_terms import data_terms
from roc4mllm.hub.model_card import PAPERS
from roc4mllm.hub.publish import plan_dataset, plan_model, upload
from roc4mllm.trainer.evaluation_results import Evaluation, PredictedPicture, measure_attribute
from roc4mllm.trainer.image_scorers import new_image_processor

# huggingface_hub 2.4 sends large files by an argument that httpx has renamed (`_upload_single_part` in its lfs.py).
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_the-secret-of-ann"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A scorer as `save_pretrained` writes it."""
    model, processor = scorer_parts("llava", ("aesthetics", "light"))
    folder = tmp_path_factory.mktemp("saved") / "scorer"
    load_scorer(model, processor=processor).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of it to be changed."""
    return Path(shutil.copytree(saved, tmp_path / "scorer"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub, and this process as its client, which does not wait between its tries."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with HubServer({TOKEN: "ann", "hf_of-bob": "bob"}) as hub, client(hub, TOKEN, tmp_path / "home"):
        yield hub
        assert hub.problems == []


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> Path:
    """`metrics.json` as `roc4mllm evaluate -o` writes it."""
    noise = np.random.default_rng(0).normal(size=40) / 2
    pictures = [
        PredictedPicture(f"{i}.jpg", f"line {i}", {"light": 1 + i / 10}, {"light": 1 + i / 10 + noise[i]})
        for i in range(40)
    ]
    result = measure_attribute(pictures, "light", (1.0, 5.0), 3.0, bootstraps=50)
    found = Evaluation(
        "m",
        None,
        "0",
        True,
        "/data/ann/AVA, split test",
        "2026-05-04T00:00:00",
        protocols=["ava-official/test"],
        overlap=None,
        notes=["cropped"],
        by=None,
        bootstraps=50,
        seed=0,
        results={},
        pictures=pictures,
    )
    found.results["light"] = result
    path = tmp_path_factory.mktemp("evaluation") / "metrics.json"
    path.write_text(json.dumps(found.to_dict()))
    return path


# What goes -----------------------------------------------------------------------------------------------------------


def test_everything_that_save_pretrained_writes_goes_and_nothing_else(folder):
    written = {path.name for path in folder.iterdir()}
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "optimizer.pt").touch()
    for name in ("held_out.csv", "training.yaml", "trainer_state.json", "taste.safetensors", ".env", "LICENSE"):
        (folder / name).touch()
    plan = plan_model(folder, "ann/scorer")
    assert set(plan.files) == written | {"README.md", "LICENSE"}
    left_out = [".env", "checkpoint-5/", "held_out.csv", "taste.safetensors", "trainer_state.json", "training.yaml"]
    assert sorted(plan.left_out) == left_out


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "optimizer.pt", "training_args.pickle", "setup.py", "install.SH", "adapter/x.pkl"]
)
def test_what_runs_code_is_refused_by_name(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(ValueError, match=f"holds {name}, which can run code"):
        plan_model(folder, "ann/scorer")


@pytest.mark.parametrize("change", ["altered", "none"])
def test_code_must_be_that_of_the_package(folder, change):
    with (folder / "slots_roc4mllm.py").open("a") as file:
        file.write("\nimport os\n")
    for path in folder.glob("*.py") if change == "none" else ():
        path.unlink()
    with pytest.raises(ValueError, match="slots_roc4mllm.py of other" if change == "altered" else "holds no code"):
        plan_model(folder, "ann/scorer")


def test_cut_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="model.safetensors cannot be read and may be cut short"):
        plan_model(folder, "ann/scorer")


def test_path_of_this_machine_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"backbone_name_or_path": str(folder)}))
    with pytest.raises(ValueError, match="config.json names a path of this machine as backbone_name_or_path"):
        plan_model(folder, "ann/scorer")


@pytest.mark.parametrize(
    "entries, reason",
    [({"model_type": "clip"}, "no scorer of roc4mllm"), ({"score_head_trained": False}, "never trained")],
)
def test_what_does_not_score_is_refused(folder, entries, reason):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))
    with pytest.raises(ValueError, match=reason):
        plan_model(folder, "ann/scorer")


@pytest.mark.parametrize("name", ["scorer", "ann/sco rer", "ann/scorer/x", ""])
def test_name_must_be_whole(folder, name):
    with pytest.raises(ValueError, match="expected one as in user/name"):
        plan_model(folder, name)


# The card ------------------------------------------------------------------------------------------------------------


def test_card_tells_ranges_data_figures_and_licences(folder, evaluation):
    data = [{"name": "ava", "title": "AVA", "terms": "No licence is granted", "citation": "Murray et al. 2012"}]
    told = {"digest": "c0ffee", "protocols": '["ava-official/train"]', "data": json.dumps(data)}
    save_file({"names": np.arange(7, dtype=np.uint64)}, folder / "trained_on.safetensors", metadata=told)
    plan = plan_model(folder, "ann/scorer", evaluation=str(evaluation), licence="apache-2.0")
    assert "trained_on.safetensors" in plan.files
    card = ModelCard(plan.files["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    srcc = next(found for found in card.data.eval_results if found.metric_type == "spearmanr")
    result = json.loads(evaluation.read_text())["attributes"]["light"]["metrics"]["srcc"]
    assert srcc.metric_value == pytest.approx(result["value"], abs=1e-6)
    assert srcc.metric_args["interval_95"] == pytest.approx([result["low"], result["high"]], abs=1e-6)
    assert (srcc.dataset_name, srcc.dataset_split, srcc.metric_args["pictures"]) == ("AVA", "test", 40)
    row = f"| SRCC | {result['value']:.3f} ({result['low']:.3f} to {result['high']:.3f}) |"
    for text in (
        "| aesthetics | 1 | 5 |",
        'roc4mllm.load_scorer("ann/scorer")',
        'model="ann/scorer", trust_remote_code=True',
        "7 pictures of `ava-official/train`",
        "`c0ffee`",
        row,
        "cropped",
        "- weights: apache-2.0",
        "- base model: a llava model",
        "- data: AVA: No licence is granted",
        "- Murray et al. 2012",
        "Regression Over Classification",
    ):
        assert text in card.text
    assert "/data" not in card.content


@pytest.mark.parametrize("family", ["tanet", "eat", "elta"])
def test_what_scores_a_picture_alone_is_published_with_a_card_of_its_family(tmp_path, family):
    model, _ = original(family, "AVA")
    if family == "tanet":
        model = copy.deepcopy(model)
        model.config.theme_calibrated = False
    image_processor = new_image_processor(model.config)
    load_scorer(model, image_processor=image_processor).save_pretrained(tmp_path / "scorer")
    plan = plan_model(tmp_path / "scorer", "ann/scorer")
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"} <= set(plan.files)
    assert {f"modeling_{family}.py", f"configuration_{family}.py", "pipeline_image_aesthetics.py"} <= set(plan.files)
    card = ModelCard(plan.files["README.md"].decode())
    assert FAMILIES[family].kind in card.text
    assert PAPERS[family] in card.text
    assert "| aesthetics | 1 | 10 |" in card.text
    assert "- base model: none is recorded; of the published weights it is: " in card.text
    assert ("Uncalibrated theme branch" in card.text) == (family == "tanet")


def test_card_of_a_person_is_kept_unless_asked(folder, evaluation):
    (folder / "README.md").write_text("mine")
    assert plan_model(folder, "ann/scorer").files["README.md"] == folder / "README.md"
    with pytest.raises(ValueError, match="nobody would see the evaluation"):
        plan_model(folder, "ann/scorer", evaluation=str(evaluation))
    assert b"SRCC" in plan_model(folder, "ann/scorer", evaluation=str(evaluation), new_card=True).files["README.md"]


@pytest.mark.parametrize(
    "content, reason",
    [
        ("{}", "is no evaluation"),
        ("nonsense", "is no evaluation"),
        ('{"data": "x", "attributes": {"depth": {"n": 1, "metrics": {}}}}', "evaluates depth, the model scores"),
    ],
)
def test_evaluation_of_something_else_is_refused(folder, tmp_path, content, reason):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match=reason):
        plan_model(folder, "ann/scorer", evaluation=str(tmp_path / "metrics.json"))


def test_adapter_names_the_model_below_in_its_card(tmp_path):
    model, processor = scorer_parts("llava")
    add_lora(model, r=2)
    scorer = load_scorer(model, processor=processor)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path)
    scorer.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="adapter/adapter_config.json names a path of this machine"):
        plan_model(tmp_path / "adapter", "ann/adapter")
    model.peft_config["default"].base_model_name_or_path = "ann/scorer"
    scorer.save_pretrained(tmp_path / "adapter")
    plan = plan_model(tmp_path / "adapter", "ann/adapter")
    assert plan.is_adapter
    card = ModelCard(plan.files["README.md"].decode())
    assert (card.data.base_model, card.data.base_model_relation) == ("ann/scorer", "adapter")
    assert "that of [ann/scorer](https://huggingface.co/ann/scorer)" in card.text
    assert "With transformers and peft alone" in card.text


# Data sets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "card, text, may_be_shared",
    [
        ("---\nlicense: cc-by-4.0\n---\n", "licence cc-by-4.0", True),
        ("---\nlicense: [cc0-1.0, mit]\n---\n", "licence cc0-1.0, mit", True),
        ("---\nlicense: cc-by-nc-nd-4.0\n---\n", "licence cc-by-nc-nd-4.0", False),
        ("---\nlicense: other\n---\n# X\n\n**Terms.** For research\nonly.\n\nMore", "For research only.", False),
        ("---\nlicense: other\nredistribution: true\nlicense_details: take it\n---\n", "take it", True),
        ("---\nlicense: mit\nredistribution: false\n---\n", "licence mit", False),
        ("# no head", "the card states none", False),
    ],
)
def test_terms_are_read_from_the_card(card, text, may_be_shared):
    terms = data_terms(card)
    assert (terms.text, terms.may_be_shared) == (text, may_be_shared)


def write_data(folder: Path, licence: str = "other") -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    return folder


@pytest.mark.parametrize(
    "licence, given, private", [("other", None, True), ("mit", None, False), ("other", False, False)]
)
def test_data_are_private_unless_they_may_be_shared(tmp_path, licence, given, private):
    plan = plan_dataset(write_data(tmp_path / "rated", licence), "ann/rated", private=given)
    assert plan.private is private
    assert plan.files["README.md"] == tmp_path / "rated" / "README.md"


def test_data_with_a_loading_script_or_without_a_card_are_refused(tmp_path):
    folder = write_data(tmp_path / "rated")
    (folder / "data" / "rated.py").touch()
    with pytest.raises(ValueError, match=r"holds data/rated\.py, which can run code"):
        plan_dataset(folder, "ann/rated")
    (folder / "data" / "rated.py").unlink()
    (folder / "README.md").unlink()
    with pytest.raises(ValueError, match=r"has no README\.md"):
        plan_dataset(folder, "ann/rated")


# On the way ----------------------------------------------------------------------------------------------------------


def test_what_is_published_is_what_the_hub_has(hub, folder):
    plan = plan_model(folder, "ann/scorer", private=True)
    url = upload(plan, HfApi(), branch="trial/2", message="First")
    files = hub.files("model", "ann/scorer", "trial/2")
    assert files.pop(".gitattributes")
    assert files.pop("README.md") == plan.files["README.md"]
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
    repo = hub.repos["model", "ann/scorer"]
    assert repo.private
    assert repo.messages[url.rpartition("/")[2]] == "First"
    assert set(hub.files("model", "ann/scorer")) == {".gitattributes"}  # of main
    kinds = [request.path.split("/")[-1] for request in hub.requests if request.path.startswith("/ann")]
    assert kinds == ["batch", "verify"]
    asked = [request for request in hub.requests if request.path != "/api/agent-harnesses"]  # huggingface_hub's own
    assert {request.status for request in asked} == {200}


def test_the_same_again_sends_no_file_and_makes_no_commit(hub, folder):
    plan = plan_model(folder, "ann/scorer")
    first = upload(plan, HfApi())
    with hub.recorded() as requests:
        assert upload(plan, HfApi()) == first
    assert not [r for r in requests if r.method == "PUT" or r.path.endswith("/commit/main")]


def test_weights_and_tables_of_an_earlier_revision_do_not_stay_beside_the_new(hub, folder, tmp_path):
    api = HfApi()
    upload(plan_model(folder, "ann/scorer"), api)
    old = {
        name: CommitOperationAdd(name, b"old") for name in ("model-00001-of-00002.safetensors", "old.py", "notes.md")
    }
    api.create_commit("ann/scorer", operations=list(old.values()), commit_message="Old")
    upload(plan_model(folder, "ann/scorer"), api)
    assert set(old) & set(hub.files("model", "ann/scorer")) == {"notes.md"}
    data = write_data(tmp_path / "rated")
    upload(plan_dataset(data, "ann/rated"), api)
    (data / "data" / "train-00000-of-00001.parquet").rename(data / "data" / "train-00000-of-00002.parquet")
    upload(plan_dataset(data, "ann/rated"), api)
    assert [name for name in hub.files("dataset", "ann/rated") if name.endswith(".parquet")] == [
        "data/train-00000-of-00002.parquet"
    ]


def test_a_broken_connection_is_taken_up_again(hub, folder):
    hub.cut("PUT", after=50_000, times=2)
    upload(plan_model(folder, "ann/scorer"), HfApi())
    assert [r.status for r in hub.requests if r.method == "PUT"] == [0, 0, 200]
    assert hub.files("model", "ann/scorer")["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_after_a_connection_broke_for_good_only_the_rest_is_sent(hub, folder):
    save_file({"names": np.arange(7, dtype=np.uint64)}, folder / "trained_on.safetensors")
    plan = plan_model(folder, "ann/scorer")
    hub.cut("PUT", after=50_000, times=6)  # all tries for the weights; the smaller file gets through
    with pytest.raises(OSError, match="broke .*what was uploaded stays there: publish once more to go on"):
        upload(plan, HfApi())
    assert set(hub.files("model", "ann/scorer")) == {".gitattributes"}  # nothing by halves
    with hub.recorded() as requests:
        upload(plan, HfApi())
    assert [r.status for r in requests if r.method == "PUT"] == [200]
    assert set(hub.files("model", "ann/scorer")) == {*plan.files, ".gitattributes"}


@pytest.mark.parametrize("private", [True, False])
def test_repository_that_others_see_than_should_is_left_alone(hub, tmp_path, private):
    HfApi().create_repo("ann/rated", repo_type="dataset", private=not private)
    found = "public" if private else "private"
    with pytest.raises(ValueError, match=f"ann/rated is there already, and {found}"):
        upload(plan_dataset(write_data(tmp_path / "rated"), "ann/rated", private=private), HfApi())
    assert set(hub.files("dataset", "ann/rated")) == {".gitattributes"}


def test_no_right_to_write_is_said_in_a_sentence(hub, folder):
    with pytest.raises(OSError, match=r"refused with 403: You don't have the rights .* namespace \"bob\""):
        upload(plan_model(folder, "bob/scorer"), HfApi())
