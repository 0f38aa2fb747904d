// The coefficients of schedules at the timestep of the page, computed from their betas in the order
// of `diffusion_core.process.tables` and so with the same results.

import { formatNumber } from "../shared/shared.js";
import { followTimestep } from "../shared/timestep.js";

const MATH = "http://www.w3.org/1998/Math/MathML";
const BAR = ["msub", ["mover", ["mi", "α"], ["mo", "¯"]], ["mi", "t"]];
const BAR_BEFORE = ["msub", BAR[1], ["mrow", ["mi", "t"], ["mo", "−"], ["mn", "1"]]];
const sub = (letter) => ["msub", ["mi", letter], ["mi", "t"]];

// Name, symbol as MathML, and how it follows from beta, alphas_cumprod, its value before and
// log_snr at t.
const ROWS = [
  ["betas", sub("β"), ({ beta }) => beta],
  ["alphas", sub("α"), ({ beta }) => 1 - beta],
  ["alphas_cumprod", BAR, ({ bar }) => bar],
  ["alphas_cumprod_prev", BAR_BEFORE, ({ before }) => before],
  [
    "sqrt_recip_alphas",
    ["msqrt", ["mrow", ["mn", "1"], ["mo", "/"], sub("α")]],
    ({ beta }) => Math.sqrt(1 / (1 - beta)),
  ],
  ["sqrt_alphas_cumprod", ["msqrt", BAR], ({ bar }) => Math.sqrt(bar)],
  [
    "sqrt_one_minus_alphas_cumprod",
    ["msqrt", ["mrow", ["mn", "1"], ["mo", "−"], BAR]],
    ({ bar }) => Math.sqrt(1 - bar),
  ],
  [
    "posterior_variance",
    ["msub", ["mover", ["mi", "β"], ["mo", "~"]], ["mi", "t"]],
    ({ beta, bar, before }) => (beta * (1 - before)) / (1 - bar),
  ],
  ["log_snr", ["mrow", ["mi", "log"], ["mtext", " SNR"]], ({ logSnr }) => logSnr],
];

export default function ({ data, parentElement }) {
  const box = parentElement.querySelector(".coefficients");
  const schedules = data.schedules.map(unpack);
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  const cells = ["name", "symbol", ...schedules.map(({ name }) => name)].map((text) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
    return cell;
  });
  const body = table.createTBody();
  const values = ROWS.map(([name, symbol]) => {
    const row = body.insertRow();
    const first = document.createElement("th");
    first.scope = "row";
    const code = document.createElement("code");
    code.textContent = name;
    first.append(code);
    const math = document.createElementNS(MATH, "math");
    math.append(mathOf(symbol));
    row.append(first);
    row.insertCell().append(math);
    return schedules.map(() => row.insertCell());
  });
  box.replaceChildren(table);
  followTimestep(box, (wanted) => {
    const t = Math.min(wanted, schedules[0].betas.length - 1);
    cells[0].textContent = `at t = ${formatNumber(t)}`;
    schedules.forEach((schedule, column) => {
      const at = {
        beta: schedule.betas[t],
        bar: schedule.bars[t],
        before: t > 0 ? schedule.bars[t - 1] : 1,
        logSnr: schedule.logSnr[t],
      };
      ROWS.forEach(([, , value], row) => {
        values[row][column].textContent = formatCoefficient(value(at));
      });
    });
  });
}

function tableOf(text) {
  return new Float64Array(Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer);
}

function unpack({ name, betas, logSnr }) {
  const found = { name, betas: tableOf(betas), logSnr: tableOf(logSnr) };
  let bar = 1;
  found.bars = found.betas.map((beta) => (bar *= 1 - beta));
  return found;
}

function mathOf([name, ...parts]) {
  const element = document.createElementNS(MATH, name);
  element.append(...parts.map((part) => (typeof part === "string" ? part : mathOf(part))));
  return element;
}

/** A number as `figures.schedule.number` writes it. */
function formatCoefficient(value) {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size >= 1e-3) return sign + fixed(size);
  const [digits, exponent] = size.toExponential(4).split("e-");
  return `${sign}${digits}e−${exponent.padStart(2, "0")}`;
}

/** Four decimals. What lies halfway, an odd number of 32nds, gets an even digit, as in Python. */
function fixed(size) {
  const shown = size.toFixed(4);
  const isOdd = Number(shown.at(-1)) % 2 === 1;
  return (size * 32) % 2 === 1 && isOdd ? (Number(shown) - 1e-4).toFixed(4) : shown;
}
