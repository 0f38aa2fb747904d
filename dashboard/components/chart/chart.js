// Shows a Plotly figure and updates the same plot, so that zoom and hidden curves stay while new
// points come in. Placeholder colours are replaced by the theme's.

import { movingFor, themeColours, themeValue } from "../shared/shared.js";
import { openCursor } from "./cursor.js";
import { offerFiles } from "./files.js";

function loadPlotly(url) {
  window.diffusionLabPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(url, document.baseURI);
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => {
      window.diffusionLabPlotly = undefined; // the next update tries again
      reject(new Error(`${url} did not load`));
    });
    document.head.append(script);
  });
  return window.diffusionLabPlotly;
}

const MENU_HEIGHT = 24; // pixels above the plot, where the menu of files is

/** The colour that stands for the theme's colour of this number in a figure. */
const placeholder = (number) => `#0000${String(number).padStart(2, "0")}`;

/** Whether a figure is nothing but a legend, which has no numbers. */
function isLegend({ xaxis, yaxis }) {
  return xaxis.visible === false && yaxis.visible === false;
}

function themed(figure, box) {
  const value = (name) => themeValue(box, name);
  const colours = {};
  ["categorical", "sequential", "diverging"].forEach((palette, k) => {
    themeColours(box, `chart-${palette}-colors`)
      .slice(0, 10)
      .forEach((colour, at) => { colours[placeholder(10 * k + at + 1)] = colour; });
  });
  colours[placeholder(36)] = value("gray-text-color") || value("gray-color") || "#888888";
  const recoloured = figure.replace(/#0000\d\d/g, (found) => colours[found] || found);
  const { data, layout } = JSON.parse(recoloured);
  const text = value("text-color");
  const line = value("border-color");
  const axis = { gridcolor: line, linecolor: line, zeroline: false, automargin: true };
  return {
    data,
    layout: {
      ...layout,
      autosize: true,
      margin: { ...layout.margin, t: isLegend(layout) ? 0 : Math.max(layout.margin.t, MENU_HEIGHT) },
      font: { family: value("font"), size: 12, color: text },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      xaxis: { ...axis, showgrid: false, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
      hoverlabel: { bgcolor: value("background-color"), bordercolor: line, font: { color: text } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: text },
    },
  };
}

// A redraw takes about a tenth of a second and would make a film on the same page stutter: it waits
// while a film moves, up to this long.
const LONGEST_WAIT_MS = 5000;

function whenStill(box, draw) {
  box.latest ??= performance.now() + LONGEST_WAIT_MS;
  const wait = Math.min(movingFor(), box.latest - performance.now());
  if (wait > 0) {
    setTimeout(whenStill, wait, box, draw);
  } else if (draw()) {
    box.latest = undefined;
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".chart");
  box.style.height = `${data.height}px`;
  box.setAttribute("role", "figure");
  box.setAttribute("aria-label", data.alt);
  if (data.leastWidth) {
    box.style.minWidth = `${data.leastWidth}px`;
    box.parentElement.style.overflowX = "auto";
    box.parentElement.tabIndex = 0; // for the arrow keys
  }
  Object.assign(box, { source: data.figure, name: data.name, quantity: data.quantity });
  const menu = parentElement.querySelector(".chart-files");
  if (!box.turn) offerFiles(menu, box);
  // If two updates arrive while the library loads, only the later one is drawn.
  const turn = (box.turn = (box.turn ?? 0) + 1);
  loadPlotly(data.library).then(
    (Plotly) => whenStill(box, () => {
      if (turn !== box.turn || !box.isConnected) return false;
      const { data: curves, layout } = themed(data.figure, box);
      const drawn = JSON.stringify([curves, layout]);
      if (drawn !== box.drawn) {
        Plotly.react(box, curves, layout, { ...data.config, responsive: true });
        if (data.clicks && !box.drawn) {
          box.on("plotly_click", ({ points: [{ customdata }] }) => {
            if (customdata?.[1]) setTriggerValue("clicked", customdata[1]);
          });
        }
        box.drawn = drawn;
        menu.hidden = isLegend(layout);
      }
      if (data.cursor) openCursor(box, data.cursor);
      box.watcher ??= new ResizeObserver(() => box.offsetWidth && Plotly.Plots.resize(box));
      box.watcher.observe(box);
      return true;
    }),
    () => { box.textContent = "The chart cannot be shown: Plotly did not load."; },
  );
  return () => {
    box.watcher?.disconnect();
    box.watcher = undefined;
  };
}
