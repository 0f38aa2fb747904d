// Sample strips of several runs under one slider. Each strip is fetched once, kept as PNG and
// decoded off the main thread when it is needed; moving the slider only draws.

import { go, openPlayer, paintTiles, sayWhere, setFrames } from "../player/player.js";
import { formatImages, formatNumber, startMoving, themeColours } from "../shared/shared.js";

const AT_ONCE = 6; // requests; a browser makes no more to one server anyway
const MOST_PIXELS = 32e6; // of decoded strips in memory, 4 bytes each
const COARSEST = 64; // every 64th strip is fetched first
const AHEAD = 4; // positions decoded before the slider gets there
const SETTLED_MS = 600; // from the last move to the update of the page's address
const RETRY_MS = 2000;
const STILL_MS = 300; // from a move until charts may redraw
const SIZES = [64, 128]; // of an image on the screen

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".film");
  const film = (box.film ??= open(box, data.start));
  film.remember = (at) => setStateValue("at", at);
  update(film, data);
  return () => close(film);
}

// ------------------------------------------------------------------------- the component's life

function open(box, start) {
  const film = {
    box,
    list: box.querySelector(".rows"),
    rows: [],
    notches: [], // the slider's positions, {at, name, step}: wherever a run has a new strip
    spot: parseSpot(start), // {name, step}: the strip at the slider's position
    following: !start, // shows the newest strip and moves on to newer ones
    remembered: start ?? null, // the position in the page's address
    strips: new Map(), // by address
    decoded: new Map(), // by address, the last one used at the end
    pixels: 0,
    wanted: [],
    queue: [],
    loading: 0,
    seen: false,
    direction: 1,
  };
  film.isReady = () => isReady(film);
  film.moved = (before) => moved(film, before);
  film.starts = () => {
    film.following = false;
    film.seen = true;
  };
  film.stands = () => settle(film);
  openPlayer(film, box, draw);
  film.sizes = new ResizeObserver(() => {
    if (box.clientWidth === film.room) return;
    film.room = box.clientWidth;
    film.rows.forEach((row) => { row.painted = null; });
    film.redraw();
  });
  film.sizes.observe(box);
  // All strips are fetched once the film has been on the screen; until then only those shown.
  film.sights = new IntersectionObserver((entries) => {
    film.seen ||= entries.some((entry) => entry.isIntersecting);
    fetchNext(film);
  });
  film.sights.observe(box);
  return film;
}

function close(film) {
  film.closed = true;
  film.sizes.disconnect();
  film.sights.disconnect();
  clearTimeout(film.settling);
  film.decoded.forEach((strip) => strip.bitmap.close());
  film.decoded.clear();
}

function update(film, { rows, alignment }) {
  film.alignment = alignment;
  const known = new Map(film.rows.map((row) => [row.name, row]));
  const strips = new Map();
  const colours = themeColours(film.box, "chart-categorical-colors");
  film.rows = rows.map((data) => {
    const row = Object.assign(known.get(data.name) ?? makeRow(), data, { painted: null });
    row.label.textContent = row.name;
    row.label.style.setProperty("--dot", colours[row.colour % colours.length]);
    row.strips = row.files.map((file, k) => {
      const address = `${row.address}/${encodeURIComponent(file)}?v=${row.versions[k]}`;
      const strip = film.strips.get(address) ?? { address, file, step: row.steps[k], state: "new" };
      strips.set(address, strip);
      return strip;
    });
    return row;
  });
  film.list.replaceChildren(...film.rows.map((row) => row.element));
  film.list.classList.toggle("several", film.rows.length > 1);
  for (const [address, strip] of film.strips) {
    if (!strips.has(address) && strip.bitmap) release(film, strip);
  }
  film.strips = strips;
  film.queue = coarseToFine(film.rows.map((row) => row.strips));

  const places = new Map();
  for (const row of film.rows) {
    row.at.forEach((at, k) => {
      if (!places.has(at)) places.set(at, { at, name: row.name, step: row.steps[k] });
    });
  }
  film.notches = [...places.values()].sort((a, b) => a.at - b.at);
  for (const row of film.rows) {
    let k = -1;
    row.upTo = film.notches.map(({ at }) => {
      while (k + 1 < row.at.length && row.at[k + 1] <= at) k += 1;
      return k;
    });
  }
  setFrames(film, film.notches.length);
  const found = film.following ? -1 : find(film);
  go(film, found < 0 ? film.last : found);
}

