"""
The rules that hold the layout together, each a function that returns what breaks it; below them, what must break them.

They read source text and import nothing of the package, so that a file that cannot be imported is still judged.
"""

import ast
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_imports

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "roc4mllm"

# Who may import whom, by the first folder below roc4mllm/. A new folder gets a row here, decided once.
SHIPPED_FOLDERS = {"modeling_roc4mllm", "processing_roc4mllm"}
ARROWS = {
    "modeling_roc4mllm": set(),
    "processing_roc4mllm": set(),
    "whole_files": set(),
    "datasets_scripts": SHIPPED_FOLDERS | {"whole_files"},
    "hub": SHIPPED_FOLDERS,
    # the guard: what a model was trained on travels with it
    "trainer": SHIPPED_FOLDERS | {"datasets_scripts", "whole_files"},
    "inference": SHIPPED_FOLDERS | {"hub", "whole_files"},  # load_scorer opens adapters and the authors' own folders
    "__init__": SHIPPED_FOLDERS | {"hub", "inference", "trainer"},  # the public names
    "cli": SHIPPED_FOLDERS | {"__init__", "datasets_scripts", "hub", "inference", "trainer", "whole_files"},
}
ALLOWED_LIBRARIES = {
    "modeling_roc4mllm": {"torch", "transformers", "huggingface_hub", "safetensors"},
    "processing_roc4mllm": {"torch", "transformers", "PIL", "numpy"},
}
VAGUE_NAMES = {"utils.py", "common.py", "base.py"}
LONGEST_FILE = 500
PICTURES = {".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
PICTURE_FOLDERS = ("examples/photos/", "docs/")
# Written so that the expression does not match itself. What stands before the slash tells a path from a URL.
MACHINE_PATH = re.compile(rb"(?<![\w.~-])(?:/(?:hom[e]|User[s]|roo[t]|wor[k]|mn[t]|tm[p])/[\w.]|[A-Z]:\\{1,2}User[s])")


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def shipped_files(package: Path) -> list[Path]:
    """What transformers copies into Hub folders; an `__init__.py` stays behind."""
    return [path for name in sorted(SHIPPED_FOLDERS) for path in sorted((package / name).glob("[!_]*.py"))]


def repository_files(root: Path) -> list[Path]:
    """Tracked files and new ones that git does not ignore."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout, so nothing tells which files belong to the repository")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout.decode()
    paths = (root / name for name in listing.split("\0") if name)
    return [path for path in paths if path.is_file()]


# The rules -----------------------------------------------------------------------------------------------------------


def imported_parts(path: Path, package: Path) -> set[tuple[int, str]]:
    """Line and part (first folder or module below the package) of every import of our own, also inside functions."""
    inside = path.relative_to(package.parent).with_suffix("").parts  # ("roc4mllm", "cli", "score")
    known = {child.stem for child in package.iterdir()}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = list(inside[: len(inside) - node.level]) if node.level else []
            start += node.module.split(".") if node.module else []
            targets = [[*start, alias.name] for alias in node.names]
        else:
            continue
        parts = [target[1:] for target in targets if target[0] == package.name]
        found |= {(node.lineno, part[0] if part and part[0] in known else "__init__") for part in parts}
    return found


def forbidden_arrows(package: Path) -> list[str]:
    problems = []
    for path in python_files(package):
        part = path.relative_to(package).parts[0].removesuffix(".py")
        if part not in ARROWS:
            problems.append(f"{part} has no row in ARROWS; decide what it may import")
            continue
        for line, target in sorted(imported_parts(path, package)):
            if target != part and target not in ARROWS[part]:
                problems.append(f"{path.relative_to(package)}:{line} {part} must not import {target}")
    return problems


def bad_shipped_imports(path: Path) -> list[str]:
    """transformers copies exactly the files it finds with two regular expressions; see `custom_object_save`."""
    problems, siblings, absolute = [], set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            absolute |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            absolute.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            if node.level > 1 or not node.module or "." in node.module:
                problems.append(f"line {node.lineno}: write `from .sibling import name`; nothing else is copied")
            else:
                siblings.add(node.module)
    problems += [f"no sibling {name}.py" for name in sorted(siblings) if not (path.parent / f"{name}.py").exists()]
    if misread := set(get_relative_imports(path)) ^ siblings:
        problems.append(f"transformers' text scan and Python disagree about {sorted(misread)} (a docstring line?)")
    if any(name.split(".")[0] == "roc4mllm" for name in absolute):
        problems.append("roc4mllm imported by name: users of the Hub folder do not have it")
    if any(name.startswith("huggingface_hub") and name != "huggingface_hub.dataclasses" for name in absolute):
        problems.append("of huggingface_hub only `huggingface_hub.dataclasses` (for @strict) is allowed")
    allowed = ALLOWED_LIBRARIES[path.parent.name] | sys.stdlib_module_names
    if extra := set(get_imports(path)) - allowed - {"roc4mllm"}:
        problems.append(f"libraries that a user of the Hub folder may not have: {sorted(extra)}")
    return problems


def repeated_names(paths: list[Path]) -> list[str]:
    """Both folders are copied into one, by file name."""
    names = [path.name for path in paths]
    return sorted({name for name in names if names.count(name) > 1})


def vague_names(package: Path) -> list[str]:
    return [str(path.relative_to(package)) for path in python_files(package) if path.name in VAGUE_NAMES]


def long_files(package: Path) -> list[str]:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(package)}
    return [f"{path.relative_to(package)}: {count} lines" for path, count in lines.items() if count > LONGEST_FILE]


def machine_paths(paths: list[Path]) -> list[str]:
    """Binary files too: a checkpoint or a picture may carry the folder it was made in."""
    hits = ((path, MACHINE_PATH.search(path.read_bytes())) for path in paths)
    return [f"{path.name}: {hit.group().decode()!r}" for path, hit in hits if hit]


def misplaced_pictures(paths: list[Path], root: Path) -> list[str]:
    names = [path.relative_to(root).as_posix() for path in paths if path.suffix.lower() in PICTURES]
    return [name for name in names if not name.startswith(PICTURE_FOLDERS)]


def pinned_otherwise(constraints: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in constraints.splitlines())
    return [line for line in lines if line and not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)]


# The repository keeps them -------------------------------------------------------------------------------------------


def test_imports_point_one_way():
    assert forbidden_arrows(PACKAGE) == []


def test_the_arrows_form_no_cycle():
    waiting = {part: set(targets) for part, targets in ARROWS.items()}
    while leaves := {part for part, targets in waiting.items() if not targets & waiting.keys()}:
        waiting = {part: targets for part, targets in waiting.items() if part not in leaves}
    assert waiting == {}


@pytest.mark.parametrize("path", shipped_files(PACKAGE), ids=lambda path: path.name)
def test_shipped_file_imports_only_siblings_and_allowed_libraries(path):
    assert bad_shipped_imports(path) == []


def test_shipped_file_names_are_unique():
    assert repeated_names(shipped_files(PACKAGE)) == []


def test_no_file_has_a_name_that_says_nothing():
    assert vague_names(PACKAGE) == []


def test_no_file_is_too_long_to_read():
    assert long_files(PACKAGE) == long_files(ROOT / "tests") == long_files(ROOT / "benchmarks") == []


def test_no_file_names_a_path_of_a_machine():
    assert machine_paths(repository_files(ROOT)) == []


def test_pictures_lie_only_where_their_credits_are():
    assert misplaced_pictures(repository_files(ROOT), ROOT) == []


def test_no_picture_of_the_shared_data_is_committed(shared):
    private = {sha256(path.read_bytes()).digest() for path in (shared / "data").rglob("*") if path.is_file()}
    assert private, "the shared folder has no data to compare with"
    assert [path.name for path in repository_files(ROOT) if sha256(path.read_bytes()).digest() in private] == []


def test_constraints_hold_versions_and_nothing_else():
    assert pinned_otherwise((ROOT / "constraints.txt").read_text()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["score", "--help"],
        ["evaluate", "--help"],
        ["train", "--help"],
        ["convert", "--help"],
        ["publish", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_neither_torch_nor_transformers(arguments):
    code = """
import sys
from roc4mllm_cli import main
try:
    sys.exit(main())
finally:
    heavy = {"torch", "transformers", "roc4mllm", "PIL", "numpy"} & sys.modules.keys()
    print("heavy:", sorted(heavy), file=sys.stderr)
"""
    command = [sys.executable, "-c", code, *arguments]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert "usage: " in child.stdout.lower()
    assert child.stderr.splitlines()[-1] == "heavy: []"


# Each rule can fail --------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An empty package with every part in place."""
    for part in ARROWS.keys() - {"__init__"}:
        (tmp_path / "roc4mllm" / part).mkdir(parents=True)
    (tmp_path / "roc4mllm" / "__init__.py").touch()
    return tmp_path / "roc4mllm"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("modeling_roc4mllm/modeling_x.py", "from ..processing_roc4mllm.processing_x import X"),
        ("processing_roc4mllm/processing_x.py", "from roc4mllm.modeling_roc4mllm import x"),
        ("processing_roc4mllm/processing_x.py", "from roc4mllm import modeling_roc4mllm"),
        ("inference/server.py", "def run():\n    from ..cli import score"),
        ("inference/server.py", "import roc4mllm.cli.score"),
        ("inference/server.py", "import roc4mllm"),
        ("inference/server.py", "from .. import trainer"),
        ("hub/card.py", "from .. import load_scorer"),
        ("trainer/deep/er.py", "from ...inference import scoring"),
        ("datasets_scripts/ava.py", "try:\n    from ..hub import card\nexcept ImportError:\n    card = None"),
        ("__init__.py", "from .cli import score"),
        ("helpers/x.py", ""),
    ],
)
def test_forbidden_arrow_is_found(package, file, text):
    path = package / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert len(forbidden_arrows(package)) == 1


