"""`roc4mllm train` as tests run it, and what they train on."""

from pathlib import Path

from tiny import photo
from tiny_training import eat_parts

import roc4mllm_cli


def run(*arguments) -> int:
    """The exit status of the command."""
    return roc4mllm_cli.main(["train", *map(str, arguments)])


def quick(ratings, out, *more) -> int:
    """One step."""
    return run("--data", ratings, "-o", out, "--max-steps", 1, "--batch-size", 4, "--eval-share", 0, *more)


def rated_photos(folder: Path) -> Path:
    """A CSV of forty pictures of one colour each, rated by how light they are."""
    (folder / "photos").mkdir()
    lines = ["path,score,theme"]
    for index in range(40):
        score = 1 + 6 * index / 39
        photo(index).point(lambda value, light=index / 39: int(value * (0.2 + 0.8 * light))).save(
            folder / "photos" / f"{index}.png"
        )
        lines.append(f"photos/{index}.png,{score:.3f},{'odd' if index % 2 else 'even'}")
    path = folder / "ratings.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def untrained_eat(folder: Path) -> Path:
    """A folder with a tiny EAT of seven levels, never trained, and its image processor."""
    model, images = eat_parts(num_levels=7, score_range=(1.0, 7.0))
    model.config.score_head_trained = False
    for part in (model, images):
        part.save_pretrained(folder / "eat")
    return folder / "eat"
