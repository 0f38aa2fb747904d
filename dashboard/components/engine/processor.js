// The layers of the networks on the processor, in plain JavaScript. Its class and that of graphics.js
// have the same methods. An image is { height, width, channels, values } here, values pixel by pixel
// with the channels last.

const ROWS = 64; // pixels whose neighbourhoods are laid out at once, so that they stay in the cache
const EPSILON = 1e-5; // of PyTorch's GroupNorm

export class Processor {
  kind = "processor";

  /** An image of numbers (C, H, W). */
  begin(planes, height, width, channels) {
    const x = blank(height, width, channels);
    const count = height * width;
    for (let c = 0; c < channels; c += 1) {
      for (let p = 0; p < count; p += 1) x.values[p * channels + c] = planes[c * count + p];
    }
    return x;
  }

  /** An image as numbers (C, H, W). */
  end({ height, width, channels, values }) {
    const count = height * width;
    const planes = new Float32Array(values.length);
    for (let c = 0; c < channels; c += 1) {
      for (let p = 0; p < count; p += 1) planes[c * count + p] = values[p * channels + c];
    }
    return planes;
  }

  loadNorm({ weight, bias }, groups) {
    return { weight: weight.values, bias: bias.values, groups };
  }

  /** Weights (K, C, k, k) in the order in which `multiply` reads them: four outputs at a time. */
  loadConvolution({ weight, bias }) {
    const [outputs, inputs, kernel] = weight.shape;
    const taps = kernel * kernel;
    const depth = taps * inputs;
    const packed = new Float32Array(Math.ceil(outputs / 4) * depth * 4);
    const first = new Float32Array(Math.ceil(outputs / 4) * 4);
    first.set(bias.values);
    for (let k = 0; k < outputs; k += 1) {
      for (let c = 0; c < inputs; c += 1) {
        for (let tap = 0; tap < taps; tap += 1) {
          const to = ((k >> 2) * depth + tap * inputs + c) * 4 + (k & 3);
          packed[to] = weight.values[(k * inputs + c) * taps + tap];
        }
      }
    }
    return { outputs, inputs, kernel, packed, bias: first };
  }

  /**
   * A convolution with zeros around. `up` doubles the image first, each pixel four times; `add` is an
   * image that is added to the result.
   */
  convolve(x, layer, { stride = 1, up = false, add = null } = {}) {
    const { outputs, inputs, kernel, packed, bias } = layer;
    const padding = kernel >> 1;
    const [tall, wide] = up ? [2 * x.height, 2 * x.width] : [x.height, x.width];
    const height = Math.floor((tall + 2 * padding - kernel) / stride) + 1;
    const width = Math.floor((wide + 2 * padding - kernel) / stride) + 1;
    const y = blank(height, width, outputs);
    const depth = kernel * kernel * inputs;
    const count = height * width;
    const columns = new Float32Array(ROWS * depth);
    for (let from = 0; from < count; from += ROWS) {
      const rows = Math.min(ROWS, count - from);
      for (let row = 0; row < rows; row += 1) {
        const [down, across] = [Math.floor((from + row) / width), (from + row) % width];
        let to = row * depth;
        for (let i = 0; i < kernel; i += 1) {
          for (let j = 0; j < kernel; j += 1, to += inputs) {
            const [v, h] = [down * stride + i - padding, across * stride + j - padding];
            if (v < 0 || h < 0 || v >= tall || h >= wide) {
              columns.fill(0, to, to + inputs);
            } else {
              const at = (up ? (v >> 1) * x.width + (h >> 1) : v * x.width + h) * inputs;
              for (let c = 0; c < inputs; c += 1) columns[to + c] = x.values[at + c];
            }
          }
        }
      }
      multiply(columns, packed, bias, y.values, from, rows, depth, outputs);
    }
    if (add) for (let k = 0; k < y.values.length; k += 1) y.values[k] += add.values[k];
    return y;
  }

  /**
   * GroupNorm; with `terms` { scale, shift } of each channel, y (1 + scale) + shift follows, and with
   * `silu` y / (1 + exp(-y)).
   */
  norm(x, { weight, bias, groups }, { terms = null, silu = false } = {}) {
    const { height, width, channels, values } = x;
    const y = blank(height, width, channels);
    const [pixels, size] = [height * width, channels / groups];
    for (let group = 0; group < groups; group += 1) {
      const [from, to] = [group * size, (group + 1) * size];
      let sum = 0;
      for (let p = 0; p < pixels; p += 1) {
        for (let c = from; c < to; c += 1) sum += values[p * channels + c];
      }
      const mean = sum / (pixels * size);
      let squares = 0;
      for (let p = 0; p < pixels; p += 1) {
        for (let c = from; c < to; c += 1) squares += (values[p * channels + c] - mean) ** 2;
      }
      const inverse = 1 / Math.sqrt(squares / (pixels * size) + EPSILON);
      for (let c = from; c < to; c += 1) {
        let factor = inverse * weight[c];
        let shift = bias[c] - mean * factor;
        if (terms) {
          factor *= 1 + terms.scale[c];
          shift = shift * (1 + terms.scale[c]) + terms.shift[c];
        }
        for (let at = c; at < values.length; at += channels) {
          const value = values[at] * factor + shift;
          y.values[at] = silu ? value / (1 + Math.exp(-value)) : value;
        }
      }
    }
    return y;
  }

