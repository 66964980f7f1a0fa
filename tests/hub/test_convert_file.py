"""Files of weights as the authors of TANet, EAT and ELTA publish them, to native folders."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from family_weights import original
from safetensors.torch import save_file
from tiny import photo
from transformers import AutoImageProcessor, AutoModel

from roc4mllm import load_scorer
from roc4mllm.hub import convert_file as convert_file_module
from roc4mllm.hub.convert_file import convert_file, even_batches

PICTURES = [photo(0), photo(1, 30, 70)]


def card(folder: Path) -> str:
    return re.sub(r"\s+", " ", (folder / "README.md").read_text())


FAMILIES = [(family, variant) for family in ("tanet", "eat", "elta") for variant in ("AVA", "TAD66K")]


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def converted(request, tmp_path_factory):
    """`(family, variant, the native model that it should be, folder)`."""
    family, variant = request.param
    folder = tmp_path_factory.mktemp(family)
    model, weights = original(family, variant)
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, folder / "best.pth")
    convert_file(family, folder / "best.pth", folder / "native")
    assert {path.name for path in folder.iterdir()} == {"best.pth", "native"}
    return family, variant, model, folder / "native"


class TestFolder:
    def test_scores(self, converted):
        _, _, model, folder = converted
        images = AutoImageProcessor.from_pretrained(folder)
        expected = load_scorer(model, image_processor=images).score(PICTURES)
        assert (expected[0] - expected[1]).abs() > 1e-3
        torch.testing.assert_close(load_scorer(folder).score(PICTURES), expected, atol=5e-5, rtol=0)

    def test_range_is_in_units_of_the_labels(self, converted):
        family, variant, _, folder = converted
        config = json.loads((folder / "config.json").read_text())
        expected = (10, [1.0, 10.0]) if variant == "AVA" else (1, [0.0, 10.0])
        assert (config.get("num_levels", 10), config.get("score_range", [1.0, 10.0])) == expected
        text = card(folder)
        assert f"from **{expected[1][0]:g} to 10, higher is better**" in text
        assert ("in votes of AVA" in text) == (variant == "AVA")
        assert ("The score is the mean of the ten levels" in text) == (variant == "AVA" and family != "eat")
        assert ("sum of each level times its raw value" in text) == (variant == "AVA" and family == "eat")
        assert ("set to the range's end" in text) == (family == "eat")
        assert ("in units of TAD66K's labels" in text) == (variant == "TAD66K")
        assert ("most pictures of its official test set" in text) == (variant == "AVA" and family != "elta")

    def test_preparation(self, converted):
        family, variant, _, folder = converted
        images = AutoImageProcessor.from_pretrained(folder)
        side = {"tanet": 224, "eat": 32, "elta": 256}[family]
        assert dict(images.size) == {"height": side, "width": side}
        assert list(images.image_mean) == [0.485, 0.456, 0.406]
        how = "bicubic" if (family, variant) == ("tanet", "AVA") else "bilinear"
        assert f"stretched to {side} × {side} pixels ({how})" in card(folder)

    def test_card(self, converted):
        family, variant, _, folder = converted
        text = card(folder)
        assert f"Converted by roc4mllm {load_scorer(folder)(PICTURES[0])['version']} from `best.pth`" in text
        assert "mPLUG-Owl2" not in text
        uncalibrated = (family, variant) == ("tanet", "AVA")
        assert ("Uncalibrated theme branch" in text) == uncalibrated
        effect = re.search(
            r"SRCC -?\d\.\d{4}, mean shift [+-]\d\.\d{4}; measured on 32 generated pictures .* in batches of 32", text
        )
        assert bool(effect) == uncalibrated
        assert {path.suffix for path in folder.iterdir()} == {".json", ".md", ".py", ".safetensors"}

    def test_uncalibrated_theme_branch_warns_at_each_load(self, converted, caplog):
        family, variant, _, folder = converted
        with caplog.at_level(logging.WARNING, logger="transformers"):
            AutoModel.from_pretrained(folder)
        assert ("uncalibrated theme branch" in caplog.text) == ((family, variant) == ("tanet", "AVA"))


class TestCalibration:
    @pytest.fixture
    def weights(self):
        return original("tanet", "AVA")[1]

    @pytest.fixture
    def pictures(self, tmp_path):
        folder = tmp_path / "pictures"
        folder.mkdir()
        for seed in range(3):
            photo(seed).save(folder / f"{seed}.png")
        (folder / "broken.png").write_bytes(b"no picture")
        return sorted(folder.iterdir())

    def test_statistics_and_effect(self, weights, pictures, tmp_path, caplog):
        torch.save(weights, tmp_path / "a.pth")
        with caplog.at_level(logging.WARNING, logger="transformers"):
            convert_file("tanet", tmp_path / "a.pth", tmp_path / "native", pictures=pictures)
        assert "broken.png' is left out" in caplog.text
        model = AutoModel.from_pretrained(tmp_path / "native")
        assert "uncalibrated" not in caplog.text
        assert "legacy_batch_mixing" not in caplog.text
        assert model.config.theme_calibrated
        assert model.theme.statistics.covariance.trace() > 0
        text = card(tmp_path / "native")
        assert "of 3 pictures. How near it comes to the original's scores, in batches of 3: SRCC" in text
        assert "Both were measured on 3 of the same pictures" in text
        assert "measured on 3 pictures only" in caplog.text
        effects = re.findall(r"SRCC (-?\d\.\d+), mean shift ([+-]\d\.\d+)", text)
        assert len(effects) == 2
        assert effects[0] != effects[1]
        images = AutoImageProcessor.from_pretrained(tmp_path / "native")
        pixel_values = images([photo(seed) for seed in range(3)], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            ours = model(pixel_values).scores.mean()
            model.config.legacy_batch_mixing = True
            theirs = model(pixel_values).scores.mean()
        assert float(effects[0][1]) == pytest.approx((ours - theirs).item(), abs=1e-4)

    @pytest.mark.parametrize(("srcc", "shift"), [(torch.nan, 0.0), (0.5, torch.nan)])
    def test_scores_that_are_no_numbers_are_refused(self, monkeypatch, srcc, shift):
        effect = {"srcc": srcc, "mean_shift": shift}
        monkeypatch.setattr(convert_file_module, "effect_against_legacy", lambda *args: effect)
        model = SimpleNamespace(config=SimpleNamespace(theme_calibrated=True), dtype=torch.float16)
        with pytest.raises(ValueError, match=r"torch\.float16 are not finite, or all alike"):
            convert_file_module.effect_text(model, [])

    def test_identical_pictures(self, weights, tmp_path):
        torch.save(weights, tmp_path / "a.pth")
        for name in "bc":
            photo(0).save(tmp_path / f"{name}.png")
        with pytest.raises(ValueError, match="2 pictures are all alike"):
            convert_file(
                "tanet", tmp_path / "a.pth", tmp_path / "native", pictures=[tmp_path / "b.png", tmp_path / "c.png"]
            )
        assert not (tmp_path / "native").exists()

    @pytest.mark.parametrize(
        ("came", "made"),
        [((3, 2), [5]), ((1,), []), ((), []), ((4, 4, 3), [4, 4]) , ((3, 4, 4), [4, 4]), ((9,), [4, 4])],
    )  # fmt: skip
    def test_batches_are_as_large_as_the_card_says(self, came, made):
        parts = torch.arange(sum(came)).split(list(came)) if came else []
        size = 8 if came == (3, 2) else 4
        found = list(even_batches(parts, size))
        assert [len(part) for part in found] == made
        assert torch.equal(torch.cat([*found, torch.tensor([])]), torch.arange(sum(made)))

    @pytest.mark.parametrize(
        ("count", "message"), [(1, "at least two pictures that can be read"), (0, "at least two pictures")]
    )
    def test_too_few_pictures(self, weights, pictures, tmp_path, count, message):
        torch.save(weights, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=message):
            convert_file("tanet", tmp_path / "a.pth", tmp_path / "native", pictures=pictures[:count])
        assert {path.name for path in tmp_path.iterdir()} == {"a.pth", "pictures"}

    def test_only_where_statistics_are_used(self, pictures, tmp_path):
        torch.save(original("tanet", "TAD66K")[1], tmp_path / "a.pth")
        with pytest.raises(ValueError, match="for the TANet of AVA"):
            convert_file("tanet", tmp_path / "a.pth", tmp_path / "native", pictures=pictures)
        with pytest.raises(ValueError, match="Calibrating is for TANet; eat needs no statistics"):
            convert_file("eat", tmp_path / "a.pth", tmp_path / "native", pictures=pictures)


def contains_itself() -> dict:
    content: dict = {}
    content["model"] = content
    return content


class Exploit:
    def __reduce__(self):
        return print, ("this code ran",)


class TestFiles:
    @pytest.fixture
    def weights(self):
        return original("elta", "AVA")[1]

    @pytest.mark.parametrize("nest", ["bare", "state_dict", "model", "deep"])
    def test_layouts(self, weights, nest, tmp_path):
        content = weights if nest == "bare" else {"epoch": 3, nest: weights}
        content = {"model": {"state_dict": {"model": {"state_dict": weights}}}} if nest == "deep" else content
        torch.save(content, tmp_path / "a.pth")
        convert_file("elta", tmp_path / "a.pth", tmp_path / "native")
        assert (tmp_path / "native" / "model.safetensors").exists()

    def test_double_precision_becomes_single(self, weights, tmp_path):
        torch.save({name: weight.double() for name, weight in weights.items()}, tmp_path / "a.pth")
        convert_file("elta", tmp_path / "a.pth", tmp_path / "native")
        model = AutoModel.from_pretrained(tmp_path / "native")
        assert model.dtype == torch.float32
        assert torch.equal(model.score_head.bias, weights["linear_emd.2.bias"])

    def test_other_formats(self, weights, tmp_path):
        save_file(weights, tmp_path / "a.safetensors")
        torch.save(weights, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
        for name in ("a.safetensors", "b.pt"):
            convert_file("elta", tmp_path / name, tmp_path / "native" / name)
        first, second = (load_scorer(tmp_path / "native" / name).score(PICTURES) for name in ("a.safetensors", "b.pt"))
        assert torch.equal(first, second)

    def test_two_heads_need_a_variant(self, weights, tmp_path):
        torch.save(original("elta", "TAD66K")[1] | weights, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="holds two heads"):
            convert_file("elta", tmp_path / "a.pth", tmp_path / "native")
        convert_file("elta", tmp_path / "a.pth", tmp_path / "native", variant="TAD66K")
        assert AutoModel.from_pretrained(tmp_path / "native").config.num_levels == 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w | {"linear_emd.9.weight": torch.zeros(1)}, r"unknown linear_emd\.9\.weight \(1\)"),
            (lambda w: {name: w[name] for name in w if "norm2.bias" not in name}, r"missing .*norm2\.bias.* \(2\)"),
            (lambda w: w | {"linear_emd.2.bias": torch.zeros(7)}, r"linear_emd\.2\.bias has shape \(7,\)"),
            (lambda w: w | {"linear_emd.2.bias": torch.zeros(10).char()}, r"linear_emd\.2\.bias \(torch\.int8\)"),
            (
                lambda w: w | {"linear_emd.2.bias": torch.full((10,), torch.nan)},
                r"no numbers.* linear_emd\.2\.bias \(1\)",
            ),
            (
                lambda w: w | {"linear_emd.2.bias": torch.full((10,), torch.inf)},
                r"infinite.* linear_emd\.2\.bias \(1\)",
            ),
            (
                lambda w: w | {"linear_emd.2.bias": torch.zeros(10).to_sparse()},
                r"'linear_emd\.2\.bias' in a\.pth is laid",
            ),
            (lambda w: w | {3: torch.zeros(1)}, "a.pth holds something under 3, which is no name"),
            (lambda w: contains_itself(), "state_dict and model deeper than 4 times"),
            (lambda w: {"model": {"model": {"model": {"model": {"model": w}}}}}, "deeper than 4 times"),
            (lambda w: w | {"epoch": 3}, "a.pth holds 'epoch', which is no weight"),
            (lambda w: {"state_dict": {}}, "expected weights by name"),
            (lambda w: [1, 2], "a.pth holds a list; expected weights by name"),
            (
                lambda w: {"state_dict": w, "extra": Exploit()},
                "a.pth is refused: it is more than weights.*save its weights alone",
            ),
        ],
    )
    def test_refused(self, weights, change, message, tmp_path, capsys):
        torch.save(change(weights), tmp_path / "a.pth")
        with pytest.raises(ValueError, match=message):
            convert_file("elta", tmp_path / "a.pth", tmp_path / "native")
        assert "this code ran" not in capsys.readouterr().out
        assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [(b"", "not written by torch.save"), (b"<html>", "not written by torch.save"), (b"PK\x03\x04", "cut short")],
    )
    def test_no_file_of_weights(self, content, message, tmp_path):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            convert_file("elta", tmp_path / "a.pth", tmp_path / "native")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"family": "dat"}, r"Got 'dat', variant None; known are \['tanet', 'eat', 'elta'\]"),
            ({"variant": "PARA"}, "variant 'PARA'"),
            ({"variant": "TAD66K"}, r"missing linear_mse\.1\.bias"),
        ],
    )
    def test_arguments(self, weights, arguments, message, tmp_path):
        torch.save(weights, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=message):
            convert_file(
                **({"family": "elta"} | arguments), source=tmp_path / "a.pth", destination=tmp_path / "native"
            )

    @pytest.mark.parametrize("family", ["tanet", "eat"])
    def test_a_variant_must_be_that_of_the_file(self, family, tmp_path):
        torch.save(original(family, "TAD66K")[1], tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"The head in a\.pth gives 1 value\(s\); expected 10 \(AVA\)"):
            convert_file(family, tmp_path / "a.pth", tmp_path / "native", variant="AVA")

    def test_files_of_another_family(self, weights, tmp_path):
        torch.save(weights, tmp_path / "a.pth")
        for family, message in (("tanet", "lacks head.2.weight"), ("eat", "lacks patch_proj.0.weight")):
            with pytest.raises(ValueError, match=message):
                convert_file(family, tmp_path / "a.pth", tmp_path / "native")

    @pytest.mark.parametrize("family", ["tanet", "eat", "elta"])
    def test_weights_of_any_other_shape(self, family, tmp_path):
        """Whatever they look like, the answer is one that a user can read, and no half of a folder."""
        good = original(family, "AVA")[1]
        kinds = {re.sub(r"\d+", "0", name): name for name in good}  # one of each kind, whatever its block
        chosen = list(kinds.values()) if family != "tanet" else [*list(good)[:2], "head.2.weight", "head.2.bias"]
        for number, name in enumerate(chosen):
            for shape in ((), (2, 2)):
                torch.save(good | {name: torch.zeros(shape)}, tmp_path / f"{number}.pth")
                with pytest.raises(ValueError):  # noqa: PT011, each has its own words
                    convert_file(family, tmp_path / f"{number}.pth", tmp_path / "native")
        assert {path.suffix for path in tmp_path.iterdir()} == {".pth"}

    def test_place_that_is_taken(self, weights, tmp_path):
        torch.save(weights, tmp_path / "a.pth")
        with pytest.raises(FileExistsError, match="not an empty folder"):
            convert_file("elta", tmp_path / "a.pth", tmp_path)
