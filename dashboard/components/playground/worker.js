// Trains the networks and follows the particles, in a thread of its own. The page sends what is
// set and gets points, losses, paths and fields; it never waits.

import { ANY, learn, forward, makeNetwork } from "./network.js";
import { makeShape, readDrawing } from "./points.js";
import { exactModel, learnedModel, makeSchedule, noise, sample } from "./process.js";
import { integers, normals, uniformsOf } from "./random.js";

const SLICE_MS = 30; // of training until messages are read
const REST = 3; // times as long as the paths take, until they are made again
const FIELD_LEVELS = 25;
const FIELD_SIDE = 15; // arrows
const FIELD_EDGE = 2.8;
const JUDGED = 128; // noised points, at each level, over which an error is averaged

let lab = null; // everything that belongs to the present settings
let running = false;
let waiting = false; // whether a slice is on its way

self.addEventListener("message", ({ data: message }) => {
  if (message.begin) begin(message.begin);
  if (message.show && lab) {
    lab.settings = { ...lab.settings, ...message.show };
    lab.exactPaths = null;
    showPaths();
  }
  if (message.run !== undefined) running = message.run;
  if (message.numbers) say({ numbers: numbers() });
  schedule();
});

function say(message) {
  self.postMessage({ ...message, turn: lab.turn }, []);
}

/** Start anew. `signal`: of the noise schedule; `given`: points and labels that came from outside. */
function begin({ settings, signal, given, turn }) {
  const data = pointsOf(settings, given);
  lab = {
    turn,
    settings,
    data,
    models: {},
    exact: {},
    signal,
    rate: { at: performance.now(), steps: 0 },
    shownAt: -Infinity,
    took: 0,
  };
  for (const objective of objectivesOf(settings.panels)) addModel(objective);
  say({ data: { ...data, epsilon: normals(uniformsOf(settings.seed, "noise"), data.labels.length) } });
  if (data.labels.length) showPaths();
}

function pointsOf(settings, given) {
  if (given) return given;
  if (settings.data === "drawing") return readDrawing(settings.drawing);
  return makeShape(settings.data, settings.seed);
}

function objectivesOf(panels) {
  const flow = panels.includes("flow");
  return [...(panels.some((each) => each !== "flow") ? ["epsilon"] : []), ...(flow ? ["flow"] : [])];
}

function addModel(objective) {
  const { settings, signal, data } = lab;
  const plan = makeSchedule(settings.timesteps, objective === "flow" ? null : signal);
  const network = makeNetwork(uniformsOf(settings.seed, "weights"), settings);
  lab.models[objective] = {
    plan,
    network,
    ask: learnedModel(network),
    exact: exactModel(data, plan),
    batches: uniformsOf(settings.seed, "batches"),
    losses: [],
    told: 0, // of the losses
  };
}

// -------------------------------------------------------------------------------------- training

function schedule() {
  if (waiting || !running || !lab?.data.labels.length) return;
  waiting = true;
  setTimeout(() => {
    waiting = false;
    if (running) trainOn();
    schedule();
  });
}

function unfinished() {
  return Object.values(lab.models).filter((model) => model.losses.length < lab.settings.steps);
}

function trainOn() {
  const until = performance.now() + SLICE_MS;
  let left = unfinished();
  const begun = left.length > 0;
  while (left.length && performance.now() < until) {
    // The one that is behind, so that models of two objectives can be compared.
    left.sort((one, other) => one.losses.length - other.losses.length);
    trainStep(left[0]);
    left = unfinished();
  }
  running = left.length > 0;
  tell();
  const rested = performance.now() - lab.shownAt > Math.max(250, REST * lab.took);
  if (begun && (!running || rested)) showPaths();
}

function trainStep({ network, plan, batches, losses }) {
  const { data, settings } = lab;
  const { batch } = settings;
  const rows = integers(batches, data.labels.length, batch);
  const t = integers(batches, settings.timesteps, batch);
  const epsilon = normals(batches, batch);
  const labels = Int8Array.from(rows, (row) => data.labels[row]);
  if (settings.classes) {
    for (let k = 0; k < batch; k++) if (batches() < settings.dropout) labels[k] = ANY;
  }
  const x_0 = new Float64Array(2 * batch);
  rows.forEach((row, k) => x_0.set(data.points.subarray(2 * row, 2 * row + 2), 2 * k));
  const { x_t, target } = noise(plan, x_0, t, epsilon);
  forward(network, x_t, t, labels, batch);
  losses.push(learn(network, target, batch));
}

