// A row of the sinusoidal embedding, as curves and as a table, computed here for each timestep.

import { drawPlot, openPlot } from "../plot/plot.js";
import { formatNumber } from "../shared/shared.js";
import { followTimestep } from "../shared/timestep.js";

export default function ({ data, parentElement }) {
  const box = parentElement.querySelector(".sinusoids");
  const row = (box.row ??= { box, body: box.querySelector("tbody") });
  if (row.size !== data.size || row.base !== data.base) {
    Object.assign(row, data);
    row.frequencies = frequenciesOf(data.size, data.base);
    row.plot = openPlot(box.querySelector(".plot"), {
      x: { title: "dimension", low: 0, high: data.size - 1 },
      y: { title: "value", low: -1, high: 1 },
      file: "embedding-row",
    });
    row.cells = fill(row);
  }
  followTimestep(box, (t) => draw(row, t));
}

/** Radians per timestep, falling geometrically from 1 to 1 / base. */
function frequenciesOf(size, base) {
  const half = size / 2;
  return Float64Array.from({ length: half }, (_, i) => Math.exp(i * -(Math.log(base) / (half - 1))));
}

/** A line of the table for each frequency; returns the cells of its sine and its cosine. */
function fill({ body, frequencies }) {
  const lines = Array.from(frequencies, (frequency, i) => {
    const line = document.createElement("tr");
    for (const words of [i, frequency.toFixed(6), "", ""]) line.insertCell().textContent = words;
    return line;
  });
  body.replaceChildren(...lines);
  return lines.map((line) => [line.cells[2], line.cells[3]]);
}

function draw({ plot, size, frequencies, cells }, t) {
  const half = size / 2;
  const sine = frequencies.map((frequency) => Math.sin(t * frequency));
  const cosine = frequencies.map((frequency) => Math.cos(t * frequency));
  const x = frequencies.map((_, i) => i);
  drawPlot(plot, [
    { name: "sine", kind: "line", x, y: sine },
    { name: "cosine", kind: "line", x: x.map((i) => half + i), y: cosine },
  ], `The ${size} numbers of t = ${formatNumber(t)}: ${half} sines, then ${half} cosines.`);
  cells.forEach(([first, second], i) => {
    first.textContent = withSign(sine[i]);
    second.textContent = withSign(cosine[i]);
  });
}

/** Four digits, with a minus as wide as a plus. */
function withSign(value) {
  return value.toFixed(4).replace("-", "−");
}
