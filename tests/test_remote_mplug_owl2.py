"""A folder of bare mPLUG-Owl2, without a score head, loads in a process that does not have the package."""

import json
import subprocess
import sys

import pytest
import torch
from checkpoint_files import roc4mllm_checkpoint, write_checkpoint
from tiny import photo
from transformers import AutoModelForImageTextToText, AutoProcessor

from roc4mllm import MPLUGOwl2ForConditionalGeneration, MPLUGOwl2Processor
from roc4mllm.hub.convert_original import load_original
from roc4mllm.hub.original_tokenizer import original_processor

CHILD = """
import json, sys
sys.modules["roc4mllm"] = None  # any use of the package raises
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
folder, again, *pictures = sys.argv[1:]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
for part in (config, model, processor, processor.image_processor):
    assert type(part).__module__.startswith("transformers_modules."), type(part)
turn = [{"type": "image"}, {"type": "text", "text": "Please rate the aesthetics of the image."}]
prompt = processor.apply_chat_template([{"role": "user", "content": turn}], add_generation_prompt=True)
images = [Image.open(picture) for picture in pictures]
batch = processor(images=images, text=[prompt] * len(images), padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**batch).logits[:, -1]
written = model.generate(**batch, max_new_tokens=3, do_sample=False)
model.save_pretrained(again)
processor.save_pretrained(again)
found = {"type": config.model_type, "ids": batch["input_ids"].tolist(), "logits": logits.tolist()}
print(json.dumps(found | {"written": written.tolist()}))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The folder, the one that the child saved, what it found, and the model and processor that it found it with."""
    root = tmp_path_factory.mktemp("hub")
    config, weights = roc4mllm_checkpoint()
    original = write_checkpoint(root / "original", config, weights)
    model = load_original("roc4mllm", weights, config).backbone
    processor = original_processor(original, num_image_tokens=4)  # with the tokenizer of the published weights
    for part in (model, processor):
        part.save_pretrained(root / "native")
    pictures = [root / "0.png", root / "1.png"]
    for seed, path in enumerate(pictures):
        photo(seed).save(path)
    (root / "child.py").write_text(CHILD)
    command = [sys.executable, "child.py", "native", "again", *(path.name for path in pictures)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, json.loads(done.stdout.splitlines()[-1]), model, processor


def test_everything_is_as_with_the_package(loaded):
    _, found, model, processor = loaded
    turn = [{"type": "image"}, {"type": "text", "text": "Please rate the aesthetics of the image."}]
    prompt = processor.apply_chat_template([{"role": "user", "content": turn}], add_generation_prompt=True)
    batch = processor(images=[photo(0), photo(1)], text=[prompt] * 2, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[:, -1]
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    assert found["type"] == "mplugowl2"
    assert found["ids"] == batch["input_ids"].tolist()
    torch.testing.assert_close(torch.tensor(found["logits"]), logits, atol=1e-5, rtol=0)
    assert found["written"] == model.generate(**batch, max_new_tokens=3, do_sample=False).tolist()


def test_what_was_saved_there_is_whole(loaded):
    root, _, model, _ = loaded
    files, again = ({path.name for path in (root / name).iterdir()} for name in ("native", "again"))
    assert files == again
    loaded_again = AutoModelForImageTextToText.from_pretrained(root / "again")
    assert type(loaded_again) is MPLUGOwl2ForConditionalGeneration  # the installed one, and nobody is asked for trust
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in loaded_again.state_dict().items())
    assert type(AutoProcessor.from_pretrained(root / "again")) is MPLUGOwl2Processor
