// The layers of the networks on the graphics processor, in WebGL2; see processor.js for what each
// does. An image is a texture of floats: four channels a texel, texel (column, row + height * block)
// holding the channels 4 block ... 4 block + 3 of a pixel, zeros beyond the last channel.

const VERTICES = `#version 300 es
in vec2 corner;
void main() { gl_Position = vec4(corner, 0, 1); }`;

const HEAD = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
out vec4 result;
// A value of an image with \`height\` rows.
float valueAt(sampler2D x, int height, int column, int row, int channel) {
  return texelFetch(x, ivec2(column, (channel >> 2) * height + row), 0)[channel & 3];
}
`;

const CONVOLVE = `
uniform sampler2D x, weight, bias, other;
uniform int height, width, outHeight, blocks, kernel, stride, up, adds;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  int block = at.y / outHeight, row = at.y % outHeight, padding = kernel / 2;
  vec4 sum = texelFetch(bias, ivec2(block, 0), 0);
  for (int tap = 0; tap < kernel * kernel; tap += 1) {
    int v = row * stride + tap / kernel - padding, h = at.x * stride + tap % kernel - padding;
    if (v < 0 || h < 0 || v >= height << up || h >= width << up) continue;
    v >>= up;
    h >>= up;
    int weights = block * kernel * kernel + tap;
    for (int k = 0; k < blocks; k += 1) {
      vec4 value = texelFetch(x, ivec2(h, k * height + v), 0);
      sum += value.x * texelFetch(weight, ivec2(4 * k, weights), 0)
        + value.y * texelFetch(weight, ivec2(4 * k + 1, weights), 0)
        + value.z * texelFetch(weight, ivec2(4 * k + 2, weights), 0)
        + value.w * texelFetch(weight, ivec2(4 * k + 3, weights), 0);
    }
  }
  if (adds == 1) sum += texelFetch(other, at, 0);
  result = sum;
}`;

// Of each channel the mean (row 0) and the mean square distance from it (row 1).
const MOMENTS = `
uniform sampler2D x;
uniform int height, width;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  vec4 mean = vec4(0), squares = vec4(0);
  for (int v = 0; v < height; v += 1) {
    for (int h = 0; h < width; h += 1) mean += texelFetch(x, ivec2(h, at.x * height + v), 0);
  }
  mean /= float(height * width);
  for (int v = 0; v < height; v += 1) {
    for (int h = 0; h < width; h += 1) {
      vec4 apart = texelFetch(x, ivec2(h, at.x * height + v), 0) - mean;
      squares += apart * apart;
    }
  }
  result = at.y == 0 ? mean : squares / float(height * width);
}`;

// Of each channel the factor (row 0) and the shift (row 1) that its group and the terms come to.
const FOLD = `
uniform sampler2D moments, own, terms;
uniform int channels, size;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  vec4 values = vec4(0);
  for (int i = 0; i < 4; i += 1) {
    int channel = 4 * at.x + i;
    if (channel >= channels) break;
    int first = channel / size * size;
    float mean = 0.0, variance = 0.0;
    for (int c = first; c < first + size; c += 1) mean += texelFetch(moments, ivec2(c >> 2, 0), 0)[c & 3];
    mean /= float(size);
    for (int c = first; c < first + size; c += 1) {
      float apart = texelFetch(moments, ivec2(c >> 2, 0), 0)[c & 3] - mean;
      variance += texelFetch(moments, ivec2(c >> 2, 1), 0)[c & 3] + apart * apart;
    }
    float factor = texelFetch(own, ivec2(at.x, 0), 0)[i] / sqrt(variance / float(size) + 1e-5);
    float scale = 1.0 + texelFetch(terms, ivec2(at.x, 0), 0)[i];
    float shift = (texelFetch(own, ivec2(at.x, 1), 0)[i] - mean * factor) * scale
      + texelFetch(terms, ivec2(at.x, 1), 0)[i];
    values[i] = at.y == 0 ? factor * scale : shift;
  }
  result = values;
}`;

const NORM = `
uniform sampler2D x, folded;
uniform int height, silu;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  int block = at.y / height;
  vec4 value = texelFetch(x, at, 0) * texelFetch(folded, ivec2(block, 0), 0)
    + texelFetch(folded, ivec2(block, 1), 0);
  result = silu == 1 ? value / (1.0 + exp(-value)) : value;
}`;

const JOIN = `
uniform sampler2D x, other;
uniform int height, channels, both;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  int block = at.y / height, row = at.y % height;
  vec4 values = vec4(0);
  for (int i = 0; i < 4; i += 1) {
    int channel = 4 * block + i;
    if (channel >= both) break;
    values[i] = channel < channels
      ? valueAt(x, height, at.x, row, channel)
      : valueAt(other, height, at.x, row, channel - channels);
  }
  result = values;
}`;

// exp(score - largest) / sum needs the largest score and the sum first: for each pixel and head.
const SCORES = `
uniform sampler2D qkv;
uniform int height, width, channels, size;
float score(int pixel, int other, int head) {
  float product = 0.0;
  for (int c = head * size; c < (head + 1) * size; c += 1) {
    product += valueAt(qkv, height, pixel % width, pixel / width, c)
      * valueAt(qkv, height, other % width, other / width, channels + c);
  }
  return product / sqrt(float(size));
}
`;
const SCORE = `${SCORES}
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy); // the other pixel, and the pixel and the head
  int pixels = height * width;
  result = vec4(score(at.y % pixels, at.x, at.y / pixels), 0, 0, 0);
}`;
const SOFTMAX = `
uniform sampler2D scores;
uniform int pixels;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  float largest = texelFetch(scores, ivec2(0, at.y), 0).x, sum = 0.0;
  for (int k = 1; k < pixels; k += 1) largest = max(largest, texelFetch(scores, ivec2(k, at.y), 0).x);
  for (int k = 0; k < pixels; k += 1) sum += exp(texelFetch(scores, ivec2(k, at.y), 0).x - largest);
  result = vec4(largest, sum, 0, 0);
}`;
const ATTEND = `
uniform sampler2D qkv, scores, softmax;
uniform int height, width, channels, size;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  int block = at.y / height, pixel = (at.y % height) * width + at.x, pixels = height * width;
  vec4 values = vec4(0);
  for (int i = 0; i < 4; i += 1) {
    int channel = 4 * block + i;
    if (channel >= channels) break;
    int line = channel / size * pixels + pixel;
    vec4 whole = texelFetch(softmax, ivec2(0, line), 0);
    for (int k = 0; k < pixels; k += 1) {
      values[i] += exp(texelFetch(scores, ivec2(k, line), 0).x - whole.x) / whole.y
        * valueAt(qkv, height, k % width, k / width, 2 * channels + channel);
    }
  }
  result = values;
}`;

/**
 * The methods of `Processor` on textures. The constructor throws an Error where this browser has no
 * WebGL2 with textures of floats, and `end` once the browser has taken the graphics away.
 */
export class Graphics {
  kind = "graphics";

  programs = {};

  free = {}; // places by their size

  used = []; // places of this evaluation

  /** `real`: not where the browser lets the processor do the work. */
  constructor(real = false) {
    const how = { antialias: false, depth: false, failIfMajorPerformanceCaveat: real };
    const gl = new OffscreenCanvas(1, 1).getContext("webgl2", how);
    if (!gl) throw new Error(real ? "This browser has no fast WebGL2." : "This browser has no WebGL2.");
    if (!gl.getExtension("EXT_color_buffer_float")) {
      throw new Error("This browser's WebGL2 does not compute with 32-bit numbers.");
    }
    this.gl = gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    const parts = { CONVOLVE, MOMENTS, FOLD, NORM, JOIN, SCORE, SOFTMAX, ATTEND };
    for (const [name, text] of Object.entries(parts)) this.programs[name] = compile(gl, text);
  }

  loadNorm({ weight, bias }, groups) {
    return { own: this.rowsTexture([weight.values, bias.values]), groups };
  }

  textureOf(width, height, values = null) {
    const { gl } = this;
    const most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    if (Math.max(width, height) > most) throw new Error(`WebGL2: a texture has more than ${most} rows.`);
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, width, height, 0, gl.RGBA, gl.FLOAT, values);
    return texture;
  }

  /** Rows of as many numbers, four a texel. */
  rowsTexture(rows) {
    const width = Math.ceil(rows[0].length / 4);
    const values = new Float32Array(4 * width * rows.length);
    rows.forEach((row, k) => values.set(row, 4 * width * k));
    return this.textureOf(width, rows.length, values);
  }

  /** A place for a result, which one evaluation of the network uses once. */
  place(width, height) {
    const { gl, free, used } = this;
    const size = `${width} ${height}`;
    let found = free[size]?.pop();
    if (!found) {
      found = { texture: this.textureOf(width, height), frame: gl.createFramebuffer(), size };
      gl.bindFramebuffer(gl.FRAMEBUFFER, found.frame);
      const { FRAMEBUFFER, COLOR_ATTACHMENT0, TEXTURE_2D } = gl;
      gl.framebufferTexture2D(FRAMEBUFFER, COLOR_ATTACHMENT0, TEXTURE_2D, found.texture, 0);
      Object.assign(found, { columns: width, rows: height });
    }
    used.push(found);
    return found;
  }

  image(height, width, channels) {
    const blocks = Math.ceil(channels / 4);
    return { height, width, channels, blocks, ...this.place(width, height * blocks) };
  }

  /** Let a program fill `to`; textures and whole numbers go to the uniforms of their names. */
  run(name, to, textures, numbers) {
    const { gl, programs } = this;
    const { program, uniforms } = programs[name];
    gl.useProgram(program);
    Object.entries(textures).forEach(([uniform, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(uniforms[uniform], unit);
    });
    for (const [uniform, value] of Object.entries(numbers)) gl.uniform1i(uniforms[uniform], value);
    gl.bindFramebuffer(gl.FRAMEBUFFER, to.frame);
    gl.viewport(0, 0, to.columns, to.rows);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    return to;
  }

  begin(planes, height, width, channels) {
    const { gl } = this;
    const x = this.image(height, width, channels);
    const count = height * width;
    const values = new Float32Array(4 * x.blocks * count);
    for (let c = 0; c < channels; c += 1) {
      for (let p = 0; p < count; p += 1) {
        values[4 * ((c >> 2) * count + p) + (c & 3)] = planes[c * count + p];
      }
    }
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, x.texture);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, x.columns, x.rows, gl.RGBA, gl.FLOAT, values);
    return x;
  }

  end(x) {
    const { gl, free, used } = this;
    const count = x.height * x.width;
    const values = new Float32Array(4 * x.blocks * count);
    gl.bindFramebuffer(gl.FRAMEBUFFER, x.frame);
    gl.readPixels(0, 0, x.columns, x.rows, gl.RGBA, gl.FLOAT, values);
    for (const each of used.splice(0)) (free[each.size] ??= []).push(each);
    if (gl.isContextLost()) throw new Error("The browser has taken the graphics processor away.");
    const fault = gl.getError();
    if (fault !== gl.NO_ERROR) throw new Error(`WebGL2 reports error ${fault}.`);
    const planes = new Float32Array(x.channels * count);
    for (let c = 0; c < x.channels; c += 1) {
      for (let p = 0; p < count; p += 1) {
        planes[c * count + p] = values[4 * ((c >> 2) * count + p) + (c & 3)];
      }
    }
    return planes;
  }

  /** Weights (K, C, k, k): in texel (channel, block of outputs and tap) those of four outputs. */
  loadConvolution({ weight, bias }) {
    const [outputs, inputs, kernel] = weight.shape;
    const taps = kernel * kernel;
    const columns = 4 * Math.ceil(inputs / 4);
    const rows = Math.ceil(outputs / 4) * taps;
    const values = new Float32Array(4 * columns * rows);
    for (let k = 0; k < outputs; k += 1) {
      for (let c = 0; c < inputs; c += 1) {
        for (let tap = 0; tap < taps; tap += 1) {
          const texel = ((k >> 2) * taps + tap) * columns + c;
          values[4 * texel + (k & 3)] = weight.values[(k * inputs + c) * taps + tap];
        }
      }
    }
    const own = this.textureOf(columns, rows, values);
    return { outputs, kernel, weight: own, bias: this.rowsTexture([bias.values]) };
  }

  convolve(x, layer, { stride = 1, up = false, add = null } = {}) {
    const { outputs, kernel, weight, bias } = layer;
    const padding = kernel >> 1;
    const [height, width] = [x.height, x.width].map((side) => (
      Math.floor(((up ? 2 * side : side) + 2 * padding - kernel) / stride) + 1
    ));
    const y = this.image(height, width, outputs);
    const textures = { x: x.texture, weight, bias, other: (add ?? x).texture };
    return this.run("CONVOLVE", y, textures, {
      height: x.height, width: x.width, outHeight: height, blocks: x.blocks, kernel, stride,
      up: Number(up), adds: Number(add !== null),
    });
  }

  norm(x, { own, groups }, { terms = null, silu = false } = {}) {
    const { height, width, channels, blocks } = x;
    const moments = this.place(blocks, 2);
    this.run("MOMENTS", moments, { x: x.texture }, { height, width });
    const folded = this.place(blocks, 2);
    const textures = { moments: moments.texture, own, terms: this.termsTexture(terms, channels) };
    this.run("FOLD", folded, textures, { channels, size: channels / groups });
    const y = this.image(height, width, channels);
    const from = { x: x.texture, folded: folded.texture };
    return this.run("NORM", y, from, { height, silu: Number(silu) });
  }

  termsTexture(terms, channels) {
    const { gl } = this;
    const blocks = Math.ceil(channels / 4);
    const values = new Float32Array(8 * blocks);
    if (terms) {
      values.set(terms.scale);
      values.set(terms.shift, 4 * blocks);
    }
    const { texture } = this.place(blocks, 2);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, blocks, 2, gl.RGBA, gl.FLOAT, values);
    return texture;
  }

  join(x, other) {
    const both = x.channels + other.channels;
    const y = this.image(x.height, x.width, both);
    const textures = { x: x.texture, other: other.texture };
    return this.run("JOIN", y, textures, { height: x.height, channels: x.channels, both });
  }

  attend(qkv, heads) {
    const { height, width, texture } = qkv;
    const [channels, pixels] = [qkv.channels / 3, height * width];
    const sizes = { height, width, channels, size: channels / heads };
    const scores = this.place(pixels, pixels * heads);
    this.run("SCORE", scores, { qkv: texture }, sizes);
    const softmax = this.place(1, pixels * heads);
    this.run("SOFTMAX", softmax, { scores: scores.texture }, { pixels });
    const y = this.image(height, width, channels);
    const textures = { qkv: texture, scores: scores.texture, softmax: softmax.texture };
    return this.run("ATTEND", y, textures, sizes);
  }

  close() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext(); // a page may have only a few
  }
}

function compile(gl, text) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTICES], [gl.FRAGMENT_SHADER, HEAD + text]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.bindAttribLocation(program, 0, "corner");
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    const faults = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error(`WebGL2: ${gl.getProgramInfoLog(program)} ${faults.join(" ")}`);
  }
  const uniforms = {};
  const count = gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS);
  for (let k = 0; k < count; k += 1) {
    const { name } = gl.getActiveUniform(program, k);
    uniforms[name] = gl.getUniformLocation(program, name);
  }
  return { program, uniforms };
}
