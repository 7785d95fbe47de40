"""The page that `comodulate serve` shows: one file with its style and script, which loads nothing but the server's own API.

Everything that the slider shows comes with one request per image and task; the script draws and computes nothing of the network.
"""

from __future__ import annotations

import base64
import hashlib

from .report.page import PALETTE


def page() -> str:
    """The page as HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n<title>comodulation</title>\n'
        f"<style>{_style()}</style>\n</head>\n<body>\n{_BODY}\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def page_policy() -> str:
    """The Content-Security-Policy it is served with: its own script and style by their hashes, and the server's own API."""
    return (
        f"default-src 'none'; script-src '{_hash(_SCRIPT)}'; style-src '{_hash(_style())}'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _style() -> str:
    both = "".join(f" --{name}: light-dark({light}, {dark});" for name, (light, dark) in PALETTE.items())
    return f":root {{ color-scheme: light dark;{both} }}{_STYLE}"


_BODY = """
<header><button id="theme" type="button">Light / dark</button>
<h1 id="title">comodulation</h1><p id="subtitle" class="soft"></p></header>
<p id="error" role="alert" hidden></p>
<main>
<section id="given" aria-label="Image and tasks">
<label id="drop" for="file"><img id="preview" alt="The image given" hidden>
<span id="invitation"><strong>Drop an image here</strong> <br>or choose a file</span></label>
<input id="file" type="file" accept="image/png,image/jpeg,image/webp,image/gif,image/bmp,image/tiff" aria-label="Choose an image">
<div id="answers" hidden><h2>All tasks at once</h2><p id="calibration" class="soft small"></p>
<p id="belonging" class="soft small"></p>
<ul id="tasks"></ul></div>
</section>
<section id="mechanism" aria-labelledby="task" hidden>
<h2 id="task"></h2><p id="task-note" class="soft small"></p>
<div id="control" hidden><div class="row"><label for="slider">Modulator</label><output id="value" for="slider"></output>
<button id="reset" type="button">Back to 0</button></div>
<input id="slider" type="range" list="marks" aria-describedby="slider-note">
<datalist id="marks"></datalist><div class="scale small soft" aria-hidden="true"></div></div>
<p id="slider-note" class="soft small"></p>
<div id="bars-box"><h3>Answer<span id="answer-at"></span></h3><ul id="bars"></ul><p id="bars-note" class="soft small"></p></div>
<div id="charts"></div>
<p id="nothing" class="soft" hidden>This method multiplies no activity by a gain: nothing of its mechanism can be shown here.</p>
</section>
<p id="waiting" class="soft">Choose an image to see the answers to all tasks, and a task to see how its answer comes about.</p>
</main>
<p id="status" class="skip" role="status"></p>
"""

_STYLE = """
:root[data-theme=light] { color-scheme: light; }
:root[data-theme=dark] { color-scheme: dark; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0 auto; max-width: 76rem; padding: 2.5rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.5rem, 1.2rem + 1.5vw, 2.1rem); line-height: 1.2; letter-spacing: -.02em; margin: 0; }
h2 { font-size: 1.25rem; line-height: 1.25; letter-spacing: -.01em; margin: 0 0 .5rem; }
h3 { font-size: 1rem; line-height: 1.3; margin: 0 0 .4rem; }
h3 span { font-weight: 400; color: var(--soft); }
p { margin: 0 0 .75rem; } ul { list-style: none; margin: 0; padding: 0; }
.soft { color: var(--soft); } .small { font-size: .8125rem; line-height: 1.45; }
.skip { position: absolute; left: -100vw; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
button { font: inherit; color: inherit; background: none; border: 1px solid var(--line); border-radius: 99px; cursor: pointer;
  padding: .25rem .8rem; font-size: .8125rem; color: var(--soft); }
button:hover { color: var(--ink); border-color: var(--soft); }
#theme { float: right; margin: 0 0 .5rem 1rem; }
#error { margin: 1rem 0 0; padding: .7rem 1rem; border-left: 4px solid var(--fails); background: var(--card); border-radius: 4px; }
main { display: grid; grid-template-columns: minmax(0, 21rem) minmax(0, 1fr); gap: 2.5rem; margin-top: 1.75rem;
  align-items: start; }
#drop { display: grid; place-items: center; min-height: 12rem; padding: .75rem; border: 2px dashed var(--line); border-radius: 12px;
  background: var(--card); text-align: center; cursor: pointer; color: var(--soft); gap: .5rem; }
#drop strong { color: var(--ink); }
#drop:hover, .over #drop { border-color: var(--link); }
#preview { max-width: 100%; max-height: 15rem; min-height: 8rem; border-radius: 6px; object-fit: contain; image-orientation: none; }
#preview:not([hidden]) + #invitation { font-size: .8125rem; } #preview:not([hidden]) + #invitation br { display: none; }
#file { position: absolute; opacity: 0; width: 1px; height: 1px; }
#file:focus-visible + *, #given:has(#file:focus-visible) #drop { outline: 2px solid var(--link); outline-offset: 2px; }
#answers { margin-top: 1.5rem; }
#tasks { max-height: 60rem; overflow-y: auto; margin: 0 -.5rem; padding: .2rem .2rem; }
#tasks button { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 0 .75rem; width: 100%; text-align: left; border: 0;
  border-radius: 8px; padding: .4rem .6rem .5rem; font-size: .9375rem; color: var(--ink); line-height: 1.35; }
#tasks button:hover { background: var(--card); }
#tasks button[aria-pressed=true] { background: var(--card); box-shadow: inset 3px 0 var(--link); }
#tasks .name { grid-column: 1 / -1; font-size: .8125rem; color: var(--soft); }
.track { position: relative; display: block; height: .375rem; border-radius: 99px; background: var(--line); grid-column: 1 / -1;
  margin-top: .2rem; }
.fill { position: absolute; inset: 0 auto 0 0; border-radius: 99px; background: var(--holds); }
.percent { font-variant-numeric: tabular-nums; white-space: nowrap; }
#control { position: sticky; top: 0; z-index: 2; background: var(--paper); padding: .5rem 0 .25rem;
  border-bottom: 1px solid var(--line); }
#control .row { display: flex; align-items: baseline; gap: .75rem; } #control label { font-weight: 600; }
#control output { font-variant-numeric: tabular-nums; flex: 1; }
#slider { width: 100%; margin: .4rem 0 0; accent-color: var(--link); }
.scale { position: relative; height: 1.3rem; margin: 0 .5rem; }
.scale span { position: absolute; translate: -50%; white-space: nowrap; }
#slider-note { margin: .75rem 0 1.25rem; }
#bars { display: grid; gap: .45rem; }
#bars li { display: grid; grid-template-columns: minmax(5rem, 10rem) minmax(0, 1fr) 3.6rem; gap: .75rem; align-items: center; }
#bars .track { grid-column: auto; margin: 0; height: .8rem; border-radius: 4px; } #bars .fill { border-radius: 4px; }
#bars .percent { text-align: right; }
#bars .tick { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: var(--ink); translate: -1px; }
#bars-note { margin-top: .5rem; }
.chart { margin: 1.75rem 0 0; } .chart h3 { margin-bottom: .2rem; }
.plot { position: relative; height: 7rem; margin: .4rem 0 .3rem; background: var(--card); border-radius: 6px; overflow: hidden; }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.plot b { position: absolute; left: .4rem; font-weight: 400; font-size: .75rem; color: var(--ink);
  font-variant-numeric: tabular-nums; background: color-mix(in srgb, var(--card) 80%, transparent);
  padding: 0 .2rem; border-radius: 3px; }
.plot .top { top: .15rem; } .plot .bottom { bottom: .15rem; }
.up { fill: var(--holds); } .down { fill: var(--fails); }
.rule { stroke: var(--soft); stroke-width: 1; vector-effect: non-scaling-stroke; fill: none; }
.curve { stroke: var(--holds); stroke-width: 2; vector-effect: non-scaling-stroke; fill: none; }
.now { stroke: var(--ink); stroke-width: 1; vector-effect: non-scaling-stroke; fill: none; }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .9rem 1rem; margin-top: .6rem; }
.many .plot { height: 4.2rem; margin: .2rem 0 0; } .many p { margin: 0; font-size: .8125rem; line-height: 1.35; }
.dot { position: absolute; width: .5rem; height: .5rem; margin: -.25rem; border-radius: 50%; background: var(--ink); }
#waiting { align-self: center; }
@media (max-width: 52rem) {
  body { padding: 1.5rem 1.1rem 3rem; } main { grid-template-columns: minmax(0, 1fr); gap: 1.75rem; }
  #drop { min-height: 9rem; } #tasks { max-height: 17rem; }
  #control .row { gap: .5rem; } #control output, #control button { font-size: .8125rem; }
  #bars li { grid-template-columns: minmax(4rem, 7rem) minmax(0, 1fr) 3.4rem; gap: .5rem; }
}
"""

_SCRIPT = r"""
"use strict";
const $ = id => document.getElementById(id), root = document.documentElement;
const state = { run: null, image: null, task: null, answers: null, seen: null, asked: 0 };
const percent = p => p > .9995 ? "100%" : (100 * p).toFixed(1) + "%";
const signed = (x, digits = 2) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);
const times = x => "×" + (x >= 100 ? x.toFixed(0) : x >= .1 || x === 0 ? x.toFixed(2) : x.toPrecision(1));
const mebibytes = bytes => Math.round(bytes / 2 ** 20);
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const draw = (tag, name, d) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  if (name) node.setAttribute("class", name);
  if (d !== undefined) node.setAttribute("d", d);
  return node;
};

$("theme").addEventListener("click", () => {
  const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});

function complain(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

async function ask(path, body) {
  let answer, value;
  try {
    answer = await fetch(path, body ? { method: "POST", body } : {});
    value = await answer.json();
  } catch {
    throw new Error("The server does not answer; it may have been stopped.");
  }
  if (!answer.ok) throw new Error(value.error || "The server refused the request.");
  return value;
}

async function start() {
  const run = state.run = await ask("/api/run"), m = run.metrics;
  $("title").textContent = `${run.method}, ${run.tasks.length} ${run.tasks.length === 1 ? "task" : "tasks"}`;
  document.title = $("title").textContent;
  $("subtitle").textContent = `Behind ${run.backbone}. On ${m.count.toLocaleString("en")} ${m.split} predictions: `
    + `accuracy ${percent(m.accuracy)}, expected calibration error ${percent(m.ece)}.`;
  $("calibration").textContent = run.temperature === null
    ? "Confidence as the network gives it, not temperature-scaled: this run stores no validation temperature."
    : `Confidence scaled by the temperature ${run.temperature.toFixed(2)}, fitted on validation images.`;
  $("belonging").textContent = run.kind !== "classes" ? ""
    : "Every task is asked, also those that the image does not belong to; confidence means something for those it does.";
}

// ---- the image and its answers ----

async function take(file) {
  if (!file || !state.run) return;
  const order = ++state.asked;
  complain("");
  try {
    if (file.size > state.run.limits.bytes)
      throw new Error(`This file has ${mebibytes(file.size)} MiB; ${mebibytes(state.run.limits.bytes)} MiB is the limit.`);
    $("status").textContent = "Asking the network";
    const found = await ask("/api/predict", file);
    if (order !== state.asked) return;
    state.image = file;
    if ($("preview").src) URL.revokeObjectURL($("preview").src);
    $("preview").src = URL.createObjectURL(file);
    $("preview").hidden = false;
    $("invitation").firstElementChild.textContent = "Drop another image";
    state.answers = found.tasks;
    listTasks();
    $("waiting").hidden = true;
    const names = [...$("tasks").querySelectorAll("button")].map(button => button.value);
    await look(names.includes(state.task) ? state.task : names[0]);
  } catch (error) {
    if (order === state.asked) { complain(error.message); $("status").textContent = ""; }
  }
}

function listTasks() {
  const sorted = Object.entries(state.answers).sort((a, b) => b[1].confidence - a[1].confidence);
  $("tasks").replaceChildren(...sorted.map(([name, answer]) => {
    const item = make("li"), button = make("button"), track = make("span", "track"), fill = make("span", "fill");
    button.type = "button";
    button.value = name;
    fill.style.width = 100 * answer.confidence + "%";
    track.append(fill);
    button.append(make("span", "name", name), make("span", "said", answer.prediction),
      make("span", "percent", percent(answer.confidence)), track);
    button.addEventListener("click", () => look(name));
    item.append(button);
    return item;
  }));
  $("answers").hidden = false;
}

// ---- one task ----

async function look(task) {
  const order = ++state.asked;
  state.task = task;
  for (const button of $("tasks").querySelectorAll("button")) button.ariaPressed = String(button.value === task);
  try {
    const seen = await ask("/api/mechanism?" + new URLSearchParams({ task }), state.image);
    if (order !== state.asked) return;
    complain("");
    state.seen = seen;
    build();
    $("mechanism").hidden = false;
    $("status").textContent = `${task}: ${seen.answer.prediction}, ${percent(seen.answer.confidence)}`;
  } catch (error) {
    if (order === state.asked) complain(error.message);
  }
}

function build() {
  const seen = state.seen, m = seen.modulator;
  $("task").textContent = seen.task;
  const known = state.run.tasks.find(task => task.name === seen.task), accuracy = known.accuracy;
  $("task-note").textContent = (state.run.kind === "binary" ? "Yes or no" : "Among " + known.classes.join(", "))
    + (accuracy === null ? "." : `; ${state.run.metrics.split} accuracy ${percent(accuracy)}.`);
  $("charts").replaceChildren();
  $("control").hidden = $("slider-note").hidden = m === null;
  $("answer-at").textContent = m === null ? "" : " under this value of the modulator";
  const rows = m === null ? Object.keys(seen.answer.probabilities).slice(0, 6) : m.outputs;
  $("bars").replaceChildren(...rows.map((name, place) => {
    const item = make("li"), track = make("span", "track"), fill = make("span", "fill");
    track.append(fill);
    if (m !== null) {
      const tick = make("span", "tick");
      tick.style.left = 100 * m.answer[place] + "%";
      track.append(tick);
    }
    item.append(make("span", "said", name), track, make("span", "percent"));
    return item;
  }));
  if (m !== null) buildModulator(m, seen);
  else {
    rows.forEach((name, place) => setBar(place, seen.answer.probabilities[name]));
    $("bars-note").textContent = rows.includes(seen.answer.prediction) ? ""
      : `The network's answer is “${seen.answer.prediction}” (${percent(seen.answer.confidence)}), which is not of this task.`;
    if (seen.encoder_gains) gainChart("encoder-gains", "Encoder gains", seen.encoder_gains);
  }
  if (seen.decoder_gains) gainChart("decoder-gains", "Decoder gains", seen.decoder_gains);
  $("nothing").hidden = !(m === null && !seen.encoder_gains && !seen.decoder_gains);
  update();
}

function setBar(place, p) {
  const item = $("bars").children[place];
  item.querySelector(".fill").style.width = 100 * p + "%";
  item.querySelector(".percent").textContent = percent(p);
}

function buildModulator(m, seen) {
  const slider = $("slider"), last = m.deviations.length - 1, middle = m.deviations.indexOf(0);
  const before = slider.max === String(last) ? slider.value : middle;
  Object.assign(slider, { min: 0, max: last, step: 1 });
  slider.value = before;
  const whole = m.deviations.filter(Number.isInteger);
  document.querySelector(".scale").replaceChildren(...whole.map(z => {
    const label = make("span", "", z ? signed(z, 0) + "σ" : "0");
    label.style.left = 100 * m.deviations.indexOf(z) / last + "%";
    return label;
  }));
  $("marks").replaceChildren(...whole.map(z => Object.assign(make("option"), { value: m.deviations.indexOf(z) })));
  const average = state.run.modulator.encoder === "stochastic";
  $("slider-note").textContent = `The modulator fluctuates with standard deviation σ = ${m.sigma}. Here it is held at one value. `
    + (average ? "A prediction is the mean over its samples." : "A prediction of the run is made without the fluctuation.");
  $("bars-note").textContent = "The line marks the run's prediction"
    + (average ? ", the mean over the modulator's samples." : ", without the fluctuation.");
  m.order = m.coupling.map((_, n) => n).sort((a, b) => m.coupling[b] - m.coupling[a] || a - b);
  m.widest = Math.max(...m.factors.map(row => Math.max(...row.map(f => Math.abs(Math.log(f))))), .01);
  const largest = Math.max(...m.coupling.map(Math.abs), 1e-9);
  const couplings = chart("coupling", "Encoder couplings w",
    `One bar per encoder neuron, sorted; ${m.coupling.length} neurons. The task sets them.`);
  plot(couplings, m.order.map(n => m.coupling[n] / largest), [signed(largest), signed(-largest)]);
  const factors = chart("factors", "Encoder factors exp(m w − σ²w²/2)",
    "The same neurons in the same order: what the modulator, at this value, multiplies each one's activity by (logarithmic).");
  plot(factors, [], [times(Math.exp(m.widest)), times(Math.exp(-m.widest))]);
  const decoder = chart("decoder", "Decoder activity d(m) of the most labelled neurons",
    "The decoder neurons that follow the modulator most in this image, over its range; the dot is its present value. "
    + "A neuron that follows it relative to its own mean activity gets a high gain.");
  decoder.querySelector(".plot").remove();
  const many = make("div", "many");
  m.neurons.forEach((n, place) => {
    const curve = m.decoder_activity.map(row => row[place]), top = Math.max(...curve, 1e-12);
    const box = make("div"), area = make("div", "plot"), svg = draw("svg"), dot = make("span", "dot");
    svg.setAttribute("viewBox", "0 0 100 100");
    svg.setAttribute("preserveAspectRatio", "none");
    const at = (i, v) => `${(100 * i / last).toFixed(2)} ${(94 - 86 * v / top).toFixed(2)}`;
    const line = "M" + curve.map((v, i) => at(i, v)).join("L");
    svg.append(draw("path", "rule", "M0 94H100"), draw("path", "curve", line), draw("path", "now"));
    area.append(svg, dot, make("b", "top"));
    box.append(area, make("p", "legend", `Neuron ${n}, gain ${times(seen.decoder_gains[n])}`));
    box.place = { curve, top };
    many.append(box);
  });
  decoder.append(many);
}

function chart(id, title, note) {
  const box = make("div", "chart"), area = make("div", "plot");
  box.id = id;
  box.append(make("h3", "", title), make("p", "soft small", note), area, make("p", "small reading"));
  $("charts").append(box);
  return box;
}

// Bars of values in [-1, 1] around the middle, with what the ends stand for.
function plot(box, values, [top, bottom]) {
  const area = box.querySelector(".plot");
  const svg = draw("svg"), up = draw("path", "up"), down = draw("path", "down");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.append(up, down, draw("path", "rule"));
  area.replaceChildren(svg, make("b", "top", top), make("b", "bottom", bottom));
  bars(box, values);
}

function bars(box, values) {
  const svg = box.querySelector("svg"), paths = svg.querySelectorAll("path"), parts = ["", ""];
  svg.setAttribute("viewBox", `0 0 ${values.length || 1} 200`);
  values.forEach((v, n) => {
    const height = Math.min(Math.abs(v), 1) * 96;
    parts[v < 0 ? 1 : 0] += `M${n + .08} 100h.84v${(v < 0 ? height : -height).toFixed(2)}h-.84z`;
  });
  paths[0].setAttribute("d", parts[0]);
  paths[1].setAttribute("d", parts[1]);
  paths[2].setAttribute("d", `M0 100H${values.length || 1}`);
}

function gainChart(id, title, gains) {
  const sorted = [...gains].sort((a, b) => b - a), logs = sorted.map(g => Math.log(Math.max(g, 1e-3)));
  const widest = Math.max(...logs.map(Math.abs), Math.log(1.1));
  const turned = gains.filter(g => g > 1.05).length, lowered = gains.filter(g => g < .95).length;
  const note = `One bar per neuron, sorted, around a gain of 1 (logarithmic); ${gains.length} neurons. They belong to the task`;
  const box = chart(id, title, note + (state.seen.modulator ? " and do not move with the modulator." : "."));
  plot(box, logs.map(v => v / widest), [times(Math.exp(widest)), times(Math.exp(-widest))]);
  box.querySelector(".reading").textContent = `${turned} turned up, ${lowered} turned down by more than 5%; `
    + `highest ${times(sorted[0])}, lowest ${times(sorted[sorted.length - 1])}.`;
}

function update() {
  const m = state.seen && state.seen.modulator;
  if (!m) return;
  const at = Number($("slider").value), z = m.deviations[at], factors = m.factors[at];
  const text = `${z ? signed(z, 1) : "0"} σ (m = ${z ? (z < 0 ? "−" : "+") + Number(Math.abs(z * m.sigma).toPrecision(3)) : "0"})`;
  $("value").textContent = text;
  $("slider").setAttribute("aria-valuetext", text);
  m.outputs.forEach((_, place) => setBar(place, m.probabilities[at][place]));
  bars($("factors"), m.order.map(n => Math.log(factors[n]) / m.widest));
  const first = m.order[0], final = m.order[m.order.length - 1];
  $("coupling").querySelector(".reading").textContent =
    `Most coupled: neuron ${first}, w = ${signed(m.coupling[first])}; least: neuron ${final}, w = ${signed(m.coupling[final])}.`;
  $("factors").querySelector(".reading").textContent =
    `Neuron ${first}: ${times(factors[first])}; neuron ${final}: ${times(factors[final])}.`;
  for (const box of document.querySelectorAll(".many > div")) {
    const { curve, top } = box.place, x = 100 * at / (m.deviations.length - 1), y = 94 - 86 * curve[at] / top;
    box.querySelector(".now").setAttribute("d", `M${x} 0V100`);
    Object.assign(box.querySelector(".dot").style, { left: x + "%", top: y + "%" });
    box.querySelector(".top").textContent = curve[at].toPrecision(3);
  }
}

$("slider").addEventListener("input", update);
$("reset").addEventListener("click", () => {
  $("slider").value = state.seen.modulator.deviations.indexOf(0);
  update();
});
$("file").addEventListener("change", event => { take(event.target.files[0]); event.target.value = ""; });
for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, event => {
  event.preventDefault();
  document.body.classList.toggle("over", kind === "dragover");
  if (kind === "drop") take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", event => take(event.clipboardData.files[0]));
start().catch(error => complain(error.message));
"""
