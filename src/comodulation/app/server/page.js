"use strict";
const $ = id => document.getElementById(id), root = document.documentElement;
const state = { run: null, given: null, task: null, answers: null, seen: null, asked: 0 };
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
  $("subtitle").textContent = `Behind ${run.backbone}. Measured on ${m.count.toLocaleString("en")} ${m.split} predictions:`;
  listMeasured(run.tasks);
  prepareInput(run.input);
  $("calibration").textContent = run.confidence.replaceAll("`", "");
  $("belonging").textContent = run.kind !== "classes" ? ""
    : `Every task is asked, also those that the ${run.input} does not belong to; confidence means something for those it does.`;
}

// An image is dropped or chosen, a text is written, the numbers of an embedding are pasted.
function prepareInput(kind) {
  const image = kind === "image";
  $("drop").hidden = !image;
  $("file").hidden = !image;
  $("write").hidden = image;
  if (image) return;
  $("writing").textContent = kind === "text" ? "Write a text" : "Paste an embedding, as [0.1, 0.2, ...]";
  $("waiting").textContent = $("waiting").textContent.replace("Choose an image", kind === "text" ? "Write a text" : "Paste an embedding");
}

// How good each task is, beside what its most frequent class would have; no number for all of them together.
function listMeasured(tasks) {
  const share = value => value === null ? "–" : percent(value);
  $("measured").tBodies[0].replaceChildren(...tasks.map(task => {
    const row = make("tr"), name = make("th", "", task.name);
    name.scope = "row";
    row.append(name, ...[task.balanced_accuracy, task.accuracy, task.majority, task.ece].map(value => make("td", "", share(value))),
      make("td", "", task.count === null ? "–" : task.count.toLocaleString("en")));
    return row;
  }));
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
    state.given = file;
    if (state.run.input === "image") {
      if ($("preview").src) URL.revokeObjectURL($("preview").src);
      $("preview").src = URL.createObjectURL(file);
      $("preview").hidden = false;
      $("invitation").firstElementChild.textContent = "Drop another image";
    }
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
    const own = Object.hasOwn(answer.probabilities, answer.prediction);
    button.append(make("span", "name", name), make("span", "said", own ? answer.prediction : `${answer.prediction} (of another task)`),
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
    const seen = await ask("/api/mechanism?" + new URLSearchParams({ task }), state.given);
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
    + (accuracy === null ? "." : `; ${state.run.metrics.split} accuracy ${percent(accuracy)}`
      + (known.majority === null ? "." : `, the most frequent class alone ${percent(known.majority)}.`));
  $("charts").replaceChildren();
  $("control").hidden = $("slider-note").hidden = m === null;
  $("answer-at").textContent = m === null ? "" : " under this value of the modulator";
  // Not in the order of the object, which puts names that are whole numbers first.
  const likeliest = Object.entries(seen.answer.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name]) => name);
  if (m !== null) m.shown = m.outputs.map((_, place) => place).filter(place => m.own[place]);
  const rows = m === null ? likeliest : m.shown.map(place => m.outputs[place]);
  $("bars").replaceChildren(...rows.map((name, place) => {
    const item = make("li"), track = make("span", "track"), fill = make("span", "fill");
    track.append(fill);
    if (m !== null) {
      const tick = make("span", "tick");
      tick.style.left = 100 * m.answer[m.shown[place]] + "%";
      track.append(tick);
    }
    item.append(make("span", "said", name), track, make("span", "percent"));
    return item;
  }));
  const other = Object.hasOwn(seen.answer.probabilities, seen.answer.prediction) ? ""
    : `The network's answer is “${seen.answer.prediction}” (${percent(seen.answer.confidence)}), which is not of this task.`;
  if (m !== null) {
    buildModulator(m, seen);
    $("bars-note").textContent += other && " " + other;
  } else {
    rows.forEach((name, place) => setBar(place, seen.answer.probabilities[name]));
    $("bars-note").textContent = other;
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
  m.shown.forEach((output, place) => setBar(place, m.probabilities[at][output]));
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
$("write").addEventListener("submit", event => {
  event.preventDefault();
  take(new Blob([$("words").value], { type: state.run.input === "text" ? "text/plain" : "application/json" }));
});
$("file").addEventListener("change", event => { take(event.target.files[0]); event.target.value = ""; });
for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, event => {
  event.preventDefault();
  document.body.classList.toggle("over", kind === "dragover");
  if (kind === "drop" && !$("drop").hidden) take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", event => $("drop").hidden || take(event.clipboardData.files[0]));
start().catch(error => complain(error.message));