def test_allowed_arrows_pass(package):
    (package / "cli" / "score.py").write_text("import roc4mllm\nfrom ..inference import scoring\nfrom . import table")
    (package / "inference" / "scoring.py").write_text("import torch\nfrom ..hub.convert import x\nfrom .load import y")
    (package / "__init__.py").write_text("from .modeling_roc4mllm.modeling_x import X\n__version__ = '1'")
    assert forbidden_arrows(package) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("from . import sibling", "from .sibling import name"),
        ("from ..modeling_roc4mllm.sibling import x", "from .sibling import name"),
        ("from .folder.sibling import x", "from .sibling import name"),
        ("from .missing import x", "no sibling missing.py"),
        ('"""\nfrom .sibling import x\n"""', "disagree"),
        ("from .sibling \\\n    import x\nfrom . \\\n  sibling import y", "disagree"),
        ("import roc4mllm.inference", "roc4mllm imported by name"),
        ("try:\n    from roc4mllm import x\nexcept ImportError:\n    pass", "roc4mllm imported by name"),
        ("from huggingface_hub import hf_hub_download", "huggingface_hub"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jaxtyping", "jaxtyping"),
        ("def f():\n    import torchvision", "torchvision"),
    ],
)
def test_bad_shipped_import_is_found(package, text, reason):
    folder = package / "modeling_roc4mllm"
    (folder / "sibling.py").touch()
    (folder / "modeling_x.py").write_text(text)
    assert any(reason in problem for problem in bad_shipped_imports(folder / "modeling_x.py"))


