// Random numbers that are the same here and in the core: diffusion_core/playground/random.py says
// how they are made.

const STREAMS = ["data", "weights", "batches", "x_T", "noise"];

/** A function that gives the next number in (0, 1) of one of a seed's streams. */
export function uniformsOf(seed, stream) {
  let state = (Math.imul(seed, 0x9e3779b9) + Math.imul(STREAMS.indexOf(stream), 0x85ebca6b)) | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
}

/** `count` numbers, in [0, 1) times `below`, as whole ones. */
export function integers(uniform, below, count) {
  return Int32Array.from({ length: count }, () => Math.floor(uniform() * below));
}

/** `count` points of N(0, I), x and y in turns. */
export function normals(uniform, count) {
  const points = new Float64Array(2 * count);
  for (let k = 0; k < 2 * count; k += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    points[k] = radius * Math.cos(angle);
    points[k + 1] = radius * Math.sin(angle);
  }
  return points;
}
