"""Configuration trees: to JSON and back, and typed overrides that name what is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from wamlab.config import from_dict, nearest, override, to_dict


@dataclass(frozen=True)
class Optim:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    kind: Literal["adamw", "sgd"] = "adamw"


@dataclass(frozen=True)
class Second:
    kind: str = ""


@dataclass(frozen=True)
class Tree:
    depth: int = 2
    name: str = "tree"
    fast: bool = False
    minutes: float | None = None
    views: tuple[str, ...] = ("corner",)
    sizes: list[int] = field(default_factory=lambda: [1])
    share: dict[str, float] = field(default_factory=dict)
    optim: Optim = Optim()
    told: int | Literal["all", "empty"] = 0
    second: Second = Second()


def test_a_tree_goes_to_json_and_back_equal() -> None:
    tree = Tree(3, "x", True, 1.5, ("a", "b"), [4], {"c": 0.5}, Optim(3e-4, kind="sgd"))
    assert from_dict(Tree, json.loads(json.dumps(to_dict(tree)))) == tree


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("depth=4", "depth", 4),
        ("optim.lr=3e-4", "optim.lr", 3e-4),
        ("optim.lr=1", "optim.lr", 1.0),
        ("name=oak", "name", "oak"),
        ("fast=true", "fast", True),
        ("fast=False", "fast", False),
        ("minutes=none", "minutes", None),
        ("minutes=2", "minutes", 2.0),
        ("views=corner,gripper", "views", ("corner", "gripper")),
        ("views=gripper", "views", ("gripper",)),
        ('views=["a"]', "views", ("a",)),
        ("optim.betas=0.8,0.9", "optim.betas", (0.8, 0.9)),
        ("sizes=[2, 3]", "sizes", [2, 3]),
        ("optim.kind=sgd", "optim.kind", "sgd"),
    ],
)
def test_an_override_is_typed_by_its_field(assignment: str, path: str, value: object) -> None:
    changed: object = override(Tree(), [assignment])
    for name in path.split("."):
        changed = getattr(changed, name)
    assert changed == value
    assert type(changed) is type(value)


def test_the_last_override_wins_and_the_original_is_untouched() -> None:
    tree = Tree()
    assert override(tree, ["depth=4", "optim.lr=0.5", "depth=5"]).depth == 5
    assert tree == Tree()


@pytest.mark.parametrize(
    ("assignment", "kind", "said"),
    [
        ("dept=4", KeyError, "did you mean 'depth'"),
        ("optim.learning=4", KeyError, "Optim has no 'learning'"),
        ("depth.more=4", KeyError, "int has no fields"),
        ("depth=4.5", TypeError, "depth: expected a whole number, got 4.5"),
        ("depth=true", TypeError, "expected a whole number, got True"),
        ("depth=many", TypeError, "expected a whole number, got 'many'"),
        ("optim.lr=fast", TypeError, "expected a number, got 'fast'"),
        ("optim.betas=0.9", TypeError, "expected 2 values"),
        ("optim.kind=adam", TypeError, "did you mean 'adamw'"),
        ("optim=3", TypeError, "expected the fields of Optim"),
        ("minutes=soon", TypeError, "minutes: expected a number or none, got 'soon'"),
        ("told=3.5", TypeError, "expected a whole number or 'all' or 'empty', got 3.5"),
        ("lr=4", KeyError, r"lr: Tree has no 'lr'; did you mean 'optim\.lr'\?"),
        ("kind=4", KeyError, r"did you mean 'optim\.kind' or 'second\.kind'\?"),
        ("depth", ValueError, "expected NAME=VALUE, got 'depth'"),
    ],
)
def test_a_bad_override_names_what_is_wrong(
    assignment: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        override(Tree(), [assignment])


def test_an_unknown_field_in_json_names_the_nearest() -> None:
    with pytest.raises(KeyError, match=r"Tree\.optim: Optim has no 'rl'; did you mean 'lr'"):
        from_dict(Tree, {"optim": {"rl": 1}})


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("cornr", ["corner", "gripper"], "; did you mean 'corner'?"),
        ("zzz", ["corner", "gripper"], "; there is corner, gripper"),
        ("zzz", [], "; there is none"),
        ("zzz", list("abcdefghijklmno"), "; there is a, b, c, d, e, f, g, h, i, j, k, l ..."),
    ],
)
def test_an_error_ends_with_the_nearest_name_or_with_all(
    name: str, known: list[str], said: str
) -> None:
    assert nearest(name, known) == said