@pytest.mark.parametrize("text", ["import numpy", "from PIL import Image"])
def test_libraries_for_pictures_are_for_processing_only(package, text):
    for folder, expected in (("modeling_roc4mllm", 1), ("processing_roc4mllm", 0)):
        path = package / folder / "x.py"
        path.write_text(text)
        assert len(bad_shipped_imports(path)) == expected


def test_repeated_name_is_found(package):
    for folder in SHIPPED_FOLDERS:
        (package / folder / "image_x.py").touch()
        (package / folder / "__init__.py").touch()  # not shipped, so not repeated
    assert repeated_names(shipped_files(package)) == ["image_x.py"]


@pytest.mark.parametrize("name", sorted(VAGUE_NAMES))
def test_vague_name_is_found(package, name):
    (package / "hub" / name).touch()
    assert vague_names(package) == [f"hub/{name}"]


def test_long_file_is_found(package):
    (package / "hub" / "fits.py").write_text("x = 1\n" * LONGEST_FILE)
    (package / "hub" / "long.py").write_text("x = 1\n" * (LONGEST_FILE + 1))
    assert long_files(package) == [f"hub/long.py: {LONGEST_FILE + 1} lines"]


@pytest.mark.parametrize("start", ["/hom" + "e/ann", '"/User' + "s/ann", "=/roo" + "t/.cache", "C:\\User" + "s\\ann"])
def test_machine_path_is_found_in_text_and_in_binary_files(tmp_path, start):
    path = tmp_path / "model.bin"
    path.write_bytes(b"\x00\xff" + start.encode())
    assert len(machine_paths([path])) == 1


@pytest.mark.parametrize("text", ["https://x.org/hom" + "e/ann", "../roo" + "t/x", "data/tm" + "p/x"])
def test_url_and_relative_path_are_no_machine_paths(tmp_path, text):
    path = tmp_path / "notes.md"
    path.write_text(text)
    assert machine_paths([path]) == []


def test_misplaced_picture_is_found(tmp_path):
    names = ["examples/photos/cat.jpg", "docs/table.png", "tests/Cat 1.JPG", "roc4mllm/demo.png"]
    assert misplaced_pictures([tmp_path / name for name in names], tmp_path) == names[2:]


@pytest.mark.parametrize("line", ["torch>=2", "torch==2.13.0+cpu", "--index-url x", "pkg @ file:x", "-e ."])
def test_loose_constraint_is_found(line):
    assert pinned_otherwise(f"# tested\nnumpy==2.4.6\n{line}\n") == [line]
