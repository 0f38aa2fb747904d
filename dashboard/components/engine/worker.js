// Samples in a thread of its own. The page sends { load } for a model and { ask } whenever the hand has
// moved: to sample an image, or to predict one from an image with noise. A later request takes the
// place of the one under way, at the next evaluation of the network, or with `whole` when that is
// answered; one with `stop` asks for nothing.
// The page is told { loaded }, { step }, { done } and { failed }.

import { readModelFile } from "./file.js";
import { Graphics } from "./graphics.js";
import { openNetwork } from "./network.js";
import { imageNoise, startOf } from "./noise.js";
import { Processor } from "./processor.js";
import { makePredict, SAMPLERS, trailingLevels } from "./walks.js";

const CLOSE = 0.01; // of a network's answers on both processors, which are about 1
const CHECKED_SEED = 0;
const NOT_FINITE = "What the network predicts is not finite: its training has diverged. "
  + "Choose an earlier checkpoint.";

let lab = null; // the model and its networks
let wanted = null; // the newest request that has not begun
let busy = false;

self.addEventListener("message", ({ data: { load, ask } }) => {
  if (load) {
    lab?.network.close();
    lab = null;
    open(load).catch((error) => fail(error));
  }
  if (ask) wanted = ask;
  work();
});

function fail(error, turn) {
  self.postMessage({ turn, failed: error.message }, []);
}

// ------------------------------------------------------------------------------------- the model

/** Fetch a model; `engine`, which computes it, is "processor", "graphics" or "fastest". */
async function open({ address, engine }) {
  const file = readModelFile(await fetched(address));
  const { model, tensors } = file;
  const schedule = { alpha: tensors["schedule.alpha"].values, sigma: tensors["schedule.sigma"].values };
  const plain = openNetwork(new Processor(), file);
  lab = { file, model, schedule, plain, network: plain, why: "", engine, tried: engine === "processor" };
  if (engine === "graphics") tryGraphics(lab);
  else tell(lab);
  work();
}

/** Change to the graphics processor, where it answers as the plain network does, and faster. */
function tryGraphics(own) {
  own.tried = true;
  Object.assign(own, openOnGraphics(own.file, own.plain, own.schedule, own.engine));
  tell(own);
}

function tell({ model, network: { kind }, why }) {
  self.postMessage({ loaded: { model, kind, why } }, []);
}

async function fetched(address) {
  let found;
  try {
    found = await fetch(address);
    if (found.ok) return await found.arrayBuffer();
  } catch (error) {
    throw new Error(`The run's weights could not be fetched (${error.message}). Reload the page.`, { cause: error });
  }
  throw new Error(await found.text());
}

/** { network } on the graphics processor, or { why } not. */
function openOnGraphics(file, plain, { alpha }, engine) {
  let network = null;
  try {
    // Graphics that the processor imitates are never the fastest.
    network = openNetwork(new Graphics(engine === "fastest"), file);
    const { channels, image_size: size } = file.model;
    const x_t = imageNoise(CHECKED_SEED)(channels * size ** 2);
    const t = alpha.length >> 1;
    const [ours, slow] = timed(() => plain.predict(x_t, t, null));
    const [theirs, quick] = timed(() => network.predict(x_t, t, null));
    const largest = ours.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    const apart = ours.reduce((most, value, k) => Math.max(most, Math.abs(value - theirs[k])), 0);
    if (!(apart <= CLOSE * largest)) throw new Error("WebGL2 computes something else here.");
    if (engine === "fastest" && quick > slow) {
      const [mine, other] = [slow, quick].map((each) => Math.max(1, Math.round(each)));
      throw new Error(`WebGL2 takes ${other} ms for an evaluation here, JavaScript ${mine} ms.`);
    }
    return { network };
  } catch (error) {
    network?.close();
    return { why: error.message };
  }
}

/** What `compute` gives the second time, when all is prepared, and the milliseconds that it takes. */
function timed(compute) {
  compute();
  const start = performance.now();
  const value = compute();
  return [value, performance.now() - start];
}

// ------------------------------------------------------------------------------------- sampling

async function work() {
  if (busy) return;
  busy = true;
  for (let request = take(); request; request = take()) {
    await answer(request, lab).catch((error) => fail(error, request.turn));
    // When the first image is there: to prepare the graphics processor can take a second.
    if (lab && !lab.tried && !wanted) tryGraphics(lab);
  }
  busy = false;
}

function take() {
  const request = lab && wanted;
  if (request) wanted = null;
  return request;
}

/** Answer a request with one step after the other, until there is a newer one. */
async function answer(request, own) {
  const { turn, label, guidance } = request;
  if (request.stop) return;
  const began = performance.now();
  const network = { predict: (...given) => predictSafely(own, given) };
  const predict = makePredict(network, own.model.prediction_type, label, guidance);
  const steps = request.from ? predictOnce(request, own, predict) : sample(request, own, predict);
  let index = 0;
  for (const { x_t, x_0 } of steps) {
    if (x_0 && !x_0.every(Number.isFinite)) throw new Error(NOT_FINITE);
    const [noisy, image] = [x_t, x_0].map((planes) => planes && pixels(planes, own.model));
    if (x_0) index += 1;
    self.postMessage({ turn, step: { index, noisy, image } }, []);
    await rest();
    if (lab !== own || (wanted && (wanted.stop || !request.whole))) return;
  }
  const { network: { kind }, why } = own;
  self.postMessage({ turn, done: { ms: performance.now() - began, kind, why } }, []);
}

/** The noise, shown from -3 to 3, and the steps of a walk from there. */
function* sample(request, { model, schedule }, predict) {
  const { x_T, noise } = startOf(request, model);
  yield { x_t: x_T.map((value) => value / 3), x_0: null };
  yield* SAMPLERS[request.sampler](predict, trailingLevels(schedule, request.steps), x_T, noise);
}

/** The image `from`, with the noise of the seed at timestep t, and what is predicted from it. */
function* predictOnce({ from, t, seed }, { schedule }, predict) {
  const level = { t, alpha: schedule.alpha[t], sigma: schedule.sigma[t] };
  const noise = imageNoise(seed)(from.length);
  const x_t = from.map((value, k) => level.alpha * value + level.sigma * noise[k]);
  yield { x_t, x_0: predict(x_t, level).x_0 };
}

/** As the network predicts; on the processor from now on if the graphics processor fails. */
function predictSafely(own, given) {
  try {
    return own.network.predict(...given);
  } catch (error) {
    if (own.network === own.plain) throw error;
    own.network.close();
    [own.network, own.why] = [own.plain, error.message];
    return own.plain.predict(...given);
  }
}

/** Let messages in. */
function rest() {
  return new Promise((resume) => { setTimeout(resume); });
}

/** Values from -1 to 1 as the bytes of an ImageData, rounded to the nearest grey level. */
export function pixels(planes, { channels, image_size: size }) {
  const count = size ** 2;
  const bytes = new Uint8ClampedArray(4 * count).fill(255);
  for (let p = 0; p < count; p += 1) {
    for (let c = 0; c < 3; c += 1) {
      bytes[4 * p + c] = (planes[(c % channels) * count + p] + 1) * 127.5;
    }
  }
  return bytes;
}
