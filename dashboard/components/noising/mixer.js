// Mixes an image with noise, signal · x_0 + spread · ε, as pixels: with WebGL2, and without it on the
// CPU. Both round to the nearest grey level, as the core does.

const VERTICES = `#version 300 es
in vec2 corner;
void main() { gl_Position = vec4(corner, 0, 1); }`;
const PIXEL = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D image, noise;
uniform float signal, spread;
uniform int size;
out vec4 colour;
void main() {
  ivec2 at = ivec2(gl_FragCoord.x, size - 1 - int(gl_FragCoord.y)); // the first row is the top one
  vec3 x_0 = texelFetch(image, at, 0).rgb * 2.0 - 1.0;
  vec3 x_t = signal * x_0 + spread * texelFetch(noise, at, 0).rgb;
  colour = vec4((x_t + 1.0) / 2.0, 1);
}`;

/**
 * A mixer of square images, RGB row by row: `pixels`, a Uint8Array, and `noise`, a Float32Array.
 * Returns { kind, draw(canvas, signal, spread), close() }; `kind` is "webgl2" or "canvas".
 */
export function openMixer(size, pixels, noise) {
  return onGraphics(size, pixels, noise) ?? onProcessor(size, pixels, noise);
}

function onGraphics(size, pixels, noise) {
  const sheet = document.createElement("canvas");
  sheet.width = sheet.height = size;
  const gl = sheet.getContext("webgl2", { antialias: false, depth: false, alpha: false });
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTICES], [gl.FRAGMENT_SHADER, PIXEL]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.bindAttribLocation(program, 0, "corner");
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  const textures = [["image", gl.RGB8, gl.UNSIGNED_BYTE, pixels], ["noise", gl.RGB32F, gl.FLOAT, noise]];
  textures.forEach(([name, format, type, values], unit) => {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, format, size, size, 0, gl.RGB, type, values);
    gl.uniform1i(gl.getUniformLocation(program, name), unit);
  });
  gl.uniform1i(gl.getUniformLocation(program, "size"), size);
  gl.viewport(0, 0, size, size);
  if (gl.getError() !== gl.NO_ERROR) return null;
  const [signalAt, spreadAt] = ["signal", "spread"].map((name) => gl.getUniformLocation(program, name));
  let instead = null; // the browser may take the graphics away
  return {
    get kind() { return instead ? instead.kind : "webgl2"; },
    draw(canvas, signal, spread) {
      if (gl.isContextLost()) instead ??= onProcessor(size, pixels, noise);
      if (instead) return instead.draw(canvas, signal, spread);
      gl.uniform1f(signalAt, signal);
      gl.uniform1f(spreadAt, spread);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
      fit(canvas, size).drawImage(sheet, 0, 0);
    },
    close() { gl.getExtension("WEBGL_lose_context")?.loseContext(); }, // a page may have only a few
  };
}

function onProcessor(size, pixels, noise) {
  const sheet = new ImageData(size, size);
  return {
    kind: "canvas",
    draw(canvas, signal, spread) {
      const { data } = sheet; // which rounds and clips
      for (let from = 0, to = 0; from < pixels.length; to += 1) {
        for (let k = 0; k < 3; k += 1, from += 1, to += 1) {
          const x_0 = pixels[from] / 127.5 - 1;
          data[to] = (signal * x_0 + spread * noise[from] + 1) * 127.5;
        }
        data[to] = 255;
      }
      fit(canvas, size).putImageData(sheet, 0, 0);
    },
    close() {},
  };
}

/** The context of a canvas with so many pixels a side. */
function fit(canvas, size) {
  if (canvas.width !== size || canvas.height !== size) canvas.width = canvas.height = size;
  return canvas.getContext("2d");
}
