"""The public list of commands and flags, and what a mistyped one answers."""

from __future__ import annotations

import re

import pytest

from wamlab.cli.help import COMMANDS
from wamlab.cli.parser import commands_of, make_parser, parse
from wamlab.sim.shifts import shifts

EVERYWHERE = ["--import", "--traceback"]
PUBLIC = {
    "demo": ["--quick", "--out", "--seed", "--device"],
    "list": ["WHAT", "--json"],
    "collect": ["--env", "--episodes", "--out", "--start"],
    "data inspect": ["PATH", "--out"],
    "data check": ["PATH"],
    "train": [
        "RECIPE",
        "--data",
        "--out",
        "--minutes",
        "--steps",
        "--seed",
        "--resume",
        "--dry-run",
        "--set",
        "--device",
    ],
    "eval": [
        "CHECKPOINT",
        "--env",
        "--dataset",
        "--episodes",
        "--states",
        "--seed",
        "--out",
        "--set",
        "--device",
    ],
    "probe": [
        "CHECKPOINT",
        "--env",
        "--states",
        "--samples",
        "--data",
        "--readers",
        "--judge",
        "--seed",
        "--out",
        "--set",
        "--device",
    ],
    "imagine": ["CHECKPOINT", "--env", "--seed", "--out", "--device"],
    "report": ["FOLDER", "--features"],
    "compare": ["FOLDERS", "--out", "--json"],
    "export": ["LOG", "--out"],
    "verify": ["PATH"],
    "weights": ["NAME", "--from"],
}


def test_the_public_list_is_exactly_this() -> None:
    assert commands_of(make_parser()) == {
        command: [*EVERYWHERE, *flags] for command, flags in PUBLIC.items()
    }


@pytest.mark.parametrize("command", PUBLIC)
def test_every_command_teaches_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(make_parser(), [*command.split(), "--help"])
    said = capsys.readouterr().out
    assert COMMANDS[command].about.split("\n")[0] in said
    assert f"example:\n  wam {command}" in said
    assert max(map(len, said.splitlines())) <= 100


def test_eval_names_every_shift() -> None:
    named = COMMANDS["eval"].about.partition("in all training: ")[2].partition(".")[0]
    assert re.split(r",?\s+(?:or )?", named) == shifts()


@pytest.mark.parametrize("command", PUBLIC)
def test_every_example_is_a_valid_command_line(command: str) -> None:
    options = parse(make_parser(), COMMANDS[command].example.split()[1:])
    assert options.run == command.replace(" ", "_")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian", "did you mean 'train'?"),
        ("data chek x", "did you mean 'check'?"),
        ("list model", "did you mean 'models'?"),
        ("train r --data d --out o --step 3", "did you mean '--steps'?"),
        ("eval c --env e --out o --devise cpu", "did you mean '--device'?"),
        ("demo --device gpu", "no device 'gpu'"),
        ("train r --data d --out o --steps 0", "expected a number of at least 1"),
        ("train r --data d --out o --minutes nan", "expected minutes above 0"),
        ("train r --data d --out o --minutes 1 --steps 2", "not allowed with"),
        ("train r", "--data, --out"),
        ("collect --env e --out o --start -1", "expected a number of at least 0"),
        ("", "command"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(make_parser(), line.split())
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert error.count("\n") == 1
