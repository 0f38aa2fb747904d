// The core's `Unet` (diffusion_core/models/unet.py) for one image. What computes its layers,
// `backend`, is processor.js or graphics.js; the few numbers of the embedding are computed here.

/**
 * The network of a file that `readModelFile` has read. Its function `predict(x_t, t, label)` takes
 * and gives (C, H, W) in a Float32Array; `label` is null for "any class".
 */
export function openNetwork(backend, { model, tensors }) {
  const layers = layersOf(backend, model, tensors);
  const { channels, image_size: size, patch } = model;
  const side = size / patch;
  return {
    kind: backend.kind,
    predict(x_t, t, label) {
      const emb = embed(model, tensors, t, label);
      const folded = unshuffle(x_t, channels, size, patch);
      let x = backend.convolve(backend.begin(folded, side, side, channels * patch ** 2), layers.stem);
      const skips = [x];
      for (const layer of layers.downs) {
        x = layer(x, emb);
        skips.push(x);
      }
      for (const layer of layers.middle) x = layer(x, emb);
      for (const layer of layers.ups) x = layer(layer.joins ? backend.join(x, skips.pop()) : x, emb);
      x = backend.convolve(backend.norm(x, layers.norm, { silu: true }), layers.output);
      return shuffle(backend.end(x), channels, size, patch);
    },
    close: () => backend.close(),
  };
}

function layersOf(backend, model, tensors) {
  const pair = (name) => ({ weight: tensors[`${name}.weight`], bias: tensors[`${name}.bias`] });
  const convolution = (name) => backend.loadConvolution(pair(name));
  const norm = (name) => backend.loadNorm(pair(name), model.groups[name]);
  const block = (name) => {
    const residual = openResidual(backend, convolution, norm, tensors, `${name}.residual`);
    const heads = model.heads[`${name}.attention`];
    const attention = heads ? openAttention(backend, convolution, norm, `${name}.attention`, heads) : null;
    const apply = (x, emb) => {
      const y = residual(x, emb);
      return attention ? attention(y) : y;
    };
    apply.joins = name.startsWith("ups.");
    return apply;
  };
  const layer = (name) => {
    if (tensors[`${name}.residual.conv1.weight`]) return block(name);
    const resizes = tensors[`${name}.1.weight`]; // after the layer that doubles the image
    const own = convolution(resizes ? `${name}.1` : name);
    return (x) => backend.convolve(x, own, resizes ? { up: true } : { stride: 2 });
  };
  const list = (part) => {
    const numbers = Object.keys(tensors).filter((name) => name.startsWith(`${part}.`))
      .map((name) => Number(name.split(".")[1]));
    return Array.from({ length: Math.max(...numbers) + 1 }, (_, k) => layer(`${part}.${k}`));
  };
  return {
    stem: convolution("stem"),
    downs: list("downs"),
    middle: list("middle"),
    ups: list("ups"),
    norm: norm("norm"),
    output: convolution("output"),
  };
}

function openResidual(backend, convolution, norm, tensors, name) {
  const [norm1, norm2] = [norm(`${name}.norm1`), norm(`${name}.norm2`)];
  const [conv1, conv2] = [convolution(`${name}.conv1`), convolution(`${name}.conv2`)];
  const skip = tensors[`${name}.skip.weight`] ? convolution(`${name}.skip`) : null;
  return (x, emb) => {
    const both = linear(tensors, `${name}.scale_shift`, emb);
    const half = both.length / 2;
    const terms = { scale: both.subarray(0, half), shift: both.subarray(half) };
    const h = backend.convolve(backend.norm(x, norm1, { silu: true }), conv1);
    const add = skip ? backend.convolve(x, skip) : x;
    return backend.convolve(backend.norm(h, norm2, { terms, silu: true }), conv2, { add });
  };
}

function openAttention(backend, convolution, norm, name, heads) {
  const [own, qkv, out] = [norm(`${name}.norm`), convolution(`${name}.qkv`), convolution(`${name}.out`)];
  return (x) => {
    const y = backend.attend(backend.convolve(backend.norm(x, own), qkv), heads);
    return backend.convolve(y, out, { add: x });
  };
}

// ------------------------------------------------------------------------------- the embedding

function embed({ embedding, classes }, tensors, t, label) {
  let emb = linear(tensors, "time_mlp.1", sinusoids(t, embedding)).map(silu);
  emb = linear(tensors, "time_mlp.3", emb);
  if (classes.length) {
    const row = (label ?? classes.length) * emb.length;
    const own = tensors["label_embedding.weight"].values;
    emb = emb.map((value, k) => value + own[row + k]);
  }
  return emb.map(silu);
}

/** [sin(t f_0) ..., cos(t f_0) ...], the frequencies falling from 1 to 1/10000, as float32. */
export function sinusoids(t, size) {
  const half = size / 2;
  const values = new Float32Array(size);
  for (let k = 0; k < half; k += 1) {
    const frequency = Math.fround(Math.exp(Math.fround(k * -Math.fround(Math.log(10000) / (half - 1)))));
    const angle = Math.fround(t * frequency);
    values[k] = Math.sin(angle);
    values[half + k] = Math.cos(angle);
  }
  return values;
}

function linear(tensors, name, x) {
  const { values: weight, shape: [outputs, inputs] } = tensors[`${name}.weight`];
  const { values: bias } = tensors[`${name}.bias`];
  const y = new Float32Array(outputs);
  for (let k = 0; k < outputs; k += 1) {
    let sum = bias[k];
    for (let c = 0; c < inputs; c += 1) sum += weight[k * inputs + c] * x[c];
    y[k] = sum;
  }
  return y;
}

function silu(x) {
  return x / (1 + Math.exp(-x));
}

// ------------------------------------------------------------------------- patches as channels

/** (C, size, size) to (C patch², size / patch, size / patch), as torch's pixel_unshuffle. */
function unshuffle(planes, channels, size, patch) {
  return reorder(planes, channels, size, patch, (whole, part) => [part, whole]);
}

function shuffle(planes, channels, size, patch) {
  return reorder(planes, channels, size, patch, (whole, part) => [whole, part]);
}

function reorder(from, channels, size, patch, places) {
  const to = new Float32Array(from.length);
  const side = size / patch;
  for (let c = 0; c < channels; c += 1) {
    for (let row = 0; row < size; row += 1) {
      for (let column = 0; column < size; column += 1) {
        const channel = (c * patch + (row % patch)) * patch + (column % patch);
        const part = (channel * side + Math.floor(row / patch)) * side + Math.floor(column / patch);
        const [at, source] = places((c * size + row) * size + column, part);
        to[at] = from[source];
      }
    }
  }
  return to;
}