/** The position of the current strip, which another alignment changes; -1 if it is gone. */
function find({ spot, rows, notches }) {
  const row = rows.find(({ name }) => name === spot?.name);
  const at = row?.at[row.steps.indexOf(spot.step)];
  return notches.findIndex((notch) => notch.at === at);
}

function makeRow() {
  const element = document.createElement("figure");
  element.innerHTML =
    '<figcaption><b></b> <span class="where"></span> <span class="note"></span></figcaption>' +
    '<div class="screen"><canvas role="img"></canvas><p role="status"></p></div>';
  const [label, where, note, canvas, message] = ["b", ".where", ".note", "canvas", "p"].map(
    (selector) => element.querySelector(selector),
  );
  return { element, label, where, note, canvas, message };
}

// ------------------------------------------------------------------------------------- moving

function moved(film, before) {
  film.direction = Math.sign(film.index - before) || film.direction;
  if (film.index !== before) startMoving(STILL_MS);
  film.spot = film.notches[film.index];
  film.following = film.index === film.last && !film.playing;
}

/** After the last move, tell the server the position for the page's address. */
function settle(film) {
  film.following = !film.playing && film.index === film.last;
  clearTimeout(film.settling);
  film.settling = setTimeout(() => {
    const at = film.following ? null : `${film.spot.step}@${film.spot.name}`;
    if (at !== film.remembered) film.remember(at);
    film.remembered = at;
  }, SETTLED_MS);
}

/** Whether every row shows its strip of this position or cannot: a film skips nothing. */
function isReady(film) {
  return film.rows.every((row) => {
    const strip = row.strips[row.upTo[film.index]];
    if (!strip || strip.state === "broken" || strip.state === "missing") return true;
    return row.painted === strip;
  });
}

// ------------------------------------------------------------------------------------ drawing

function draw(film) {
  const notch = film.notches[film.index];
  if (!notch) return;
  const words = placeWords(film.alignment, notch.at);
  sayWhere(film, words);
  for (const row of film.rows) show(film, row, row.upTo[film.index], notch);
  film.wanted = [];
  for (let k = 0; k <= AHEAD; k += 1) {
    for (const row of film.rows) {
      const strip = row.strips[row.upTo[film.index + k * film.direction] ?? -1];
      if (strip) film.wanted.push(strip);
    }
  }
  film.wanted.forEach((strip) => decode(film, strip));
  for (const row of film.rows) {
    const k = nearest(row.strips, row.upTo[film.index], ({ blob }) => blob);
    if (row.strips[k]) decode(film, row.strips[k]);
  }
  fetchNext(film);
}

function show(film, row, k, notch) {
  const strip = row.strips[k];
  if (!strip) {
    row.where.textContent = "";
    tell(row, `The first samples are at step ${formatNumber(row.steps[0])}.`);
    return;
  }
  const failed = strip.state === "broken" || strip.state === "missing";
  // Until a strip has arrived, show the nearest one that has, with its step.
  const shown = failed ? k : nearest(row.strips, k, ({ bitmap }) => bitmap);
  const step = `step ${formatNumber(row.steps[shown])}`;
  const ended = shown === row.strips.length - 1 && notch.at > row.at[shown];
  row.where.textContent = [
    step,
    ...(film.alignment === "step" ? [] : [placeWords(film.alignment, row.at[shown])]),
    ...(ended ? ["its latest"] : []),
  ].join(" · ");
  row.note.textContent = row.forming ? "one image: finished (first) to noise (last)" : "";
  if (strip.state === "broken") tell(row, `The samples in ${strip.file} cannot be read.`);
  else if (strip.state === "missing") tell(row, `The samples of ${step} could not be loaded.`);
  else tell(row, "");
  const isThere = Boolean(strip.bitmap);
  row.canvas.classList.toggle("waiting", !isThere);
  row.canvas.setAttribute("aria-busy", String(!isThere && !failed));
  const drawn = row.strips[shown];
  if (!drawn.bitmap) return;
  use(film, drawn);
  if (row.painted !== drawn) paint(film, row, drawn);
}

