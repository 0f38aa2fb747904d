// A small network with its own gradients and Adam, as diffusion_core/playground/network.py has it.
// Matrices lie row by row in one array.

const EMBEDDING = 16; // numbers that the network is told of a timestep
const CLASSES = 2;
export const ANY = -1; // the label for any class
const BETA_1 = 0.9;
const BETA_2 = 0.999;
const EPSILON = 1e-8;

/** The sinusoidal embedding of every timestep. */
function timeFeatures(timesteps) {
  const half = EMBEDDING / 2;
  const features = new Float64Array(timesteps * EMBEDDING);
  for (let t = 0; t < timesteps; t++) {
    for (let k = 0; k < half; k++) {
      const angle = t * Math.exp(k * -(Math.log(10000) / (half - 1)));
      features[t * EMBEDDING + k] = Math.sin(angle);
      features[t * EMBEDDING + half + k] = Math.cos(angle);
    }
  }
  return features;
}

/** A network before training; `uniform` gives its weights. */
export function makeNetwork(uniform, { timesteps, classes, width, layers, learning_rate }) {
  const inputs = 2 + EMBEDDING + (classes ? CLASSES : 0);
  const sizes = [inputs, ...Array(layers).fill(width), 2];
  const weights = [];
  for (let k = 0; k + 1 < sizes.length; k++) {
    const bound = 1 / Math.sqrt(sizes[k]);
    for (const length of [sizes[k] * sizes[k + 1], sizes[k + 1]]) {
      weights.push(Float64Array.from({ length }, () => bound * (2 * uniform() - 1)));
    }
  }
  const zeros = () => weights.map((each) => new Float64Array(each.length));
  return {
    sizes,
    weights,
    classes,
    features: timeFeatures(timesteps),
    rate: learning_rate,
    steps: 0,
    means: zeros(),
    squares: zeros(),
    gradients: zeros(),
    rows: 0, // for which there is room in the arrays below
  };
}

function makeRoom(network, rows) {
  if (network.rows >= rows) return;
  network.rows = rows;
  network.inputs = network.sizes.map((size) => new Float64Array(rows * size)); // of each layer
  network.sums = network.sizes.slice(1).map((size) => new Float64Array(rows * size));
  network.shares = network.sizes.slice(1).map((size) => new Float64Array(rows * size));
  network.errors = network.sizes.slice(1).map((size) => new Float64Array(rows * size));
}

/** out (rows, columns) += a (rows, inner) b (inner, columns); `a` has its own strides. */
function addProduct(out, a, down, across, b, rows, inner, columns) {
  let row = 0;
  // Two rows at a time and four numbers of each, so that few numbers are read twice.
  for (; row + 1 < rows; row += 2) {
    const start = row * columns;
    const other = start + columns;
    let k = 0;
    for (; k + 3 < inner; k += 4) {
      const at = row * down + k * across;
      const low = at + down;
      const a0 = a[at], a1 = a[at + across], a2 = a[at + 2 * across], a3 = a[at + 3 * across];
      const c0 = a[low], c1 = a[low + across], c2 = a[low + 2 * across], c3 = a[low + 3 * across];
      const first = k * columns, second = first + columns;
      const third = second + columns, fourth = third + columns;
      for (let c = 0; c < columns; c++) {
        const b0 = b[first + c], b1 = b[second + c], b2 = b[third + c], b3 = b[fourth + c];
        out[start + c] += a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3;
        out[other + c] += c0 * b0 + c1 * b1 + c2 * b2 + c3 * b3;
      }
    }
    addRest(out, a, down, across, b, row, k, inner, columns);
    addRest(out, a, down, across, b, row + 1, k, inner, columns);
  }
  if (row < rows) addRest(out, a, down, across, b, row, 0, inner, columns);
}

/** As `addProduct`, for one row and from number k on. */
function addRest(out, a, down, across, b, row, k, inner, columns) {
  for (; k < inner; k++) {
    const factor = a[row * down + k * across];
    for (let c = 0; c < columns; c++) out[row * columns + c] += factor * b[k * columns + c];
  }
}

