// Offers a drawn figure as PNG, as SVG and, its numbers, as CSV.

import { download, saveCsv } from "../shared/files.js";
import { themeValue } from "../shared/shared.js";

const ARRAYS = {
  i1: Int8Array,
  u1: Uint8Array,
  i2: Int16Array,
  u2: Uint16Array,
  i4: Int32Array,
  u4: Uint32Array,
  f4: Float32Array,
  f8: Float64Array,
};
const SCALE = 2; // pixels of the PNG for one of the page

/** The numbers or texts of a figure, which Plotly's Python writes as bytes or as a list. */
function valuesOf(packed) {
  if (packed?.bdata === undefined) return packed ?? [];
  const bytes = Uint8Array.from(atob(packed.bdata), (letter) => letter.charCodeAt(0));
  const flat = Array.from(new ARRAYS[packed.dtype](bytes.buffer));
  if (packed.shape === undefined) return flat;
  const [rows, columns] = packed.shape.split(",").map(Number);
  return Array.from({ length: rows }, (_, k) => flat.slice(k * columns, (k + 1) * columns));
}

/** A text of a figure, which Plotly takes for HTML, as it is read. */
function plain(html) {
  return new DOMParser().parseFromString(html, "text/html").body.textContent.trim();
}

function has(value) {
  return value !== null && value !== undefined;
}

/** The rows of a curve or of bars: its name, what stands on the axes, and the interval if any. */
function curveRows(trace, name) {
  const y = valuesOf(trace.y);
  const x = trace.x === undefined ? y.map((_, k) => k) : valuesOf(trace.x);
  const more = valuesOf(trace.customdata);
  const errors = trace.error_y ?? trace.error_x;
  const middle = trace.error_y ? y : x;
  const above = valuesOf(errors?.array);
  const below = errors?.arrayminus ? valuesOf(errors.arrayminus) : above;
  const interval = (k) => {
    if (above.length) return [middle[k] - below[k], middle[k] + above[k]];
    return Array.isArray(more[k]) && more[k].length === 2 ? more[k] : ["", ""];
  };
  return x.map((_, k) => k)
    .filter((k) => has(x[k]) && has(y[k]))
    .map((k) => [name, x[k], y[k], ...interval(k)]);
}

/** All numbers of a figure as a table, whose first row names the columns; `quantity` is what the
 * y axis shows where it has no title. */
function table({ data, layout }, quantity) {
  const title = (axis, other) => plain(layout[axis]?.title?.text ?? "") || other;
  const named = layout.yaxis?.type === "category";
  const [x, y] = [title("xaxis", "x"), title("yaxis", named ? "name" : quantity)];
  const [first] = data;
  if (first?.type === "heatmap") {
    const columns = valuesOf(first.x);
    const rows = valuesOf(first.y);
    const numbers = valuesOf(first.customdata?.shape ? first.customdata : first.z);
    const cells = numbers.flatMap((row, k) => row.map((z, at) => [columns[at], rows[k], z]));
    return [[x, y, "value"], ...cells];
  }
  if (first?.type === "parcoords") {
    const axes = first.dimensions.map((axis) => {
      const places = valuesOf(axis.tickvals);
      return valuesOf(axis.values).map((value) => axis.ticktext?.[places.indexOf(value)] ?? value);
    });
    const names = first.dimensions.map((axis) => plain(axis.label));
    return [names, ...axes[0].map((_, k) => axes.map((axis) => plain(String(axis[k]))))];
  }
  // What can neither be pointed at nor stands in the legend is only drawn.
  const curves = data.filter(({ hoverinfo, showlegend, yaxis }) => {
    const hidden = yaxis && layout[yaxis.replace("y", "yaxis")]?.visible === false;
    return !hidden && !(hoverinfo === "skip" && showlegend === false);
  });
  const rows = curves.flatMap((trace) => curveRows(trace, plain(trace.name ?? "")));
  // Columns in which nothing stands are left out.
  const kept = [0, 1, 2, 3, 4].filter((at) => rows.some((row) => row[at] !== ""));
  const names = ["curve", x, y, "low", "high"];
  return rows.length ? [names, ...rows].map((row) => kept.map((at) => row[at])) : [];
}

/** Let the buttons of `menu` save the figure in `box`: as it is seen at that time, or its numbers
 * as `box.source` has them, with all digits. */
export function offerFiles(menu, box) {
  const image = async (format, scale) => {
    const layout = { ...box.layout, paper_bgcolor: themeValue(box, "background-color") };
    const { offsetWidth: width, offsetHeight: height } = box;
    const size = { format, width, height, scale };
    const address = await window.Plotly.toImage({ data: box.data, layout }, size);
    download(`${box.name}.${format}`, address);
  };
  const numbers = () => {
    saveCsv(`${box.name}.csv`, table(JSON.parse(box.source), box.quantity));
  };
  const [png, svg, csv] = menu.querySelectorAll("button");
  png.addEventListener("click", () => image("png", SCALE));
  svg.addEventListener("click", () => image("svg", 1));
  csv.addEventListener("click", numbers);
}
