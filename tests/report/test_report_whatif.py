"""The what-if viewer: what it shows of the logs, and how it answers clicks and keys."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pusher
import pytest
from browser import Browser, driver
from PIL import Image

from wamlab.data.logs import save_probe
from wamlab.metrics.base import state_name
from wamlab.report import build as report
from wamlab.report import whatif
from wamlab.types import Probe


def forced(seed: int, fault: str = "oracle") -> Probe:
    """A probe whose imposed actions are imagined as well: with the block frozen or as it goes."""
    probe = pusher.probe(seed, fault, samples=2)
    for branch in probe.of("imposed"):
        start = [branch.entities[name][0, :2] for name in ("robot", "block")]
        frozen = [np.repeat(pusher.render(*start)[None], 2, axis=0)]
        seen = frozen[0] if fault == "static" else branch.happened["corner"].copy()
        branch.imagined = {"corner": seen}
    return probe


def views(probe: Probe) -> Probe:
    """The same state seen by two views, the second turned by half a turn."""
    half = lambda shots: shots[:, ::-1, ::-1].copy()  # noqa: E731
    for one in (probe, *probe.branches):
        one.masks |= {key.replace("corner", "turned"): half(m) for key, m in one.masks.items()}
    for frames in (probe.now, *(branch.happened for branch in probe.branches)):
        frames["turned"] = half(frames["corner"])
    for branch in probe.branches:
        if branch.imagined:
            branch.imagined["turned"] = half(branch.imagined["corner"])
    return probe


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("what-if")
    for seed in range(3):
        save_probe(folder, views(forced(seed)))
    report.build_viewer(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / whatif.NAME).read_text(encoding="utf-8")


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def decoded(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_the_page_asks_nobody_for_anything_but_the_report_beside_it(page):
    addresses = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert set(addresses) == {"#stage", "report.html"}
    assert not re.search(r"https?://|@import|url\(", page)
    assert len(page) < 400_000


def test_the_number_of_a_frame_that_plays_is_not_announced(page):
    """An output is announced whenever it changes, unless it says otherwise."""
    assert re.findall(r"<output [^>]*>", page) == ['<output id="when" for="frame" aria-live="off">']


def test_every_branch_is_there_with_its_frames_and_their_entities(folder, page):
    states = data_of(page)["states"]
    assert [one["name"] for one in states] == [f"toy/pusher/{seed}-0" for seed in range(3)]
    assert states[0]["entities"] == ["robot", "block", "background"]
    labels = [one["label"] for one in states[0]["branches"]]
    imposed = ["unchanged", "zero", "mirrored", "truncated", "half speed"]
    assert labels == ["own", "own, sample 1", *imposed]
    probe = views(forced(0))
    for shown, branch in zip(states[0]["branches"], probe.asked(), strict=True):
        assert shown["offsets"] == [8, 16]
        sheet = decoded(shown["happened"]["turned"]).astype(int)
        true = np.concatenate(list(branch.happened["turned"]), axis=1).astype(int)
        assert sheet.shape == true.shape
        assert np.abs(sheet - true).mean() < 4
        marks = decoded(shown["marks"]["corner"])
        np.testing.assert_array_equal(marks[:, 48:] == 2, branch.masks["corner/block"][1])
        assert marks.max() == 2


def test_frames_with_nan_are_refused_by_state_and_view(tmp_path):
    probe = forced(0)
    branch = probe.of("imposed")[0]
    branch.imagined = {"corner": np.full(branch.imagined["corner"].shape, np.nan)}
    bare = pusher.probe(1, samples=1)
    bare.masks, bare.branches[0].masks = {}, {}
    bare.branches[0].happened = {"corner": np.full((2, 48, 48, 3), np.inf)}
    for one, what in ((probe, "imagined"), (bare, "executed")):
        said = f"^{state_name(one)}: {what} frames of view 'corner' hold NaN or infinity$"
        save_probe(tmp_path / what, one)
        with pytest.raises(ValueError, match=said):
            report.build_viewer(tmp_path / what)


def test_scores_are_those_of_the_measure(page):
    probe = views(forced(0))
    mirrored = next(branch for branch in probe.branches if branch.label == "mirrored")
    shown = next(
        one for one in data_of(page)["states"][0]["branches"] if one["label"] == "mirrored"
    )
    for t, view in ((0, "corner"), (1, "turned")):
        expected = [
            one
            for one in whatif.sights(probe, mirrored)
            if (one.view, one.offset) == (view, mirrored.offsets[t])
        ]
        for score, sight in zip(shown["scores"][view][t], expected, strict=True):
            value = sight.over_still.value
            assert score["still"] == (
                sight.over_still.why_not if value is None else round(value, 3)
            )
            assert score["moved"] == (None if sight.moved is None else round(1000 * sight.moved, 1))


def test_states_are_the_wanted_ones_and_others_evenly():
    names = [f"toy/{i}" for i in range(100)]
    found = whatif.chosen(names, ["toy/7", "toy/99", "toy/gone"])
    assert len(found) == whatif.MOST
    assert {"toy/7", "toy/99", "toy/0"} <= found
    assert max(np.diff(sorted(int(name[4:]) for name in found))) < 10
    assert whatif.chosen(names[:5], ["toy/3"]) == set(names[:5])
    assert len(whatif.chosen(names, names)) == whatif.MOST


def test_a_model_without_forward_says_so_and_keeps_its_executions(tmp_path):
    probe = pusher.probe(0, samples=2)
    for branch in probe.of("imposed"):
        branch.why_not = "pusher does not answer FORWARD"
    save_probe(tmp_path, probe)
    made = report.build(tmp_path)
    page = (tmp_path / whatif.NAME).read_text(encoding="utf-8")
    said = "imagines nothing (pusher does not answer FORWARD), so they show what happened alone"
    assert said in page
    own, _, _, zero, *_ = data_of(page)["states"][0]["branches"]
    assert own["imagined"]["corner"].startswith("data:image/webp")
    assert zero["imagined"] == {}
    assert zero["happened"]["corner"].startswith("data:image/webp")
    assert zero["scores"]["corner"][0][0]["still"] == "nothing was imagined"
    assert zero["scores"]["corner"][0][0]["moved"] == 0
    assert f'href="{whatif.NAME}"' in made.read_text(encoding="utf-8")


def test_without_probes_there_is_no_viewer_and_no_link(tmp_path):
    (tmp_path / "loss.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    page = report.build(tmp_path).read_text(encoding="utf-8")
    assert not (tmp_path / whatif.NAME).exists()
    assert whatif.NAME not in page


def test_words_from_logs_cannot_become_markup(tmp_path):
    probe = forced(0)
    probe.instruction = "</script><script>alert(1)</script>"
    probe.asked()[-1].instruction = "<img src=x onerror=alert(1)> & more"
    save_probe(tmp_path, probe)
    report.build_viewer(tmp_path)
    page = (tmp_path / whatif.NAME).read_text(encoding="utf-8")
    assert "alert(1)</script>" not in page
    assert "<img" not in page
    state = data_of(page)["states"][0]
    assert state["instruction"] == probe.instruction
    assert state["branches"][-1]["saying"] == probe.asked()[-1].instruction


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with driver() as port:
        yield port


@pytest.fixture(scope="module")
def browser(port, folder, tmp_path_factory) -> Iterator[Browser]:
    window = Browser(port, tmp_path_factory.mktemp("profile"), "--window-size=1200,1500")
    yield window
    window.close()


@pytest.fixture
def opened(browser, folder) -> Browser:
    browser.call(f"{browser.session}/url", {"url": "about:blank"})
    browser.open(folder / whatif.NAME)
    browser.until('document.body.dataset.drawn === "0/0/corner/2"')
    browser.press("ArrowLeft")
    browser.until('document.body.dataset.drawn === "0/0/corner/1"')
    return browser


@pytest.mark.browser
def test_arrow_keys_go_through_the_frames_and_are_announced(opened):
    assert opened.text("#when") == "after 8 of 16 steps"
    opened.press("ArrowRight")
    opened.until('document.body.dataset.drawn === "0/0/corner/2"')
    assert opened.text("#said").startswith(
        "own, after 16 of 16 steps. Over other actions: robot 0."
    )
    assert opened.run('document.getElementById("said").getAttribute("aria-live")') == "polite"
    assert "corner view, after 16 of 16" in opened.run('happened.getAttribute("aria-label")')
    opened.press("ArrowRight")
    assert opened.text("#when") == "after 16 of 16 steps"
    opened.press("Home")
    opened.until('document.body.dataset.drawn === "0/0/corner/0"')
    assert opened.text("#said") == "own, now. Both frames are the saved state."
    opened.press("End", "ArrowLeft")
    opened.until('document.body.dataset.drawn === "0/0/corner/1"')


@pytest.mark.browser
def test_an_action_a_view_and_a_state_are_picked_by_clicks(opened):
    opened.click("#actions button:nth-of-type(5)")
    opened.until('document.body.dataset.drawn === "0/4/corner/1"')
    assert opened.text("#said").startswith("mirrored, after 8")
    pressed = opened.run(
        '[...actions.querySelectorAll("[aria-pressed=true]")].map((one) => one.firstChild.data)'
    )
    assert pressed == ["mirrored"]
    opened.click("#views button:nth-of-type(2)")
    opened.until('document.body.dataset.drawn === "0/4/turned/1"')
    opened.click("#after")
    opened.until('document.body.dataset.drawn === "1/4/turned/1"')
    assert "start 1" in opened.run("document.querySelector('#state option:checked').textContent")
    opened.click("#before")
    opened.click("#before")
    opened.until('document.body.dataset.drawn === "2/4/turned/1"')


@pytest.mark.browser
def test_a_frame_that_comes_late_is_not_shown_under_another_label(opened):
    """The pictures of one action are held back until another has been picked and drawn."""
    drawn = "at('imagined').toDataURL() + at('happened').toDataURL()"
    shown = opened.run(drawn)
    held = "states[0].branches[4].happened.corner"
    opened.run(f"(images.set({held}, new Promise((go) => {{ window.late = go; }})), 0)")
    opened.click("#actions button:nth-of-type(5)")
    assert opened.text("#said").startswith("mirrored")
    opened.click("#actions button:nth-of-type(1)")
    opened.until("document.body.dataset.drawn === '0/0/corner/1'")
    image = f"Object.assign(new Image(), {{ src: {held} }})"
    opened.run(f"((late) => late.decode().then(() => window.late(late)))({image})")
    opened.run("new Promise((go) => setTimeout(go, 50))")
    assert opened.run("document.body.dataset.drawn") == "0/0/corner/1"
    assert opened.run(drawn) == shown


@pytest.mark.browser
def test_what_is_drawn_is_the_frame_and_the_lit_outline(opened, page):
    assert opened.run("getComputedStyle(at('why')).display") == "none"
    opened.run("(at('light').value = '', at('light').dispatchEvent(new Event('change')))")
    pixel = "happened.getContext('2d').getImageData(6 * 24 + 3, 6 * 24 + 3, 1, 1).data.join()"
    sheet = decoded(data_of(page)["states"][0]["branches"][0]["happened"]["corner"])
    opened.until(f"{pixel}.startsWith('{','.join(map(str, sheet[24, 24]))}')")
    colours = "imagined.getContext('2d').getImageData(0, 0, 288, 288).data.buffer"
    inked = f"new Set(new Uint32Array({colours})).size"
    plain = opened.run(inked)
    opened.run("(at('light').value = 'still', at('light').dispatchEvent(new Event('change')))")
    opened.until(f"{inked} > {plain}")
    assert opened.text("#said").startswith("own, after 8 of 16 steps. Over a still picture: robot")


@pytest.mark.browser
def test_tab_visits_every_control_with_a_focus_that_can_be_seen(opened):
    visited = []
    for _ in range(20):
        opened.press("Tab")
        visited.append(
            opened.run(
                "document.activeElement.id || document.activeElement.parentNode.parentNode.id"
            )
        )
        if visited[-1] == "light":
            break
        if visited[-1] == "frame":
            assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    order = list(dict.fromkeys(visited))
    assert order[1:] == ["before", "state", "after", "actions", "views", "play", "frame", "light"]
    opened.run("document.querySelector('#actions button:nth-of-type(3)').focus()")
    opened.press("Enter")
    opened.until('document.body.dataset.drawn === "0/2/corner/1"')
    opened.press("ArrowRight")
    opened.until('document.body.dataset.drawn === "0/2/corner/2"')


@pytest.mark.browser
def test_play_runs_until_it_is_paused_and_says_nothing_on_the_way(opened):
    opened.click("#play")
    assert opened.text("#play") == "Pause"
    live = "document.querySelectorAll('output, [role=status], [aria-live]')"
    assert opened.run(f"[...{live}].every((one) => one.getAttribute('aria-live') === 'off')")
    opened.until('document.body.dataset.drawn === "0/0/corner/2"')
    opened.press("Home")
    assert opened.text("#play") == "Play"
    assert opened.run('said.getAttribute("aria-live")') == "polite"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])
def test_it_fits_and_follows_colours_and_calm(port, folder, tmp_path, width, scheme):
    flags = [f"--window-size={width},900", "--force-prefers-reduced-motion"]
    flags += ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] * (scheme == "dark")
    browser = Browser(port, tmp_path / "profile", *flags)
    try:
        browser.open(folder / whatif.NAME, "#toy/pusher/2-0")
        browser.until('document.body.dataset.drawn === "2/0/corner/2"')
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert browser.run("at('play').hidden")
        paper = {"light": "rgb(251, 250, 248)", "dark": "rgb(20, 23, 27)"}[scheme]
        assert browser.run("getComputedStyle(document.body).backgroundColor") == paper
        pixels = np.asarray(Image.open(io.BytesIO(browser.shot())).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
    finally:
        browser.close()
