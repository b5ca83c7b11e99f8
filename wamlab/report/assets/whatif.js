"use strict";
// Everything shown is a function of what is picked: state, action, view, frame.
const states = JSON.parse(document.getElementById("data").textContent).states;
const at = (id) => document.getElementById(id);
const ZOOM = 6;
const HOLD_MS = 800;
// Which edges of the pixel grid an outline keeps: all, two of four (dashed), every other (dotted).
const LIT = { good: () => true, bad: (place) => place % 4 < 2, none: (place) => place % 2 === 0 };
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const picked = { state: 0, action: 0, view: "", frame: 0 };
const images = new Map();
let playing = 0;
let turns = 0;

const state = () => states[picked.state];
const branch = () => state().branches[picked.action];
const scores = () => (picked.frame ? branch().scores[picked.view][picked.frame - 1] : []);

function element(tag, text, properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(text);
  return made;
}

function loaded(address) {
  if (!images.has(address)) {
    const image = new Image();
    image.src = address;
    images.set(address, image.decode().then(() => image));
  }
  return images.get(address);
}

function verdict(value) {
  if (typeof value !== "number") return "none";
  return value > 0 ? "good" : "bad";
}

function number(value) {
  return (Math.round(100 * value) / 100 + 0).toFixed(2).replace("-", "\u2212");
}

// The frames.

function draw(canvas, image, map, column) {
  const [height, width] = state().size[picked.view];
  canvas.width = ZOOM * width;
  canvas.height = ZOOM * height;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, column * width, 0, width, height, 0, 0, canvas.width, canvas.height);
  if (map && at("light").value) outline(pen, labels(map, column, width, height), width, height);
}

function labels(map, column, width, height) {
  const sheet = Object.assign(document.createElement("canvas"), { width, height });
  const pen = sheet.getContext("2d");
  pen.drawImage(map, -column * width, 0);
  return pen.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 0);
}

function outline(pen, label, width, height) {
  const style = getComputedStyle(document.documentElement);
  const colours = { good: "--good", bad: "--bad", none: "--quiet" };
  state().entities.forEach((_, index) => {
    const score = scores()[index];
    const lit = verdict(score && score[at("light").value]);
    const path = edges(label, index + 1, width, height, LIT[lit]);
    pen.lineCap = "square";
    const halo = lit === "none" ? [] : [[4.5, "#fff"]];
    for (const [line, colour] of [...halo, [2.5, style.getPropertyValue(colours[lit])]]) {
      pen.lineWidth = line;
      pen.strokeStyle = colour;
      pen.stroke(path);
    }
  });
}

function edges(label, own, width, height, kept) {
  const path = new Path2D();
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && label[y * width + x] === own;
  const line = (x0, y0, x1, y1) => {
    if (!kept(x0 + y0)) return;
    path.moveTo(ZOOM * x0, ZOOM * y0);
    path.lineTo(ZOOM * x1, ZOOM * y1);
  };
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      if (inside(x, y) !== inside(x - 1, y)) line(x, y, x, y + 1);
      if (inside(x, y) !== inside(x, y - 1)) line(x, y, x + 1, y);
    }
  }
  return path;
}

async function drawFrames() {
  const turn = ++turns;
  const { frame, view } = picked;
  const now = state().now[view];
  const marks = frame ? branch().marks[view] : state().marks[view];
  const column = Math.max(frame - 1, 0);
  const shown = branch().imagined[view];
  const blank = frame > 0 && !shown;
  at("imagined").hidden = blank;
  at("why").hidden = !blank;
  at("why").textContent = `Nothing to show: ${branch().why_not || "nothing was imagined in this view"}.`;
  at("imagined").setAttribute("aria-label", `Imagined, ${view} view, ${moment()}`);
  at("happened").setAttribute("aria-label", `Executed, ${view} view, ${moment()}`);
  const sheets = [frame ? shown : now, frame ? branch().happened[view] : now, marks];
  const [imagined, happened, map] = await Promise.all(sheets.map((one) => one && loaded(one)));
  // While these were decoded something else may have been picked, which draws itself.
  if (turn !== turns) return;
  if (!blank) draw(at("imagined"), imagined, map, column);
  draw(at("happened"), happened, map, column);
  document.body.dataset.drawn = [picked.state, picked.action, view, frame].join("/");
}

// The words.

function moment() {
  if (!picked.frame) return "now";
  return `after ${branch().offsets[picked.frame - 1]} of ${branch().steps} steps`;
}

function told(score) {
  return typeof score === "number" ? number(score) : "not measured";
}

function sentence() {
  const first = `${branch().label}, ${moment()}.`;
  if (!picked.frame) return `${first} Both frames are the saved state.`;
  const light = at("light").value || "others";
  const rival = light === "still" ? "Over a still picture" : "Over other actions";
  const each = state().entities.map((name, i) => `${name} ${told(scores()[i][light])}`);
  return `${first} ${rival}: ${each.join("; ")}.`;
}

