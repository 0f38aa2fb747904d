// The noise of a seed, the same here as in the core (diffusion_core/process/noise.py): its streams
// are NumPy's SeedSequence, its numbers those of PyTorch's generator on the CPU. Only the last bits
// may differ, for PyTorch takes its logarithms and sines in float32.

const [N, M] = [624, 397]; // of the Mersenne Twister

/** A function that gives the next `count` numbers of N(0, 1) of image `index` of a seed. */
export function imageNoise(seed, index = 0) {
  const [low, high] = seedSequence([...wordsOf(seed), ...wordsOf(index)]);
  // The core halves the 64 bits, and PyTorch seeds its generator with the lower 32 of the rest.
  const next = mersenneTwister(((low >>> 1) | (high << 31)) >>> 0);
  return (count) => normals(next, count);
}

/**
 * The noise that a walk starts from, and the source of its further noises. The noises of two seeds
 * are mixed on an arc, cos A + sin B, the first one moved by (across, down) pixels around the edge;
 * where `mask` is 1 the second one stays alone. What comes out is N(0, I) whatever is chosen.
 */
export function startOf({ seed, other, angle, moved, mask }, { channels, image_size: size }) {
  const count = channels * size ** 2;
  const noise = imageNoise(seed);
  const [first, second] = [noise(count), imageNoise(other)(count)];
  const [near, far] = [Math.cos(angle), Math.sin(angle)];
  const x_T = new Float32Array(count);
  for (let row = 0; row < size; row += 1) {
    for (let column = 0; column < size; column += 1) {
      const at = row * size + column;
      const from = around(row - moved[1], size) * size + around(column - moved[0], size);
      for (let c = 0; c < count; c += size ** 2) {
        x_T[c + at] = mask?.[at] ? second[c + at] : near * first[c + from] + far * second[c + at];
      }
    }
  }
  return { x_T, noise };
}

function around(place, size) {
  return ((place % size) + size) % size;
}

/** A whole number that a double holds exactly, as 32-bit words, the lowest first. */
function wordsOf(number) {
  const words = [];
  for (let rest = number; rest > 0; rest = Math.floor(rest / 2 ** 32)) words.push(rest % 2 ** 32);
  return words.length ? words : [0];
}

/** The first 64 bits of NumPy's SeedSequence (O'Neill's seed_seq_fe): [low, high]. */
function seedSequence(entropy) {
  const pool = new Uint32Array(4);
  let constant = 0x43b0d7e5;
  const hash = (given) => {
    let value = given ^ constant;
    constant = Math.imul(constant, 0x931e8875);
    value = Math.imul(value, constant);
    return (value ^ (value >>> 16)) >>> 0;
  };
  for (let k = 0; k < 4; k += 1) pool[k] = hash(entropy[k] ?? 0);
  for (let from = 0; from < 4; from += 1) {
    for (let to = 0; to < 4; to += 1) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  }
  for (const word of entropy.slice(4)) {
    for (let to = 0; to < 4; to += 1) pool[to] = mix(pool[to], hash(word));
  }
  constant = 0x8b51f9dd;
  return [pool[0], pool[1]].map((word) => {
    let value = word ^ constant;
    constant = Math.imul(constant, 0x58f38ded);
    value = Math.imul(value, constant);
    return (value ^ (value >>> 16)) >>> 0;
  });
}

function mix(x, y) {
  const value = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0;
  return (value ^ (value >>> 16)) >>> 0;
}

/** MT19937 (Matsumoto & Nishimura 1998): a function that gives the next 32 bits. */
function mersenneTwister(seed) {
  const state = new Uint32Array(N);
  state[0] = seed;
  for (let k = 1; k < N; k += 1) {
    const before = state[k - 1] ^ (state[k - 1] >>> 30);
    state[k] = Math.imul(1812433253, before) + k;
  }
  let at = N;
  return () => {
    if (at === N) {
      for (let k = 0; k < N; k += 1) {
        const both = (state[k] & 0x80000000) | (state[(k + 1) % N] & 0x7fffffff);
        state[k] = state[(k + M) % N] ^ (both >>> 1) ^ (both & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let value = state[at];
    at += 1;
    value ^= value >>> 11;
    value ^= (value << 7) & 0x9d2c5680;
    value ^= (value << 15) & 0xefc60000;
    return (value ^ (value >>> 18)) >>> 0;
  };
}

/** `torch.randn(count)`, 16 numbers or more: Box and Muller, 8 pairs of uniforms at a time. */
function normals(next, count) {
  const values = new Float32Array(count);
  const fill = (from, to) => {
    for (let k = from; k < to; k += 1) values[k] = (next() & 0xffffff) * 2 ** -24;
  };
  const turn = (from) => {
    for (let k = from; k < from + 8; k += 1) {
      const radius = Math.sqrt(-2 * Math.log(1 - values[k]));
      const angle = 2 * Math.PI * values[k + 8];
      values[k] = radius * Math.cos(angle);
      values[k + 8] = radius * Math.sin(angle);
    }
  };
  fill(0, count);
  for (let k = 0; k + 16 <= count; k += 16) turn(k);
  if (count % 16) { // the last 16 are made anew
    fill(count - 16, count);
    turn(count - 16);
  }
  return values;
}
