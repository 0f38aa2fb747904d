// The forward process, the exact prediction and the samplers, as diffusion_core/playground/model.py
// and diffusion_core/sampling have them.

import { ANY, forward } from "./network.js";
import { normals, uniformsOf } from "./random.js";

const CLIP = 3; // the predicted x_0 is kept in a square

/** signal and spread of each timestep. `signal`: of a noise schedule; a flow needs none. */
export function makeSchedule(timesteps, signal) {
  const flow = !signal;
  const spread = new Float64Array(timesteps);
  signal = flow ? new Float64Array(timesteps) : signal;
  for (let t = 0; t < timesteps; t++) {
    if (flow) signal[t] = 1 - (t + 1) / timesteps;
    spread[t] = flow ? (t + 1) / timesteps : Math.sqrt(1 - signal[t] * signal[t]);
  }
  return { flow, timesteps, signal, spread };
}

/** x_t and what the network is asked to predict, of points x_0 with noise epsilon. */
export function noise(schedule, x_0, t, epsilon) {
  const x_t = new Float64Array(x_0.length);
  const target = new Float64Array(x_0.length);
  for (let k = 0; k < x_0.length; k++) {
    const at = t[k >> 1];
    x_t[k] = schedule.signal[at] * x_0[k] + schedule.spread[at] * epsilon[k];
    target[k] = schedule.flow ? epsilon[k] - x_0[k] : epsilon[k];
  }
  return { x_t, target };
}

/** What a network predicts, for `sample` and the field. */
export function learnedModel(network) {
  return (x, t, labels) => forward(network, x, t, labels, t.length).slice();
}

/** What a perfect network would predict: the expected target given x_t. */
export function exactModel({ points, labels: classes }, { flow, signal, spread }) {
  const count = classes.length;
  const away = new Float64Array(count);
  return (x, t, labels) => {
    const out = new Float64Array(x.length);
    for (let row = 0; row < t.length; row++) {
      const [a, b] = [signal[t[row]], spread[t[row]]];
      const [px, py] = [x[2 * row], x[2 * row + 1]];
      let least = Infinity;
      for (let k = 0; k < count; k++) {
        const [dx, dy] = [px - a * points[2 * k], py - a * points[2 * k + 1]];
        const other = labels[row] !== ANY && labels[row] !== classes[k];
        away[k] = other ? Infinity : (dx * dx + dy * dy) / (2 * b * b);
        least = Math.min(least, away[k]);
      }
      let [total, meanX, meanY] = [0, 0, 0];
      for (let k = 0; k < count; k++) {
        const weight = Math.exp(least - away[k]);
        total += weight;
        meanX += weight * points[2 * k];
        meanY += weight * points[2 * k + 1];
      }
      [meanX, meanY] = [meanX / total, meanY / total];
      out[2 * row] = (px - a * meanX) / b - (flow ? meanX : 0);
      out[2 * row + 1] = (py - a * meanY) / b - (flow ? meanY : 0);
    }
    return out;
  };
}

/** To the nearest whole number, from the middle to the even one, as NumPy rounds. */
function roundToEven(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 ? low + 1 : low;
}

/** The levels that a sampler walks down, spaced as `trailing` in the core, and the data. */
export function makeLevels({ timesteps, signal, spread }, steps) {
  const width = timesteps - timesteps / steps - timesteps; // as NumPy's arange rounds it
  const levels = Array.from({ length: steps }, (_, k) => {
    const t = roundToEven(timesteps + k * width) - 1;
    return { t, alpha: signal[t], sigma: spread[t] };
  });
  return [...levels, { t: -1, alpha: 1, sigma: 0 }];
}

/** The particles after each step, and before the first; `path[k]` belongs to `levels[k]`. */
export function sample(ask, schedule, settings, ancestral) {
  const { classes, particles: count, seed } = settings;
  const levels = makeLevels(schedule, Math.min(settings.sampling_steps, schedule.timesteps));
  const labels = Int8Array.from({ length: count }, (_, k) => (classes ? k % 2 : ANY));
  const any = new Int8Array(count).fill(ANY);
  const scale = classes ? settings.guidance_scale : 1;
  const fresh = uniformsOf(seed, "noise");
  let x = normals(uniformsOf(seed, "x_T"), count);
  const path = [x];
  for (let step = 0; step + 1 < levels.length; step++) {
    const [level, after] = [levels[step], levels[step + 1]];
    const t = new Int32Array(count).fill(level.t);
    const prediction = ask(x, t, labels);
    if (scale !== 1) {
      const other = ask(x, t, any);
      for (let k = 0; k < other.length; k++) {
        prediction[k] = other[k] + scale * (prediction[k] - other[k]);
      }
    }
    const [bar, barPrevious] = [level.alpha ** 2, after.alpha ** 2];
    const alpha = bar / barPrevious;
    const beta = 1 - alpha;
    const ofImage = Math.sqrt(barPrevious) * beta / (1 - bar);
    const ofPoint = Math.sqrt(alpha) * (1 - barPrevious) / (1 - bar);
    const deviation = Math.sqrt(beta * (1 - barPrevious) / (1 - bar));
    const z = ancestral && after.sigma > 0 ? normals(fresh, count) : null;
    const next = new Float64Array(x.length);
    for (let k = 0; k < x.length; k++) {
      let x_0 = x[k] - level.sigma * prediction[k];
      if (!schedule.flow) x_0 /= level.alpha;
      x_0 = Math.max(-CLIP, Math.min(CLIP, x_0));
      const epsilon = (x[k] - level.alpha * x_0) / level.sigma;
      next[k] = ancestral
        ? ofImage * x_0 + ofPoint * x[k] + (z ? deviation * z[k] : 0)
        : after.alpha * x_0 + after.sigma * epsilon;
    }
    x = next;
    path.push(x);
  }
  return { path, levels: levels.map((level) => level.t + 1) };
}