function cell(value) {
  const made = document.createElement("td");
  if (typeof value !== "number") {
    made.append(element("span", value ?? "\u2013", { className: "quiet why" }));
    return made;
  }
  const meter = element("div", element("b", number(value)), { className: `meter lit-${verdict(value)}` });
  const end = 50 + 50 * Math.max(-1, Math.min(1, value));
  const bar = document.createElement("i");
  bar.style.setProperty("--from", `${Math.min(50, end)}%`);
  bar.style.setProperty("--wide", `${Math.abs(end - 50)}%`);
  bar.setAttribute("aria-hidden", "true");
  meter.append(bar);
  made.append(meter);
  return made;
}

function drawScores() {
  const rows = state().entities.map((name, i) => {
    const score = scores()[i] || {};
    const row = element("tr", element("th", name, { scope: "row" }));
    const moved = typeof score.moved === "number" ? `${score.moved.toFixed(0)} mm` : "\u2013";
    row.append(element("td", moved, { className: "num" }), cell(score.still), cell(score.others));
    return row;
  });
  at("rows").replaceChildren(...rows);
}

// Picking.

function press(group, buttons) {
  const line = element("div", "", { className: "line" });
  line.append(...buttons);
  at(group).replaceChildren(at(group).querySelector("legend"), line);
}

function choices(list, pressed, pick) {
  return list.map(({ title, small }, index) => {
    const button = element("button", title, { type: "button" });
    if (small) button.append(element("small", small));
    button.setAttribute("aria-pressed", String(index === pressed));
    button.addEventListener("click", () => {
      pick(index);
      show();
      [...button.parentNode.children].forEach((one) =>
        one.setAttribute("aria-pressed", String(one === button)));
    });
    return button;
  });
}

function offer() {
  const { branches, views } = state();
  at("state").value = String(picked.state);
  at("told").textContent = `Told: \u201c${state().instruction}\u201d`;
  const actions = branches.map((one) => ({ title: one.label, small: one.saying }));
  press("actions", choices(actions, picked.action, (index) => { picked.action = index; }));
  press("views", choices(views.map((title) => ({ title })), views.indexOf(picked.view), (index) => {
    picked.view = views[index];
  }));
  at("views").hidden = views.length < 2;
}

function enter(index) {
  const label = branch()?.label;
  picked.state = (index + states.length) % states.length;
  const { branches, views } = state();
  picked.action = Math.max(0, branches.findIndex((one) => one.label === label));
  if (!views.includes(picked.view)) picked.view = views[0];
  offer();
  show();
}

function show() {
  const last = branch().offsets.length;
  picked.frame = Math.min(picked.frame, last);
  Object.assign(at("frame"), { max: last, value: picked.frame });
  at("frame").setAttribute("aria-valuetext", moment());
  at("when").textContent = moment();
  at("solved").textContent = branch().solved ? "The task is done after all steps." : "The task is not done after all steps.";
  at("said").textContent = sentence();
  drawScores();
  drawFrames();
}

function go(frame) {
  picked.frame = Math.max(0, Math.min(branch().offsets.length, frame));
  show();
}

function play(on) {
  clearInterval(playing);
  // A reader is told where the frames stop, not every frame on the way.
  at("said").setAttribute("aria-live", on ? "off" : "polite");
  playing = on ? setInterval(() => go((picked.frame + 1) % (branch().offsets.length + 1)), HOLD_MS) : 0;
  at("play").textContent = on ? "Pause" : "Play";
}

const KEYS = {
  ArrowLeft: () => picked.frame - 1,
  ArrowRight: () => picked.frame + 1,
  Home: () => 0,
  End: () => Infinity,
};
addEventListener("keydown", (event) => {
  const busy = event.target.closest("select") || event.altKey || event.ctrlKey || event.metaKey;
  if (!busy && KEYS[event.key]) {
    event.preventDefault();
    play(false);
    go(KEYS[event.key]());
  }
});
at("frame").addEventListener("input", () => { play(false); go(Number(at("frame").value)); });
at("play").addEventListener("click", () => play(!playing));
at("state").addEventListener("change", () => enter(Number(at("state").value)));
at("before").addEventListener("click", () => enter(picked.state - 1));
at("after").addEventListener("click", () => enter(picked.state + 1));
at("light").addEventListener("change", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
calm.addEventListener("change", () => { play(false); at("play").hidden = calm.matches; });

states.forEach((one, index) => {
  const place = `start ${one.start}, step ${one.step}${one.stratum ? `, ${one.stratum}` : ""}`;
  at("state").append(element("option", `${one.env}: ${place}`, { value: String(index) }));
});
for (const id of ["choose", "stage", "scores"]) at(id).hidden = false;
at("play").hidden = calm.matches;
picked.frame = Infinity;
const asked = decodeURIComponent(location.hash.slice(1));
enter(Math.max(0, states.findIndex((one) => one.name === asked)));
