// Draws a Plotly figure and goes on drawing into the same plot, so that zoom and hidden curves
// stay while new points come in. Colours that stand for the theme's are replaced by them.

function library(url) {
  window.diffusionLabPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(url, document.baseURI);
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      window.diffusionLabPlotly = undefined; // so that the next update tries again
      reject(new Error(`${url} did not load`));
    };
    document.head.append(script);
  });
  return window.diffusionLabPlotly;
}

function themed(figure, style) {
  const value = (name) => style.getPropertyValue(`--st-${name}`).trim();
  const palette = (name) => value(name).split(/,(?![^(]*\))/).map((colour) => colour.trim());
  const colours = {};
  const placeholder = (number) => `#0000${String(number).padStart(2, "0")}`;
  palette("chart-categorical-colors").slice(0, 10)
    .forEach((colour, k) => { colours[placeholder(1 + k)] = colour; });
  palette("chart-sequential-colors").slice(0, 10)
    .forEach((colour, k) => { colours[placeholder(11 + k)] = colour; });
  palette("chart-diverging-colors").slice(0, 10)
    .forEach((colour, k) => { colours[placeholder(21 + k)] = colour; });
  colours[placeholder(36)] = value("gray-text-color") || value("gray-color") || "#888888";
  const { data, layout } = JSON.parse(
    figure.replace(/#0000\d\d/g, (found) => colours[found] || found),
  );
  const text = value("text-color");
  const line = value("border-color");
  const axis = { gridcolor: line, linecolor: line, zeroline: false, automargin: true };
  return {
    data,
    layout: {
      ...layout,
      autosize: true,
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

// A redraw takes the browser about a tenth of a second, which a film of samples beside it would
// show: while that moves a redraw waits, and not for ever.
const LONGEST_WAIT_MS = 5000;

function whenStill(box, draw) {
  box.latest ??= performance.now() + LONGEST_WAIT_MS;
  const wait = Math.min(window.diffusionLabMovingUntil ?? 0, box.latest) - performance.now();
  if (wait > 0) {
    setTimeout(whenStill, wait, box, draw);
  } else if (draw()) {
    box.latest = undefined;
  }
}

export default function ({ data, parentElement }) {
  const box = parentElement.querySelector(".live-chart");
  box.style.height = `${data.height}px`;
  box.setAttribute("role", "figure");
  box.setAttribute("aria-label", data.alt);
  // Of two updates while the library loads only the later one is drawn.
  const turn = (box.turn = (box.turn ?? 0) + 1);
  library(data.library).then(
    (Plotly) => whenStill(box, () => {
      if (turn !== box.turn || !box.isConnected) return false;
      const { data: curves, layout } = themed(data.figure, getComputedStyle(box));
      Plotly.react(box, curves, layout, { displaylogo: false, responsive: true });
      box.watcher ??= new ResizeObserver(() => box.offsetWidth && Plotly.Plots.resize(box));
      box.watcher.observe(box);
      return true;
    }),
    () => { box.textContent = "The chart cannot be drawn: its library did not load."; },
  );
  return () => {
    box.watcher?.disconnect();
    box.watcher = undefined;
  };
}
