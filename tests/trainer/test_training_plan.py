"""Settings of a training from YAML and flags, and the example files."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from roc4mllm.trainer.run_training import to_yaml, training_options
from roc4mllm.trainer.training_plan import TrainingPlan, parse_yaml, read_plan

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "examples" / "accelerate").glob("*.yaml"))


def written(tmp_path, text: str):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_settings_of_the_file_are_overwritten_by_flags(tmp_path):
    path = written(tmp_path, "data: a.csv\nlora: true\nlearning_rate: 1e-4\nweight_decay: 0.1\nscore_range: [0, 5]\n")
    plan = read_plan(path, {"data": "b.csv", "weight_decay": 0.2})
    assert (plan.data, plan.lora, plan.score_range) == ("b.csv", True, [0, 5])
    assert plan.training == {"learning_rate": 1e-4, "weight_decay": 0.2}


@pytest.mark.parametrize(
    "wrong, near",
    [("learning_rat", "learning_rate"), ("atributes", "attributes"), ("lora_r", "lora"), ("ce_wieght", "ce_weight")],
)
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(tmp_path, wrong, near):
    with pytest.raises(ValueError, match=f"no setting '{wrong}'; did you mean '{near}"):
        read_plan(written(tmp_path, f"data: a.csv\n{wrong}: 1\n"), {})


def test_only_options_of_the_trainer_can_be_searched(tmp_path):
    with pytest.raises(ValueError, match="no option to search 'lerning_rate'; did you mean 'learning_rate'"):
        read_plan(written(tmp_path, "data: a.csv\nsearch_space: {lerning_rate: [1, 2]}\n"), {})
    with pytest.raises(ValueError, match="no option to search 'sharpening'"):
        read_plan(written(tmp_path, "data: a.csv\nsearch_space: {sharpening: [1, 2]}\n"), {})


@pytest.mark.parametrize(
    "text, message",
    [
        ("- a\n- b\n", "must hold settings as `name: value`, got list"),
        ("data: [a\n", "is not YAML"),
        ("model: x\n", "nothing to train on"),
        ("data: a.csv\nload_in_4bit: true\n", "needs lora"),
        ("data: a.csv\neval_share: 1\n", "share from 0 to below 1"),
        ("data: a.csv\ntune: 3\nresume: true\n", "leave out resume"),
        ("data: a.csv\nsearch_space: [learning_rate]\n", "search_space must be dict"),
        ("data: a.csv\nsearch_space: {learning_rate: [high, low]}\n", "learning_rate must be float, got 'high'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_plan(written(tmp_path, text), {})


def test_a_plan_survives_the_way_through_a_file(tmp_path):
    plan = TrainingPlan(
        data="a.csv", lora=True, score_range=[1.0, 7.0], training={"learning_rate": 3e-5, "bf16": True}
    )
    again = read_plan(written(tmp_path, to_yaml(plan.to_dict())), {})
    assert again == plan
    assert "lora_rank" not in plan.to_dict()


def test_options_follow_the_paper_unless_an_adapter_is_trained(tmp_path):
    options = training_options(TrainingPlan(data="a.csv", output_dir=str(tmp_path)))
    assert (options.learning_rate, options.train_batch_size, options.num_train_epochs) == (2e-5, 16, 2.0)
    lora = TrainingPlan(data="a.csv", output_dir=str(tmp_path), lora=True)
    assert training_options(lora).learning_rate == 2e-4
    lora.training["learning_rate"] = 1e-3
    assert training_options(lora).learning_rate == 1e-3


def test_the_example_is_a_plan():
    plan = read_plan(ROOT / "examples" / "train.yaml", {})
    assert plan.lora
    assert plan.training["learning_rates"] == {"score_head": 1e-3}
    plan.training |= {"bf16": False}  # which transformers refuses where the machine has none
    assert training_options(plan).learning_rates == {"score_head": 1e-3}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_accelerate_reads_the_example(path):
    args = launch_command_parser().parse_args(["--config_file", str(path), "-m", "roc4mllm_cli", "train"])
    known = set(vars(args))
    args, _, _ = _validate_launch_command(args)
    kind = path.stem
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed) == (kind == "ddp", kind == "fsdp2", kind == "zero3")
    assert args.mixed_precision == "bf16"
    settings = yaml.safe_load(path.read_text())
    nested = {**settings.get("fsdp_config", {}), **settings.get("deepspeed_config", {})}
    assert set(nested) <= known, "a name that accelerate does not know would be ignored"
    assert all(str(getattr(args, name)) == str(value) for name, value in nested.items())
    assert "never run" in path.read_text()


def test_every_way_to_several_devices_has_an_example():
    assert [path.stem for path in CONFIGS] == ["ddp", "fsdp2", "zero3"]


def test_scalars_are_those_of_yaml_1_2():
    text = "a: 1e-4\nb: no\nc: true\nd: 5\ne: 0.5\nf: -.5\ng: epoch\nh: [5e-6, on]\ni: null\n"
    expected = {
        "a": 1e-4,
        "b": "no",
        "c": True,
        "d": 5,
        "e": 0.5,
        "f": -0.5,
        "g": "epoch",
        "h": [5e-6, "on"],
        "i": None,
    }
    parsed = parse_yaml(text)
    assert parsed == expected
    assert isinstance(parsed["d"], int)


def test_values_of_the_wrong_kind_are_refused(tmp_path):
    for text, message in [
        ("score_range: 7", "score_range must be"),
        ("lora: 'yes please'", "lora must be bool"),
        ("tune: x", "tune must be int"),
        ("output_dir: null", "output_dir must be str"),
        ("learning_rates: 3", "learning_rates must be"),
        ("num_train_epochs: two", "num_train_epochs must be float"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_plan(written(tmp_path, f"data: a.csv\n{text}\n"), {})
    assert read_plan(written(tmp_path, "data: a.csv\nseed: 3\nsave_strategy: no\n"), {}).training == {
        "seed": 3,
        "save_strategy": "no",
    }