/** The strip nearest to k that is there; k if none is. */
function nearest(strips, k, isThere) {
  for (let far = 0; far <= COARSEST; far += 1) {
    if (strips[k - far] && isThere(strips[k - far])) return k - far;
    if (strips[k + far] && isThere(strips[k + far])) return k + far;
  }
  return k;
}

/** Show a sentence in place of the images; an empty one shows the images. */
function tell(row, sentence) {
  if (row.message.textContent !== sentence) row.message.textContent = sentence;
  row.canvas.classList.toggle("away", sentence !== "");
}

function paint(film, row, strip) {
  const { canvas } = row;
  const side = strip.bitmap.height;
  const count = Math.max(1, Math.floor(strip.bitmap.width / side));
  const tiles = Array.from({ length: count }, (_, k) => [strip.bitmap, k * side, 0]);
  paintTiles(canvas, tiles, side, film.room || film.box.clientWidth, SIZES);
  const step = formatNumber(strip.step);
  canvas.setAttribute("aria-label", `Samples of ${row.name} at step ${step}, ${formatImages(count)}`);
  row.painted = strip;
}

// ------------------------------------------------------------------------- fetching, decoding

function isDue({ state, missed }) {
  return state === "new" || (state === "missing" && performance.now() - missed > RETRY_MS);
}

function fetchNext(film) {
  while (film.loading < AT_ONCE && !film.closed) {
    let strip = film.wanted.find(isDue);
    while (!strip && film.seen && film.queue.length) {
      const next = film.queue.pop();
      if (next.state === "new") strip = next;
    }
    if (!strip) return;
    load(film, strip);
  }
}

async function load(film, strip) {
  film.loading += 1;
  // The address contains the file's version, so what the browser has cached is current.
  const cache = strip.missed ? "reload" : "force-cache";
  strip.state = "loading";
  try {
    const answer = await fetch(new URL(strip.address, document.baseURI), { cache });
    if (!answer.ok) throw new Error(answer.statusText);
    strip.blob = await answer.blob();
    strip.state = "loaded";
  } catch {
    // The server restarts, or the run was removed: try again.
    strip.missed = performance.now();
    strip.state = "missing";
    setTimeout(film.redraw, RETRY_MS + 100);
  }
  film.loading -= 1;
  if (film.wanted.includes(strip)) film.redraw();
  fetchNext(film);
}

function decode(film, strip) {
  if (strip.state !== "loaded" || strip.bitmap || strip.decoding) return;
  strip.decoding = true;
  createImageBitmap(strip.blob).then(
    (bitmap) => {
      strip.decoding = false;
      if (film.closed || !film.strips.has(strip.address)) return bitmap.close();
      strip.bitmap = bitmap;
      film.pixels += bitmap.width * bitmap.height;
      use(film, strip);
      for (const oldest of film.decoded.values()) {
        if (film.pixels <= MOST_PIXELS || film.wanted.includes(oldest)) break;
        release(film, oldest);
      }
      return film.redraw();
    },
    () => {
      strip.decoding = false;
      strip.state = "broken";
      strip.blob = undefined;
      film.redraw();
    },
  );
}

function use(film, strip) {
  film.decoded.delete(strip.address);
  film.decoded.set(strip.address, strip);
}

function release(film, strip) {
  film.pixels -= strip.bitmap.width * strip.bitmap.height;
  film.decoded.delete(strip.address);
  strip.bitmap.close();
  strip.bitmap = undefined;
}

/** The power of two that divides k, at most COARSEST. */
const stride = (k) => (k % COARSEST ? k & -k : COARSEST);

/** All strips as a stack: every 64th of each run on top, the newest first, then those between. */
function coarseToFine(runs) {
  return [...runs]
    .reverse()
    .flatMap((strips) => strips.map((strip, k) => [stride(strips.length - 1 - k), strip]))
    .sort(([one], [other]) => one - other)
    .map(([, strip]) => strip);
}

// -------------------------------------------------------------------------------------- words

function parseSpot(start) {
  const [, step, name] = /^(\d+)@(.+)$/.exec(start ?? "") ?? [];
  return name && { name, step: Number(step) };
}

function placeWords(alignment, at) {
  if (alignment === "images") return formatImages(at);
  if (alignment === "time") return duration(at);
  return `step ${formatNumber(at)}`;
}

function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 10) return `${minutes} min ${whole % 60} s`;
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
