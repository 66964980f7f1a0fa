"""Folders saved with the package load in a process that does not have it."""

import json
import subprocess
import sys

import pytest
from tiny import BACKBONES, photo, shared_parts

from roc4mllm import load_scorer

CHILD = """
import json, sys
sys.modules["roc4mllm"] = None  # any use of the package raises
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline
root, picture, again = sys.argv[1:4]
found = {}
for kind in sys.argv[4:]:
    folder = f"{root}/{kind}"
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    batch = processor(images=picture)
    found[kind] = model(**batch).scores[0].tolist()
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type == "roc4mllm"
scorer = pipeline("image-aesthetics", model=folder, trust_remote_code=True)
found["pipeline"] = scorer([picture, "missing.jpg"])
found["untold task"] = pipeline(model=folder, trust_remote_code=True)(picture)["score"]
other = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
found["image-text-to-text"] = type(other).__name__
scorer.save_pretrained(again)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What a process without the package finds in folders of all ten backbones, and what this one finds."""
    root = tmp_path_factory.mktemp("hub")
    picture = root / "picture.png"
    photo(0).save(picture)
    expected = {}
    for kind in BACKBONES:
        model, processor = shared_parts(kind, ("aesthetics", "light"))
        scorer = load_scorer(model, processor=processor)
        scorer.save_pretrained(root / kind)
        expected[kind] = list(scorer(picture)["attributes"].values())
    script = root / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, str(script), str(root), str(picture), str(root / "again"), *BACKBONES]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, expected, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", BACKBONES)
def test_scores_without_the_package(saved, kind):
    _, expected, found = saved
    assert found[kind] == pytest.approx(expected[kind], abs=5e-6)


def test_pipeline_without_the_package(saved):
    _, expected, found = saved
    good, bad = found["pipeline"]
    assert good["score"] == pytest.approx(expected[BACKBONES[-1]][0], abs=5e-6)
    assert (bad["score"], bad["error"]) == (None, "no such file")
    assert found["untold task"] == good["score"]


def test_image_text_to_text_class_without_the_package(saved):
    assert saved[2]["image-text-to-text"] == "ROC4MLLMForImageAesthetics"


def test_a_folder_saved_without_the_package_is_whole(saved):
    root, expected, _ = saved
    files, again = ({path.name for path in (root / name).iterdir()} for name in (BACKBONES[-1], "again"))
    assert files <= again
    scores = load_scorer(root / "again")(root / "picture.png")["attributes"]
    assert list(scores.values()) == pytest.approx(expected[BACKBONES[-1]], abs=5e-6)
