// Reads the file of a model: safetensors, as diffusion_core/sampling/browser_model.py writes it.

const ITEM = { F16: 2, F32: 4, F64: 8 }; // bytes

/** { model, tensors }: what the file says of itself, and { shape, values } by name. */
export function readModelFile(buffer) {
  const view = new DataView(buffer);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  const { __metadata__: said, ...entries } = header;
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(entries)) {
    const bytes = new DataView(buffer, 8 + length + from, to - from);
    tensors[name] = { shape, values: numbersOf(bytes, dtype) };
  }
  return { model: JSON.parse(said.model), tensors };
}

function numbersOf(bytes, dtype) {
  const count = bytes.byteLength / ITEM[dtype];
  const values = dtype === "F64" ? new Float64Array(count) : new Float32Array(count);
  for (let k = 0; k < count; k += 1) {
    if (dtype === "F16") values[k] = halfOf(bytes.getUint16(2 * k, true));
    else if (dtype === "F32") values[k] = bytes.getFloat32(4 * k, true);
    else values[k] = bytes.getFloat64(8 * k, true);
  }
  return values;
}

/** The number that 16 bits stand for (IEEE 754 binary16). */
export function halfOf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}