function sigmoid(z) {
  const small = Math.exp(-Math.abs(z)); // so that nothing overflows
  return (z < 0 ? small : 1) / (1 + small);
}

/** The outputs of points x at timesteps t with labels, as a view that the next call overwrites. */
export function forward(network, x, t, labels, rows) {
  makeRoom(network, rows);
  const { sizes, weights, inputs, sums, shares, features } = network;
  const told = sizes[0];
  for (let row = 0; row < rows; row++) {
    const at = row * told;
    inputs[0][at] = x[2 * row];
    inputs[0][at + 1] = x[2 * row + 1];
    for (let k = 0; k < EMBEDDING; k++) inputs[0][at + 2 + k] = features[t[row] * EMBEDDING + k];
    if (!network.classes) continue;
    for (let k = 0; k < CLASSES; k++) inputs[0][at + 2 + EMBEDDING + k] = labels[row] === k ? 1 : 0;
  }
  for (let layer = 0; layer < sums.length; layer++) {
    const [before, after] = [sizes[layer], sizes[layer + 1]];
    const z = sums[layer];
    const bias = weights[2 * layer + 1];
    for (let row = 0; row < rows; row++) z.set(bias, row * after);
    addProduct(z, inputs[layer], before, 1, weights[2 * layer], rows, before, after);
    if (layer === sums.length - 1) break;
    const next = inputs[layer + 1];
    const share = shares[layer];
    for (let k = 0; k < rows * after; k++) {
      share[k] = sigmoid(z[k]);
      next[k] = z[k] * share[k];
    }
  }
  return sums.at(-1).subarray(0, 2 * rows);
}

/** One step of Adam on the L2 loss of the last `forward`, which is returned. */
export function learn(network, target, rows) {
  const { sizes, weights, inputs, sums, shares, errors, gradients } = network;
  const last = sums.length - 1;
  let loss = 0;
  for (let k = 0; k < 2 * rows; k++) {
    const error = sums[last][k] - target[k];
    loss += error * error;
    errors[last][k] = error / rows; // 2 / (2 rows)
  }
  for (let layer = last; layer >= 0; layer--) {
    const [before, after] = [sizes[layer], sizes[layer + 1]];
    const [matrix, bias] = [gradients[2 * layer].fill(0), gradients[2 * layer + 1].fill(0)];
    const error = errors[layer];
    addProduct(matrix, inputs[layer], 1, before, error, before, rows, after);
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < after; k++) bias[k] += error[row * after + k];
    }
    if (!layer) break;
    const below = errors[layer - 1].fill(0);
    const turned = transposed(weights[2 * layer], before, after);
    addProduct(below, error, after, 1, turned, rows, after, before);
    const [z, share] = [sums[layer - 1], shares[layer - 1]];
    for (let k = 0; k < rows * before; k++) below[k] *= share[k] * (1 + z[k] * (1 - share[k]));
  }
  takeStep(network);
  return loss / (2 * rows);
}

function transposed(matrix, rows, columns) {
  const turned = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < columns; c++) turned[c * rows + row] = matrix[row * columns + c];
  }
  return turned;
}

function takeStep(network) {
  const { weights, gradients, means, squares } = network;
  network.steps += 1;
  const rate = network.rate / (1 - BETA_1 ** network.steps);
  const correction = Math.sqrt(1 - BETA_2 ** network.steps);
  weights.forEach((weight, part) => {
    const [gradient, mean, square] = [gradients[part], means[part], squares[part]];
    for (let k = 0; k < weight.length; k++) {
      mean[k] += (1 - BETA_1) * (gradient[k] - mean[k]);
      square[k] += (1 - BETA_2) * (gradient[k] * gradient[k] - square[k]);
      weight[k] -= rate * mean[k] / (Math.sqrt(square[k]) / correction + EPSILON);
    }
  });
}
