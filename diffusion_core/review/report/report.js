"use strict";
// Figures and slider of a report. All data is in the page; nothing is loaded.
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const escaped = (text) => text.replace(/[&<>$%{}]/g, (each) => `&#${each.charCodeAt(0)};`);

// ---------------------------------------------------------------- samples
const slider = find("step");
if (slider) {
  const steps = JSON.parse(slider.dataset.steps);
  find("samples-controls").hidden = false;
  const show = () => {
    const at = steps[Number(slider.value)];
    find("at").textContent = at.toLocaleString("en");
    slider.setAttribute("aria-valuetext", `step ${at}`);
    for (const strips of document.querySelectorAll(".strips")) {
      let shown = strips.firstElementChild; // the newest up to this step
      for (const strip of strips.children) {
        if (Number(strip.dataset.step) <= at) shown = strip;
      }
      for (const strip of strips.children) strip.hidden = strip !== shown;
    }
  };
  slider.addEventListener("input", show);
  show();
}

// ---------------------------------------------------------------- figures
const smoothed = (values, weight) => {
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    sum = weight * sum + value;
    total = weight * total + 1;
    return sum / total;
  });
};

const layout = (x, y, logarithmic) => {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true };
  return {
    height: 360,
    margin: { l: 12, r: 12, t: 24, b: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("text"), family: "system-ui, sans-serif" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: { ...axis, title: { text: x } },
    yaxis: { ...axis, title: { text: y }, type: logarithmic ? "log" : "linear" },
    showlegend: data.runs.length > 1,
  };
};
const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

const UNITS = [[3600, "hours"], [60, "minutes"], [1, "seconds"]];
const drawCurves = () => {
  const name = find("curve").value;
  const by = find("axis").value;
  const weight = name === "loss" || name === "gradient_norm" ? Number(find("smoothing").value) : 0;
  find("smoothing").disabled = name !== "loss" && name !== "gradient_norm";
  const there = data.runs.map((run, k) => ({ run, k, curve: run.curves[name] })).filter((each) => each.curve);
  const longest = Math.max(0, ...there.flatMap(({ curve }) => curve.seconds.slice(-1)));
  const [seconds, unit] = UNITS.find(([length]) => longest >= 2 * length) || UNITS[2];
  const titles = { step: "step", images: "images seen", seconds: `training time, ${unit}` };
  const traces = [];
  for (const { run, k, curve } of there) {
    const x = {
      step: curve.step,
      images: curve.step.map((step) => step * run.batch),
      seconds: curve.seconds.map((at) => at / seconds),
    }[by];
    const line = { color: colour(`run-${k % 8}`) };
    const trace = { name: escaped(run.name), legendgroup: String(k), mode: "lines" };
    const points = curve.step.length < 40 ? "lines+markers" : "lines";
    if (weight) {
      traces.push({ ...trace, x, y: curve.value, line: { ...line, width: 1 }, opacity: 0.3, showlegend: false, hoverinfo: "skip" });
    }
    traces.push({ ...trace, x, y: smoothed(curve.value, weight), line: { ...line, width: 2 }, mode: points });
  }
  window.Plotly.react("curves-figure", traces, layout(titles[by], data.curves[name], find("logarithmic").checked), config);
};

const drawQuality = () => {
  const name = find("metric").value;
  const metric = data.metrics[name];
  const scale = metric.percent ? 100 : 1;
  const traces = [];
  data.runs.forEach((run, k) => {
    const ways = new Map();
    for (const each of run.quality) {
      if (each.values[name]) ways.set(each.way, [...(ways.get(each.way) || []), each]);
    }
    [...ways].forEach(([way, results], nth) => {
      const value = results.map((each) => each.values[name].map((number) => number * scale));
      traces.push({
        name: escaped(ways.size > 1 ? `${run.name}, ${way}` : run.name),
        x: results.map((each) => each.step),
        y: value.map(([middle]) => middle),
        error_y: {
          array: value.map(([middle, , high]) => high - middle),
          arrayminus: value.map(([middle, low]) => middle - low),
        },
        mode: "lines+markers",
        line: { color: colour(`run-${k % 8}`), dash: ["solid", "dot", "dash", "dashdot"][nth % 4] },
        hovertemplate: `step %{x:,}: %{y:.3~g}<br>${escaped(way)}<extra>${escaped(run.name)}</extra>`,
      });
    });
  });
  const look = layout("training step", metric.title + (metric.percent ? ", %" : ""), false);
  look.yaxis.rangemode = "tozero";
  look.showlegend = traces.length > 1;
  if (innerWidth < 700) look.height += 20 * traces.length; // of the legend, which is in one column
  window.Plotly.react("quality-figure", traces, look, config);
};

const figures = [
  ["curves", ["curve", "axis", "smoothing", "logarithmic"], drawCurves],
  ["quality", ["metric"], drawQuality],
].filter(([id]) => find(`${id}-figure`));

const start = async () => {
  const packed = Uint8Array.from(atob(find("plotly").textContent), (each) => each.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  for (const [id, controls, draw] of figures) {
    find(`${id}-figure`).replaceChildren();
    find(`${id}-controls`).hidden = false;
    for (const control of controls) find(control).addEventListener("input", draw);
    draw();
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const [, , draw] of figures) draw();
  });
};
if (figures.length && "DecompressionStream" in window) start();