function tell() {
  const now = performance.now();
  const steps = Object.values(lab.models).reduce((sum, model) => sum + model.losses.length, 0);
  const seconds = (now - lab.rate.at) / 1000;
  const rate = (steps - lab.rate.steps) / seconds;
  if (seconds > 1) lab.rate = { at: now, steps };
  const losses = {};
  for (const [objective, model] of Object.entries(lab.models)) {
    losses[objective] = model.losses.slice(model.told);
    model.told = model.losses.length;
  }
  say({ progress: { losses, rate, finished: !running } });
}

// ----------------------------------------------------------------------------- paths and fields

function showPaths() {
  const start = performance.now();
  const { settings } = lab;
  for (const objective of objectivesOf(settings.panels)) {
    if (!lab.models[objective]) addModel(objective);
  }
  const paths = {};
  for (const panel of settings.panels) paths[panel] = follow(panel);
  const fields = {};
  for (const [objective, model] of Object.entries(lab.models)) fields[objective] = fieldOf(model);
  lab.took = performance.now() - start;
  lab.shownAt = performance.now();
  say({ shown: { paths, fields } });
}

/** Where the particles of a panel are after each step. */
function follow(panel) {
  const model = lab.models[panel === "flow" ? "flow" : "epsilon"];
  if (panel === "exact") {
    lab.exactPaths ??= pack(sample(model.exact, model.plan, lab.settings, false));
    return lab.exactPaths;
  }
  return pack(sample(model.ask, model.plan, lab.settings, panel === "ddpm"));
}

function pack({ path, levels }) {
  const size = path[0].length;
  const positions = new Float32Array(path.length * size);
  path.forEach((points, k) => positions.set(points, k * size));
  return { positions, size, levels };
}

/** What is predicted at the points of a grid, learned and exact, and the error at noised points. */
function fieldOf(model) {
  const { timesteps } = lab.settings;
  const levels = Array.from({ length: FIELD_LEVELS }, (_, k) => (
    Math.round(k * (timesteps - 1) / (FIELD_LEVELS - 1))
  ));
  const side = Array.from({ length: FIELD_SIDE }, (_, k) => FIELD_EDGE * (2 * k / (FIELD_SIDE - 1) - 1));
  const grid = Float64Array.from(side.flatMap((y) => side.flatMap((x) => [x, y])));
  const count = grid.length / 2;
  model.grid ??= exactAnswers(model, levels, grid);
  const learned = new Float32Array(levels.length * grid.length);
  const errors = levels.map((t, k) => {
    const any = new Int8Array(count + JUDGED).fill(ANY);
    const { points, answers } = model.grid.judged[k];
    const both = new Float64Array(grid.length + points.length);
    both.set(grid);
    both.set(points, grid.length);
    const found = model.ask(both, new Int32Array(count + JUDGED).fill(t), any);
    learned.set(found.subarray(0, grid.length), k * grid.length);
    const rest = found.subarray(grid.length);
    return Math.sqrt(rest.reduce((sum, each, at) => sum + (each - answers[at]) ** 2, 0) / rest.length);
  });
  return { levels: levels.map((t) => t + 1), grid, learned, exact: model.grid.exact, errors };
}

function exactAnswers({ exact, plan }, levels, grid) {
  const count = grid.length / 2;
  const answers = new Float32Array(levels.length * grid.length);
  const uniform = uniformsOf(lab.settings.seed + 1, "batches");
  const judged = levels.map((t, k) => {
    answers.set(exact(grid, new Int32Array(count).fill(t), new Int8Array(count).fill(ANY)), k * grid.length);
    const rows = integers(uniform, lab.data.labels.length, JUDGED);
    const x_0 = new Float64Array(2 * JUDGED);
    rows.forEach((row, at) => x_0.set(lab.data.points.subarray(2 * row, 2 * row + 2), 2 * at));
    const there = new Int32Array(JUDGED).fill(t);
    const { x_t } = noise(plan, x_0, there, normals(uniform, JUDGED));
    return { points: x_t, answers: exact(x_t, there, new Int8Array(JUDGED).fill(ANY)) };
  });
  return { exact: answers, judged };
}

/** Everything that can be compared with the core. */
function numbers() {
  const { settings, models } = lab;
  const samples = {};
  for (const panel of settings.panels) {
    const model = models[panel === "flow" ? "flow" : "epsilon"];
    const ask = panel === "exact" ? model.exact : model.ask;
    samples[panel] = [...sample(ask, model.plan, settings, panel === "ddpm").path.at(-1)];
  }
  const found = {};
  for (const [objective, { losses, network }] of Object.entries(models)) {
    found[objective] = { losses, weights: network.weights.map((each) => [...each]) };
  }
  return { settings, models: found, samples };
}
