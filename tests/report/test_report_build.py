from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pusher
import pytest
import recorded
import run_folder
from PIL import Image

from wamlab.data.logs import (
    LogError,
    save_episode,
    save_probe,
    save_reader_errors,
    save_recording,
    write_json,
)
from wamlab.metrics import offsets
from wamlab.metrics.base import NotApplicable, Result, _found, axis_of, find, metric, names
from wamlab.nn.weights import MissingWeights
from wamlab.report import build as report
from wamlab.report import words
from wamlab.report.axes import SHOWN
from wamlab.report.perceptual import measured
from wamlab.report.results import curves, results, write_results

MEASURE = """<script>addEventListener("load", () => {
  const broken = [...document.images].filter((image) => !image.naturalWidth);
  document.body.dataset.overflow = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.broken = broken.length;
  document.body.dataset.background = getComputedStyle(document.body).backgroundColor;
});</script></body>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = run_folder.write(tmp_path_factory.mktemp("run"), episodes=5, states=6)
    report.build(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine: the page is not opened")


def browse(chromium: str, profile: Path, page: Path, *options: str) -> str:
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", f"--user-data-dir={profile}"]
    command += ["--hide-scrollbars", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def text_of(page: str, tag: str) -> list[str]:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.depth, self.found = 0, []

        def handle_starttag(self, name, attributes):
            if name == tag:
                self.depth += 1
                self.found.append("")
            elif self.depth:
                self.found[-1] += " "

        def handle_endtag(self, name):
            self.depth -= name == tag

        def handle_data(self, data):
            if self.depth:
                self.found[-1] += data

    reader = Reader()
    reader.feed(page)
    return [" ".join(found.split()) for found in reader.found]


def test_the_page_is_one_file_that_asks_nobody_for_anything(page):
    assert page.lstrip().startswith("<!doctype html>")
    addresses = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert addresses
    elsewhere = {a for a in addresses if not a.startswith(("data:image/", "#"))}
    assert elsewhere == {"whatif.html"}
    assert not re.search(r"https?://|@import|url\(", page)


def test_every_picture_decodes_and_says_what_it_shows(page):
    pictures = set(re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", page))
    sizes = [Image.open(io.BytesIO(base64.b64decode(p))) for p in pictures]
    assert sum(getattr(picture, "n_frames", 1) > 1 for picture in sizes) >= 6
    assert all(re.search(r'alt="[^"]{10,}', image) for image in re.findall(r"<img [^>]*>", page))


def test_the_verdict_says_in_words_what_the_numbers_are(page, folder):
    found = json.loads((folder / "results.json").read_text())
    said = " ".join(text_of(page, "p"))
    rate = found["success"]["success_any"]["value"]
    assert f"pusher solves {100 * rate:.0f}\u00a0% of 15 episodes on 3 tasks" in said.replace(
        " %", "\u00a0%"
    )
    assert "points above the better blind replay" in said
    assert "EIC is 0." in said
    assert "for the objects it is 0." in said


def test_the_success_table_has_every_task_its_rows_and_intervals(page):
    rows = text_of(page, "tr")
    (row,) = [row for row in rows if row.startswith("toy/push-left")]
    assert "5/5 100 % 57 to 100" in row
    assert row.count("100 %") == 2
    assert "20 % 0 % +80" in row
    assert any(row.startswith("All tasks 15 episodes") for row in rows)


def test_rivals_measures_curves_and_facts_are_on_the_page(page):
    rows = " ".join(text_of(page, "tr"))
    for said in ("last frame", "dataset mean", "nearest clip", "corner +8 corner +16", "SKILL"):
        assert said in rows
    assert "0 is no coupling" in rows
    said = " ".join(text_of(page, "dd"))
    assert "wam demo --out runs/demo" in said
    assert "0 to 5" in said
    assert "the first 20 the newest 0" in said
    assert text_of(page, "summary") == ["model 13 values"]
    assert page.count('class="curve"') == 4
    assert page.count('class="strip"') == 10


def test_every_axis_has_its_section_and_every_registered_measure_a_row(page, folder):
    sections = re.findall(r'<section id="(\w+)">', page)
    axes = ["success", "fidelity", "physics", "plausibility", "coupling"]
    assert sections == [*axes, "pictures", "training", "made"]
    (links,) = re.findall(r'<nav aria-label="Sections">(.*?)</nav>', page, re.S)
    assert re.findall(r'href="#(\w+)">', links) == sections
    found = json.loads((folder / "results.json").read_text())["axes"]
    rows = text_of(page, "tr")
    for name in names():
        axis, needs = axis_of(name), find(name).needs
        if needs != "recordings" and name not in SHOWN:
            assert name in {shown.partition(",")[0] for shown in found[axis]}
            assert any(words.title(name) in row for row in rows), name


def test_a_measure_is_shown_with_interval_and_controls_or_why_it_is_not(page):
    rows = text_of(page, "tr")
    (last,) = [row for row in rows if row.startswith("success last")]
    assert re.search(r"The rate of episodes in which the last .* rate 0\.\d+ to 0?\.?\d+", last)
    (smooth,) = [row for row in rows if row.startswith("action smoothness")]
    assert re.search(r"\d to .*\d 15$", smooth)
    (alarms,) = [row for row in rows if "alarms" in row]
    assert alarms.startswith("Not applicable: ")
    for made_apart, script in (
        ("alarms", "acting_on_futures"),
        ("film success", "idm_turing"),
        ("imagination use", "imagination_use"),
    ):
        (row,) = [row for row in rows if row.endswith(made_apart)]
        assert f"(python benchmarks/{script}.py plays and measures it, docs/results.md" in row
    (unread,) = [row for row in rows if "a state reader has read 0 of" in row and "EIC" in row]
    assert unread.count("state EIC ref") == 1
    (steps,) = [row for row in rows if row.startswith("steps to success")]
    assert re.search(r"undefined: ", steps)


def test_a_new_measure_of_an_axis_stands_in_its_table_without_a_template(tmp_path, monkeypatch):
    """One with an interval, controls and a noise floor, and one that cannot be computed."""

    @metric("ghosts", needs="probes", unit="m")
    def ghosts(probes):
        """How far things move untouched. And what it does not say."""
        near = {"static": 0.0, "static_interval": (-0.5, 0.25), "oracle": 1.0, "by_lag": {1: 2.0}}
        return Result("ghosts", "m", 0.5, interval=(0.25, 0.75), n=3, floor=0.01, details=near)

    @metric("dreams", needs="probes")
    def dreams(probes):
        """Whether it dreams."""
        raise NotApplicable("no state was slept in")

    @metric("asked", needs="probes")
    def asked(probes, *, threshold):
        """What nobody can compute without being told more."""
        raise AssertionError

    for function, file in ((ghosts, "physics"), (dreams, "plausibility"), (asked, "physics_x")):
        function.__module__ = f"wamlab.metrics.{file}"
    registered = {one.metric_name: one for one in (ghosts, dreams, asked)}
    monkeypatch.setattr("wamlab.metrics.base._found", lambda: {**_found(), **registered})
    save_probe(tmp_path, pusher.probe(0, samples=2))
    page = report.build(tmp_path).read_text(encoding="utf-8")
    physics, rest = page.split('<section id="physics">')[1].split('<section id="plausibility">')
    (row,) = [row for row in text_of(physics, "tr") if row.startswith("ghosts")]
    assert row == (
        "ghosts How far things move untouched. And what it does not say 0.5 m 0.25 to 0.75 "
        "noise floor 0.01 static 0 (\u22120.5 to 0.25) oracle 1 3"
    )
    (row,) = [row for row in text_of(rest, "tr") if "dreams" in row]
    assert row == "Not applicable: no state was slept in. dreams"
    assert "asked" not in text_of(physics, "th")


def test_worst_and_random_states_are_a_function_of_the_logs(folder):
    first, second = write_results(folder), write_results(folder)
    assert first == second
    worst = first["pictures"]["worst"]
    items = first["fidelity"]["moving_psnr"]["items"]
    assert worst == sorted(items, key=items.get)[:5]
    assert len(first["pictures"]["random"]) == 5
    assert json.loads((folder / "results.json").read_text()) == first


def test_rates_say_by_which_rule_their_episodes_were_chosen(folder):
    success = results(folder)["success"]
    rules = {"starts": "the first 20", "checkpoint": "the newest", "seeds": "0"}
    rates = ("success_any", "success_last", "success_at_reset", "success_over_blind")
    assert {name: success[name]["details"]["chosen"] for name in rates} == dict.fromkeys(
        rates, rules
    )


def test_what_is_compared_is_looked_at_where_models_are_compared_alone(folder, monkeypatch):
    """As if all were compared at 16 alone: every measure of the future is of that offset."""
    whole = results(folder)
    monkeypatch.setattr(offsets, "COMMON", (16,))
    found = results(folder, compared=True)
    moving = whole["fidelity"]["moving_psnr"]["parts"]["corner@16"]["value"]
    assert found["fidelity"]["moving_psnr"]["value"] == pytest.approx(moving)
    assert found["rivals"]["last frame"]["details"]["model"] == pytest.approx(moving)
    assert {part.partition("@")[2][:2] for part in found["joint"]["robot"]["eic"]["parts"]} <= {
        "16"
    }
    assert results(folder) == whole


def test_what_a_joint_measure_of_pixels_is_read_against_stands_beside_it(page):
    told = ["static", "shuffled action", "wrong world (gain 0.7)", "oracle", "normalised"]
    told += ["corner, over offsets 8: "]
    rows = [row for row in text_of(page, "tr") if row.startswith(("EIC own", "SKILL how"))]
    assert len(rows) == 4
    for row in rows:
        places = [row.index(name) for name in told]
        assert places == sorted(places)


def test_the_least_of_the_normalised_joint_measures_stands_below_their_tables(page, folder):
    found = json.loads((folder / "results.json").read_text())["joint"]
    shares = {
        f"{words.title(name)}, {entity} (pixels)": share
        for entity, measures in found.items()
        for name, one in measures.items()
        if (share := one["details"].get("normalised")) is not None
    }
    least = min(shares, key=shares.get)
    (said,) = [line for line in text_of(page, "p") if line.startswith("Normalised, 0 is")]
    assert said.endswith(f"{len(shares)} in all, is {words.number(shares[least])}: {least}.")


def test_the_report_is_rebuilt_byte_for_byte_from_the_logs(folder, page):
    (folder / "report.html").unlink()
    (folder / "results.json").unlink()
    assert report.build(folder).read_text(encoding="utf-8") == page


@pytest.mark.parametrize("size", ["1280,900", "390,800"])
def test_chromium_shows_recorded_episodes_without_overflow(chromium, replayed, tmp_path, size):
    page = (replayed / "report.html").read_text(encoding="utf-8")
    probe = tmp_path / "measured.html"
    probe.write_text(page.replace("</body>", MEASURE), encoding="utf-8")
    options = (f"--window-size={size}", "--virtual-time-budget=3000", "--dump-dom")
    (body,) = re.findall(r"<body[^>]*>", browse(chromium, tmp_path / "profile", probe, *options))
    assert 'data-overflow="0"' in body
    assert 'data-broken="0"' in body


@pytest.mark.parametrize("size", ["1280,900", "390,800"])
def test_chromium_shows_it_without_overflow_or_broken_pictures(chromium, folder, tmp_path, size):
    page = (folder / "report.html").read_text(encoding="utf-8")
    probe = tmp_path / "measured.html"
    probe.write_text(page.replace("</body>", MEASURE), encoding="utf-8")
    options = (f"--window-size={size}", "--virtual-time-budget=3000", "--dump-dom")
    dom = browse(chromium, tmp_path / "profile", probe, *options)
    (body,) = re.findall(r"<body[^>]*>", dom)
    assert 'data-overflow="0"' in body
    assert 'data-broken="0"' in body
    assert "rgb(251, 250, 248)" in body
    assert text_of(dom, "h1") == ["pusher"]
    (button,) = re.findall(r'<button[^>]*id="motion"[^>]*>', dom)
    assert "hidden" not in button


def test_chromium_draws_it(chromium, folder, tmp_path):
    shot = tmp_path / "shot.png"
    options = ("--window-size=1280,2400", f"--screenshot={shot}")
    browse(chromium, tmp_path / "profile", folder / "report.html", *options)
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape == (2400, 1280, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_a_run_that_only_trained_says_what_is_missing(tmp_path):
    (tmp_path / "loss.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    page = report.build(tmp_path).read_text(encoding="utf-8")
    for said in ("there are no episodes", "there are no probes", "No run.json", "Nothing to show"):
        assert said in page


def test_a_model_that_imagines_nothing_is_not_given_a_number(tmp_path):
    probe = pusher.probe(0)
    for branch in probe.branches:
        branch.imagined, branch.why_not = None, "the future is in feature space"
    save_probe(tmp_path, probe)
    save_episode(tmp_path, pusher.episode(0))
    page = report.build(tmp_path).read_text(encoding="utf-8")
    assert page.count("the future is in feature space") >= 7
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["fidelity"]["moving_psnr"]["value"] is None
    assert found["success"]["success_over_blind"]["why_not"]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory) -> Path:
    """A folder that holds recordings alone."""
    folder = tmp_path_factory.mktemp("recorded")
    for one in recorded.recordings():
        save_recording(folder, one)
    report.build(folder)
    return folder


def test_recorded_episodes_have_a_section_and_nothing_is_said_of_success(replayed):
    page = (replayed / "report.html").read_text(encoding="utf-8")
    said = " ".join(text_of(page, "p"))
    assert "Asked at 10 instants of 5 episodes. The run held these episodes out" in said
    assert "0.25 normalised units away from the recorded ones, 0.50 nearer" in said
    assert "Nothing was executed, so nothing is said about success" in said
    rows = " ".join(text_of(page, "tr"))
    for row in ("POLICY its own action", "dx pixel 0.500", "slide 0.250", "episode 3 0.375"):
        assert row in rows
    assert "Not applicable: no action of INVERSE was logged; it takes no frames" in rows
    assert "Nats per dimension" in rows
    assert page.count("imagined above recorded") == 4
    for kind in ("own", "static", "oracle"):
        assert f'<polyline class="{kind}"' in page


def test_a_folder_with_everything_shows_recorded_episodes_too(folder, tmp_path):
    whole = shutil.copytree(folder, tmp_path / "whole")
    for one in recorded.recordings(3, origin="training"):
        save_recording(whole, one)
    page = report.build(whole).read_text(encoding="utf-8")
    assert "pusher and slider solves" in page
    assert "may have been trained on these episodes" in page
    assert "Nothing was executed" not in page


def test_recordings_without_frames_or_likelihoods_are_not_given_numbers(tmp_path):
    for one in recorded.recordings(2):
        one.guesses = {"POLICY": one.guesses["POLICY"]}
        one.likelihood = {}
        save_recording(tmp_path, one)
    page = report.build(tmp_path).read_text(encoding="utf-8")
    assert "The model imagines nothing." in page
    assert "Nats per dimension" not in page


def test_what_future_and_action_know_of_each_other_is_said_in_nats(tmp_path):
    """Given the future the action's errors are half as large; the future gains nothing."""
    for one in recorded.recordings(2):
        alone = one.likelihood["POLICY"]
        knowing = dataclasses.replace(alone, errors=alone.errors / 2)
        one.likelihood |= {"VIDEO": alone, "INVERSE": knowing}
        one.guesses["INVERSE"] = one.guesses["POLICY"]
        save_recording(tmp_path, one)
    page = report.build(tmp_path).read_text(encoding="utf-8")
    (said,) = [words for words in text_of(page, "p") if "Of each other" in words]
    found = json.loads((tmp_path / "results.json").read_text())["recorded"]
    value = found["coupling"]["action"]["value"]
    assert value > 1
    assert f"know {value:.1f} nats" in said
    assert "0.0 nats" in said
    assert f"factorisation gap, +{value:.1f}" in said
    assert "()" not in said  # two episodes carry no interval


