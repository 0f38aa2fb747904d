// Sample strips of several runs under one slider. Each strip is fetched once, kept as the PNG that
// it is, and decoded off the main thread when it is looked at; moving the slider only draws.

const AT_ONCE = 6; // requests; a browser makes no more to one server anyway
const MOST_PIXELS = 32e6; // decoded pictures that are kept, 4 bytes a pixel
const COARSEST = 64; // of so many strips one is fetched first
const AHEAD = 4; // positions that are decoded before the slider gets there
const SETTLED_MS = 600; // after the last move, before the address says where
const RETRY_MS = 2000;
const STILL_MS = 300; // after a move nothing else of the page should take the browser's time
const SIZES = [64, 128]; // a picture's side on the screen, where there is room

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
    notches: [], // the slider's positions: {at, name, step}, where some run has a new strip
    index: 0,
    spot: parseSpot(start), // {name, step}: the strip that the slider stands at
    following: !start, // stands at the newest, and goes on to newer ones
    remembered: start ?? null, // what the page's address says
    strips: new Map(), // by address
    decoded: new Map(), // by address, what was looked at last comes last
    pixels: 0,
    wanted: [],
    queue: [],
    loading: 0,
    seen: false,
    direction: 1,
  };
  film.last = () => film.notches.length - 1;
  film.go = (index) => move(film, index);
  film.isReady = () => isReady(film);
  film.starts = () => {
    film.following = false;
    film.seen = true;
  };
  film.stands = () => settle(film);
  openPlayer(film, box);
  film.sizes = new ResizeObserver(() => {
    if (box.clientWidth === film.room) return;
    film.room = box.clientWidth;
    film.rows.forEach((row) => { row.painted = null; });
    later(film);
  });
  film.sizes.observe(box);
  // All strips are fetched once somebody has scrolled to them, and until then only what is shown.
  film.sights = new IntersectionObserver((entries) => {
    film.seen ||= entries.some((entry) => entry.isIntersecting);
    fetchNext(film);
  });
  film.sights.observe(box);
  return film;
}

function close(film) {
  film.playing = false;
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
  const colours = palette(film.box);
  film.rows = rows.map((row) => {
    const { element, label, where, note, canvas, message } = known.get(row.name) ?? makeRow();
    label.textContent = row.name;
    label.style.setProperty("--dot", colours[row.colour % colours.length]);
    const own = row.files.map((file, k) => {
      const address = `${row.address}/${encodeURIComponent(file)}?v=${row.versions[k]}`;
      const strip = film.strips.get(address) ?? { address, file, step: row.steps[k], state: "new" };
      strips.set(address, strip);
      return strip;
    });
    return { ...row, strips: own, element, label, where, note, canvas, message };
  });
  film.list.replaceChildren(...film.rows.map((row) => row.element));
  film.list.classList.toggle("several", film.rows.length > 1);
  for (const [address, strip] of film.strips) {
    if (!strips.has(address)) forget(film, strip);
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
  const last = film.last();
  film.slider.max = last;
  film.controls.hidden = last < 1;
  const found = film.following ? -1 : find(film);
  move(film, found < 0 ? last : found);
}

/** The position of the strip that the slider stood at, which another alignment moves; or -1. */
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

function move(film, index) {
  const last = film.last();
  const next = Math.max(0, Math.min(index, last));
  film.direction = Math.sign(next - film.index) || film.direction;
  if (next !== film.index) window.diffusionLabMovingUntil = performance.now() + STILL_MS;
  film.index = next;
  film.spot = film.notches[next];
  film.following = next === last && !film.playing;
  later(film);
}

/** Once it stands still the server is told where, so that the address can say it. */
function settle(film) {
  film.following = !film.playing && film.index === film.last();
  clearTimeout(film.settling);
  film.settling = setTimeout(() => {
    const at = film.following ? null : `${film.spot.step}@${film.spot.name}`;
    if (at !== film.remembered) film.remember(at);
    film.remembered = at;
  }, SETTLED_MS);
}

/** Whether every row has drawn what belongs here, or cannot: a film leaves nothing out. */
function isReady(film) {
  return film.rows.every((row) => {
    const strip = row.strips[row.upTo[film.index]];
    if (!strip || strip.state === "broken" || strip.state === "missing") return true;
    return row.painted === strip;
  });
}

// ------------------------------------------------------------------------------------ drawing

/** Draw with the next frame of the screen, however often it is asked for before. */
function later(film) {
  film.frame ??= requestAnimationFrame(() => {
    film.frame = undefined;
    if (!film.closed) draw(film);
  });
}

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
    tell(row, `Its first samples are of step ${number(row.steps[0])}.`);
    return;
  }
  const failed = strip.state === "broken" || strip.state === "missing";
  // Until a strip has come, a fast hand sees the one nearest to it that is there, and its step.
  const shown = failed ? k : nearest(row.strips, k, ({ bitmap }) => bitmap);
  const step = `step ${number(row.steps[shown])}`;
  const ended = shown === row.strips.length - 1 && notch.at > row.at[shown];
  row.where.textContent = [
    step,
    ...(film.alignment === "step" ? [] : [placeWords(film.alignment, row.at[shown])]),
    ...(ended ? ["its newest"] : []),
  ].join(" · ");
  row.note.textContent = row.forming
    ? "one picture, from noise (last) to the finished one (first)"
    : "";
  if (strip.state === "broken") tell(row, `The samples in ${strip.file} cannot be read.`);
  else if (strip.state === "missing") tell(row, `The samples of ${step} did not arrive.`);
  else tell(row, "");
  const isThere = Boolean(strip.bitmap);
  row.canvas.classList.toggle("waiting", !isThere);
  row.canvas.setAttribute("aria-busy", String(!isThere && !failed));
  const drawn = row.strips[shown];
  if (!drawn.bitmap) return;
  use(film, drawn);
  if (row.painted !== drawn) paint(film, row, drawn);
}

