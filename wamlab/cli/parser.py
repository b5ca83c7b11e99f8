"""The public list of commands and flags. It is short on purpose, and a test holds it.

In training every other field of a run is reached by ``--set model.depth=4``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

import wamlab
from wamlab.cli.help import ABOUT, COMMANDS
from wamlab.config import nearest

LISTS = ("models", "envs", "recipes", "metrics")
DEVICES = ("auto", "cpu", "cuda")


class Parser(argparse.ArgumentParser):
    """argparse that answers in one line, with the nearest right name."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = action.metavar or action.dest
            raise argparse.ArgumentError(
                None, f"no {what} {value!r}{nearest(str(value), action.choices)}"
            )


def parse(parser: Parser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command; an unknown flag ends it with the nearest one."""
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        mine: Parser = options.parser
        flags = [flag for flag in flags_of(mine) if flag.startswith("--")]
        wrong = unknown[0].partition("=")[0]
        near = nearest(wrong, flags) if wrong.startswith("-") else ""
        mine.error(f"nothing takes {wrong!r}{near}")
    return options


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """Every flag and positional name of one command, in order."""
    names: list[str] = []
    for action in parser._actions:
        if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            names += action.option_strings or [action.dest.upper()]
    return names


def commands_of(parser: argparse.ArgumentParser, prefix: str = "") -> dict[str, list[str]]:
    """The public list: every command with its flags."""
    found: dict[str, list[str]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                below = commands_of(child, f"{prefix}{name} ")
                found |= below or {f"{prefix}{name}": flags_of(child)}
    return found


def make_parser() -> Parser:
    parser = Parser(prog="wam", description=ABOUT, formatter_class=Help, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"wam {wamlab.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    adders = (
        _demo,
        _list,
        _collect,
        _data,
        _train,
        _eval,
        _probe,
        _imagine,
        _report,
        _compare,
        _export,
        _verify,
        _weights,
    )
    for add in adders:
        add(commands)
    return parser


class Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=98)


def _command(commands: Any, name: str) -> Parser:
    teach = COMMANDS[name]
    parser: Parser = commands.add_parser(
        name.rpartition(" ")[2],
        help=teach.short,
        description=teach.about,
        epilog=f"example:\n  {teach.example}",
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(run=name.replace(" ", "_"), parser=parser)
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file or module with models of yours, imported first",
    )
    group.add_argument(
        "--traceback",
        action="store_true",
        help="show where an error came from (WAMLAB_TRACEBACK=1)",
    )
    return parser


def _device(parser: Parser) -> None:
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where the model runs (default: auto)"
    )


def _seed(parser: Parser, what: str) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="S", help=f"{what} (default: 0)")


def _set(parser: Parser, what: str) -> None:
    parser.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"{what}; may be repeated",
    )


def _checkpoint(parser: Parser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run folder or a checkpoint")


def _env(parser: Parser, many: bool = True) -> None:
    about = "environments or suites" if many else "an environment"
    nargs = "+" if many else None
    parser.add_argument("--env", required=True, nargs=nargs, metavar="ENV", help=about)


def _out(parser: Parser, what: str, default: str | None = None, name: str = "DIR") -> None:
    about = f"{what} (default: {default})" if default else what
    parser.add_argument(
        "--out", required=default is None, default=default, metavar=name, help=about
    )


def _logs(parser: Parser) -> None:
    parser.add_argument("--out", metavar="DIR", help="where the logs go (default: CHECKPOINT)")


def _count(parser: Parser, flag: str, default: int | None, what: str) -> None:
    said = "the run's own" if default is None else default
    parser.add_argument(
        flag, type=positive, default=default, metavar="N", help=f"{what} (default: {said})"
    )


def natural(text: str) -> int:
    """A number of at least zero."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A count of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def minutes(text: str) -> float:
    """A duration above zero."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected minutes above 0, got {text!r}")
    return value


def _demo(commands: Any) -> None:
    parser = _command(commands, "demo")
    parser.add_argument("--quick", action="store_true", help="one task, a tiny model, two minutes")
    _out(parser, "where everything goes", "runs/demo")
    _seed(parser, "of training and sampling")
    _device(parser)


def _list(commands: Any) -> None:
    parser = _command(commands, "list")
    parser.add_argument(
        "what", nargs="?", choices=LISTS, metavar="list", help="models, envs, recipes or metrics"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _collect(commands: Any) -> None:
    parser = _command(commands, "collect")
    _env(parser)
    _count(parser, "--episodes", 40, "demonstrations of each environment")
    _out(parser, "the dataset's folder")
    parser.add_argument(
        "--start",
        type=natural,
        default=0,
        metavar="N",
        help="the first training start; they are tried in order (default: 0)",
    )


def _data(commands: Any) -> None:
    short = "what a dataset is, or what is wrong with it"
    parser = commands.add_parser("data", help=short, description=short)
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    inspect = _command(actions, "data inspect")
    inspect.add_argument("path", metavar="PATH", help="a dataset's folder")
    inspect.add_argument("--out", metavar="DIR", help="for the pictures (default: PATH-inspected)")
    check = _command(actions, "data check")
    check.add_argument("path", metavar="PATH", help="a dataset's folder")


def _train(commands: Any) -> None:
    parser = _command(commands, "train")
    parser.add_argument("recipe", metavar="RECIPE", help="PROTOCOL/MODEL, see: wam list recipes")
    parser.add_argument("--data", required=True, nargs="+", metavar="DIR", help="datasets")
    _out(parser, "the run's folder")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=minutes, metavar="M", help="train for about M minutes")
    budget.add_argument("--steps", type=positive, metavar="N", help="train exactly so many steps")
    _seed(parser, "random seed")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    _set(parser, "any field of the run, e.g. model.depth=4 or train.optim.lr=1e-3")
    _device(parser)


def _eval(commands: Any) -> None:
    parser = _command(commands, "eval")
    _checkpoint(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--env", nargs="+", metavar="ENV", help="environments or suites to act in")
    where.add_argument(
        "--dataset", metavar="DIR", help="a dataset whose recorded episodes are judged open loop"
    )
    _count(parser, "--episodes", None, "starts of each environment, or recorded episodes in all")
    _count(parser, "--states", None, "instants of each recorded episode, with --dataset")
    _seed(parser, "of the policy's draws")
    _logs(parser)
    _set(
        parser,
        "how to judge: rollout.* with --env, e.g. rollout.execute_steps=4; open_loop.*, "
        "data.alignment and data.resize with --dataset",
    )
    _device(parser)


def _probe(commands: Any) -> None:
    parser = _command(commands, "probe")
    _checkpoint(parser)
    _env(parser)
    _count(parser, "--states", None, "saved states of each environment")
    _count(parser, "--samples", None, "joint samples from each state")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="DIR",
        help="the datasets of training: the report then shows what needs no model (the last "
        "frame, their mean, their nearest clip) beside the imagined frames",
    )
    parser.add_argument(
        "--readers",
        metavar="DIR",
        help="read where everything is imagined, by the state readers of this folder; those that "
        "are not there are trained first (a minute or two an environment) and kept",
    )
    parser.add_argument(
        "--judge",
        metavar="CHECKPOINT",
        help="read the actions off everything imagined, by an inverse dynamics model that sees "
        "frames alone (the recipes' `inverse`)",
    )
    _seed(parser, "of states and samples")
    _logs(parser)
    _set(parser, "how to probe: probe.*, e.g. probe.imposed=zero,mirrored")
    _device(parser)


def _imagine(commands: Any) -> None:
    parser = _command(commands, "imagine")
    _checkpoint(parser)
    _env(parser, many=False)
    _seed(parser, "the evaluation start, and the draw")
    _out(parser, "a .gif or .mp4 file", name="FILE")
    _device(parser)


def _report(commands: Any) -> None:
    parser = _command(commands, "report")
    parser.add_argument("folder", metavar="DIR", help="a folder with logs in it")
    parser.add_argument(
        "--features",
        metavar="NAME[=FILE]",
        help="the network whose features are compared, e.g. DINOv2=dinov2-base (default: AlexNet)",
    )


def _compare(commands: Any) -> None:
    parser = _command(commands, "compare")
    parser.add_argument("folders", nargs="+", metavar="RUN", help="folders with logs in them")
    parser.add_argument("--out", metavar="FILE", help="an HTML page with tables and intervals")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _export(commands: Any) -> None:
    parser = _command(commands, "export")
    parser.add_argument("log", metavar="LOG", help="an .npz file below episodes/ or probes/")
    _out(parser, "a Rerun recording, .rrd", name="FILE")


def _verify(commands: Any) -> None:
    parser = _command(commands, "verify")
    parser.add_argument("path", metavar="PATH", help="a checkpoint, a run folder or a dataset")


def _weights(commands: Any) -> None:
    parser = _command(commands, "weights")
    parser.add_argument("name", nargs="?", metavar="NAME", help="which; without it all are listed")
    parser.add_argument(
        "--from", dest="source", metavar="FILE", help="the file itself, where no package has it"
    )