def test_how_exact_the_state_readers_are_stands_with_what_they_saw(tmp_path):
    save_probe(tmp_path, dataclasses.replace(pusher.probe(0, samples=1), reader="toy, pixels"))
    error = {"robot": 0.0061, "success": 0.02, "state": 0.054}
    save_reader_errors(tmp_path, {"toy, pixels": error, "of nobody here": error})
    assert results(tmp_path)["readers"] == {"toy, pixels": error}
    page = report.build(tmp_path).read_text(encoding="utf-8")
    (said,) = [line for line in text_of(page, "p") if line.startswith("Where things are")]
    assert said.endswith(
        "toy, pixels: robot 6.1 mm, success 2.0 % and state 0.05 standard deviations."
    )


def test_one_state_has_values_without_intervals(tmp_path):
    save_probe(tmp_path, pusher.probe(0, samples=2))
    found = json.loads((report.build(tmp_path).parent / "results.json").read_text())
    assert found["joint"]["robot"]["eic"]["value"] > 0.9
    assert found["joint"]["robot"]["eic"]["interval"] is None


def test_words_from_logs_cannot_become_markup(tmp_path):
    odd = dataclasses.replace(pusher.probe(0), instruction="<script>alert(1)</script>")
    save_probe(tmp_path, odd)
    write_json(tmp_path / "run.json", {"command": "<b>bold</b>"})
    page = report.build(tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<b>bold" not in page


def test_a_folder_without_logs_and_bad_blind_rows_are_named(tmp_path):
    with pytest.raises(LogError, match=r"holds no logs: .* no loss\.jsonl$"):
        report.build(tmp_path)
    save_episode(tmp_path / "uwm", pusher.episode(0))
    with pytest.raises(LogError, match=f"; did you mean {tmp_path / 'uwm'}\\?"):
        report.build(tmp_path)
    save_episode(tmp_path, pusher.episode(0))
    write_json(tmp_path / "blind.json", {"toy/pusher": {"mean replay": 0.2}})
    with pytest.raises(LogError, match=r"blind\.json: expected"):
        report.build(tmp_path)


def test_curves_are_thinned_and_what_is_no_number_is_left_out():
    records = [{"step": i, "stage": "joint", "loss": float(i), "nan": np.nan} for i in range(4000)]
    found = curves(records)
    assert list(found) == ["loss"]
    assert len(found["loss"]) == 400
    assert found["loss"][0] == [4.5, 4.5]


def test_what_frozen_networks_see_is_told_or_which_command_gets_them(page, folder):
    found = json.loads((folder / "results.json").read_text())["perceptual"]
    assert {result["value"] for result in found.values()} == {None}
    said = " ".join(text_of(page, "p"))
    assert said.count("then: wam weights lpips-alex") == 1
    assert "BSD-2-Clause" in said


@pytest.mark.slow
def test_lpips_and_features_stand_beside_the_last_frame(published, tmp_path):
    published("lpips-alex")
    for seed in range(4):
        save_probe(tmp_path, pusher.probe(seed, samples=2, noise=4.0))
    page = report.build(tmp_path).read_text(encoding="utf-8")
    found = json.loads((tmp_path / "results.json").read_text())["perceptual"]
    rows = {row.split(" ")[0]: row for row in text_of(page, "tr")}
    for result in found.values():
        value, last = (f"{one:.3f}" for one in (result["value"], result["details"]["last frame"]))
        row = rows[result["metric"]].replace("\N{MINUS SIGN}", "-")
        assert value in row
        assert last in row
    assert found["lpips"]["value"] < found["lpips"]["details"]["last frame"] / 2
    assert "N = 16 and 16, D = 256, 4 states" in rows["FD-AlexNet"]
    said = " ".join(text_of(page, "p"))
    assert "Frames of 48 x 48 pixels, not resized." in said
    assert "FD-AlexNet: 4 states are not above D: the covariance is singular, 1280 wanted." in said


def test_features_that_cannot_be_had_are_an_error_when_they_are_asked_for(tmp_path):
    (tmp_path / "odd.pt").write_text("no archive")
    with pytest.raises(MissingWeights, match="no package ships DINOv2"):
        measured([], "DINOv2")
    with pytest.raises(KeyError, match="no extractor 'AlexNett'; did you mean 'AlexNet'"):
        measured([], "AlexNett")
    with pytest.raises(ValueError, match="is no TorchScript archive"):
        measured([], f"SSCD={tmp_path / 'odd.pt'}")
    assert {one.why_not for one in measured([]).values()} == {"there are no probes"}