/** Of the strips near k, which are there; k itself where none is. */
function nearest(strips, k, isThere) {
  for (let far = 0; far <= COARSEST; far += 1) {
    if (strips[k - far] && isThere(strips[k - far])) return k - far;
    if (strips[k + far] && isThere(strips[k + far])) return k + far;
  }
  return k;
}

/** A sentence in the place of the pictures; with none, the pictures. */
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
  const pictures = count === 1 ? "1 picture" : `${count} pictures`;
  canvas.setAttribute(
    "aria-label",
    `Samples of ${row.name} at step ${number(strip.step)}, ${pictures}`,
  );
  row.painted = strip;
}

// ------------------------------------------------------------------------- fetching, decoding

function fetchNext(film) {
  const isDue = (strip) =>
    strip.state === "new" ||
    (strip.state === "missing" && performance.now() - strip.missed > RETRY_MS);
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
  // The address has the file's version in it: what the browser has of it is as good as new.
  const cache = strip.missed ? "reload" : "force-cache";
  strip.state = "loading";
  try {
    const answer = await fetch(new URL(strip.address, document.baseURI), { cache });
    if (!answer.ok) throw new Error(answer.statusText);
    strip.blob = await answer.blob();
    strip.state = "loaded";
  } catch {
    // The server is being started anew, or the run was removed: it is asked again.
    strip.missed = performance.now();
    strip.state = "missing";
    setTimeout(() => later(film), RETRY_MS + 100);
  }
  film.loading -= 1;
  if (film.wanted.includes(strip)) later(film);
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
      return later(film);
    },
    () => {
      strip.decoding = false;
      strip.state = "broken";
      strip.blob = undefined;
      later(film);
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

function forget(film, strip) {
  if (strip.bitmap) release(film, strip);
}

/** All strips as a stack: every 64th of each run on top, the newest first, then those between. */
function coarseToFine(runs) {
  const order = [];
  for (let stride = COARSEST; stride >= 1; stride /= 2) {
    const isNew = (k) => stride === COARSEST || k % (2 * stride) !== 0;
    for (const strips of runs) {
      for (let k = 0; k < strips.length; k += stride) {
        if (isNew(k)) order.push(strips[strips.length - 1 - k]);
      }
    }
  }
  return order.reverse();
}

// -------------------------------------------------------------------------------------- words

function parseSpot(start) {
  const [, step, name] = /^(\d+)@(.+)$/.exec(start ?? "") ?? [];
  return name && { name, step: Number(step) };
}

function placeWords(alignment, at) {
  if (alignment === "images") return `${number(at)} images`;
  if (alignment === "time") return duration(at);
  return `step ${number(at)}`;
}

function number(value) {
  return value.toLocaleString("en-US");
}

function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 10) return `${minutes} min ${whole % 60} s`;
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function palette(element) {
  const colours = getComputedStyle(element).getPropertyValue("--st-chart-categorical-colors");
  return colours.split(/,(?![^(]*\))/).map((colour) => colour.trim());
}
