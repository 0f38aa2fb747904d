// Sampling, as in diffusion_core/sampling: levels of noise, what the network predicts at them, and
// the samplers, each a generator of steps. Arrays are (C, H, W).

const IMAGE = { t: 0, alpha: 1, sigma: 0 }; // where every walk ends

/** The `steps` levels of the spacing "trailing", the noisiest first, and the image. */
export function trailingLevels({ alpha, sigma }, steps) {
  const total = alpha.length;
  const stride = (total - total / steps) - total; // as NumPy's arange steps
  return [
    ...Array.from({ length: steps }, (_, k) => {
      const t = roundToEven(total + k * stride) - 1;
      return { t, alpha: alpha[t], sigma: sigma[t] };
    }),
    IMAGE,
  ];
}

function roundToEven(value) {
  const below = Math.floor(value);
  if (value - below === 0.5) return below + (below % 2);
  return Math.round(value);
}

// The network's answer as x_0 and epsilon; see diffusion_core/process/prediction.py.
const PREDICTION_TYPES = {
  epsilon: (answer, x_t, alpha, sigma) => (x_t - sigma * answer) / alpha,
  x_0: (answer) => answer,
  v_prediction: (answer, x_t, alpha, sigma) => alpha * x_t - sigma * answer,
  flow_prediction: (answer, x_t, alpha, sigma) => (x_t - sigma * answer) / (alpha + sigma),
  flow_x_0: (answer) => answer,
};

/**
 * The network as a sampler sees it: `predict(x_t, level)` gives { x_0, epsilon }, x_0 clamped to
 * [-1, 1] and epsilon what belongs to it. `guidance` other than 1 needs a label.
 */
export function makePredict(network, predictionType, label = null, guidance = 1) {
  const toX0 = PREDICTION_TYPES[predictionType];
  return (x_t, { t, alpha, sigma }) => {
    let answer = network.predict(x_t, t, label);
    if (guidance !== 1) {
      const other = network.predict(x_t, t, null);
      answer = answer.map((value, k) => other[k] + guidance * (value - other[k]));
    }
    const x_0 = answer.map((value, k) => clamp(toX0(value, x_t[k], alpha, sigma)));
    return { x_0, epsilon: x_0.map((value, k) => (x_t[k] - alpha * value) / sigma) };
  };
}

function clamp(value) {
  if (value < -1) return -1;
  return value > 1 ? 1 : value; // NaN as it is
}

/** Euler's method, which is DDIM without noise; see `solvers.euler`. */
function* euler(predict, levels, x_T) {
  let x_t = x_T;
  for (const [level, after] of pairs(levels)) {
    const { x_0, epsilon } = predict(x_t, level);
    x_t = x_0.map((value, k) => after.alpha * value + after.sigma * epsilon[k]);
    yield { x_t, x_0 };
  }
}

/** DPM-Solver++(2M); see `solvers.dpmpp_2m`. */
function* dpmpp2m(predict, levels, x_T) {
  let x_t = x_T;
  let before = null;
  for (const [level, after] of pairs(levels)) {
    const { x_0 } = predict(x_t, level);
    const h = halfLogSnr(after) - halfLogSnr(level);
    const shift = -Math.expm1(-h); // 1 in the last step, where h is infinite
    const old = before;
    const more = old && after.sigma > 0 ? h / (2 * old.h) : 0;
    const [keep, add] = [after.sigma / level.sigma, after.alpha * shift];
    x_t = x_t.map((value, k) => (
      keep * value + add * (more ? x_0[k] + more * (x_0[k] - old.x_0[k]) : x_0[k])
    ));
    before = { x_0, h };
    yield { x_t, x_0 };
  }
}

/** Predict the image, add noise of the next level to it, and predict again (Song et al. 2023,
 * algorithm 1): how a distilled network takes more steps than one. */
function* predictAgain(predict, levels, x_T, noise) {
  let x_t = x_T;
  for (const [level, after] of pairs(levels)) {
    const { x_0 } = predict(x_t, level);
    const z = after.sigma > 0 ? noise(x_t.length) : null;
    x_t = z ? x_0.map((value, k) => after.alpha * value + after.sigma * z[k]) : x_0;
    yield { x_t, x_0 };
  }
}

/** (predict, levels, x_T, noise): the steps, each { x_t, x_0 }. */
export const SAMPLERS = { dpmpp_2m: dpmpp2m, ddim: euler, euler, consistency: predictAgain };

function pairs(levels) {
  return levels.slice(0, -1).map((level, k) => [level, levels[k + 1]]);
}

function halfLogSnr({ alpha, sigma }) {
  return sigma ? Math.log(alpha) - Math.log(sigma) : Infinity;
}