  /** The channels of both images. */
  join(x, other) {
    const channels = x.channels + other.channels;
    const y = blank(x.height, x.width, channels);
    for (let p = 0; p < x.height * x.width; p += 1) {
      y.values.set(x.values.subarray(p * x.channels, (p + 1) * x.channels), p * channels);
      const theirs = other.values.subarray(p * other.channels, (p + 1) * other.channels);
      y.values.set(theirs, p * channels + x.channels);
    }
    return y;
  }

  /** Attention of all pixels to all, of an image whose channels are queries, keys and values. */
  attend(qkv, heads) {
    const { height, width, values } = qkv;
    const channels = qkv.channels / 3;
    const y = blank(height, width, channels);
    const [pixels, size] = [height * width, channels / heads];
    const shares = new Float64Array(pixels);
    for (let head = 0; head < heads; head += 1) {
      for (let p = 0; p < pixels; p += 1) {
        const query = p * qkv.channels + head * size;
        let most = -Infinity;
        for (let other = 0; other < pixels; other += 1) {
          const key = other * qkv.channels + channels + head * size;
          let product = 0;
          for (let c = 0; c < size; c += 1) product += values[query + c] * values[key + c];
          shares[other] = product / Math.sqrt(size);
          most = Math.max(most, shares[other]);
        }
        let sum = 0;
        for (let other = 0; other < pixels; other += 1) {
          shares[other] = Math.exp(shares[other] - most);
          sum += shares[other];
        }
        const to = p * channels + head * size;
        for (let other = 0; other < pixels; other += 1) {
          const from = other * qkv.channels + 2 * channels + head * size;
          const share = shares[other] / sum;
          for (let c = 0; c < size; c += 1) y.values[to + c] += share * values[from + c];
        }
      }
    }
    return y;
  }

  close() {}
}

function blank(height, width, channels) {
  return { height, width, channels, values: new Float32Array(height * width * channels) };
}

/** Rows (rows, depth) times weights, plus the bias, to (rows, outputs) from row `first` on. */
function multiply(rows, weights, bias, result, first, count, depth, outputs) {
  for (let k = 0; k < outputs; k += 4) {
    const most = Math.min(4, outputs - k);
    for (let row = 0; row < count; row += 4) {
      // Sixteen sums that stay in registers, so that each number that is read counts four times.
      let [s00, s01, s02, s03] = [bias[k], bias[k + 1], bias[k + 2], bias[k + 3]];
      let [s10, s11, s12, s13] = [s00, s01, s02, s03];
      let [s20, s21, s22, s23] = [s00, s01, s02, s03];
      let [s30, s31, s32, s33] = [s00, s01, s02, s03];
      let a0 = row * depth;
      let [a1, a2, a3] = [a0 + depth, a0 + 2 * depth, a0 + 3 * depth];
      const stop = k * depth + 4 * depth;
      for (let w = k * depth; w < stop; w += 4, a0 += 1, a1 += 1, a2 += 1, a3 += 1) {
        const w0 = weights[w];
        const w1 = weights[w + 1];
        const w2 = weights[w + 2];
        const w3 = weights[w + 3];
        let x = rows[a0];
        s00 += x * w0; s01 += x * w1; s02 += x * w2; s03 += x * w3;
        x = rows[a1];
        s10 += x * w0; s11 += x * w1; s12 += x * w2; s13 += x * w3;
        x = rows[a2];
        s20 += x * w0; s21 += x * w1; s22 += x * w2; s23 += x * w3;
        x = rows[a3];
        s30 += x * w0; s31 += x * w1; s32 += x * w2; s33 += x * w3;
      }
      const to = (first + row) * outputs + k;
      if (most === 4 && row + 4 <= count) {
        result[to] = s00; result[to + 1] = s01; result[to + 2] = s02; result[to + 3] = s03;
        let next = to + outputs;
        result[next] = s10; result[next + 1] = s11; result[next + 2] = s12; result[next + 3] = s13;
        next += outputs;
        result[next] = s20; result[next + 1] = s21; result[next + 2] = s22; result[next + 3] = s23;
        next += outputs;
        result[next] = s30; result[next + 1] = s31; result[next + 2] = s32; result[next + 3] = s33;
      } else {
        const sums = [
          [s00, s01, s02, s03], [s10, s11, s12, s13], [s20, s21, s22, s23], [s30, s31, s32, s33],
        ];
        for (let i = 0; i < Math.min(4, count - row); i += 1) {
          for (let j = 0; j < most; j += 1) result[to + i * outputs + j] = sums[i][j];
        }
      }
    }
  }
}
