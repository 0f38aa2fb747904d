// Notes when a page paints what, for benchmarks/pages.py. It runs before the page's own scripts.

(() => {
  const KEYS = new Set(["ArrowRight", "ArrowLeft", " "]);
  // Sets `data-stale` and classes on its containers while a script runs: nothing that is to be seen.
  const CONTAINER = "[data-testid=stElementContainer]";
  const noted = { shift: 0, painted: 0, pressed: 0, changed: 0, changes: new Map() };
  const drawn = new WeakSet();
  let control; // the element that has the keys

  /** Call `done` with the time at which the frame is shown that is being made. */
  function whenPainted(done) {
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => done(performance.now());
      channel.port2.postMessage(0);
    });
  }

  /** The nearest container around an element, also where that is in a component's shadow. */
  function holderOf(element) {
    const holder = element.closest(CONTAINER);
    const host = element.getRootNode().host;
    return holder ?? (host ? holderOf(host) : null);
  }

  function noteNew() {
    whenPainted((at) => { noted.painted = at; });
  }

  function noteChange(element, canvas = false) {
    if (!noted.pressed) return;
    const holder = holderOf(element);
    if (!holder?.closest("[data-testid=stMain]")) return;
    // A slider's own mark follows the key at once; a film's canvas beside it is what follows.
    if (!canvas && holder === control) return;
    noted.changed = performance.now();
    const holders = document.querySelectorAll(`[data-testid=stMain] ${CONTAINER}`);
    const place = [...holders].indexOf(holder);
    if (noted.changes.has(place)) return;
    noted.changes.set(place, undefined);
    const { pressed, changes } = noted;
    whenPainted((at) => changes.set(place, at - pressed));
  }

  const observer = new MutationObserver((mutations) => {
    for (const { type, target, addedNodes, attributeName, oldValue } of mutations) {
      if (type === "attributes") {
        const isContainer = target.matches(CONTAINER);
        if (!isContainer && target.getAttribute(attributeName) !== oldValue) noteChange(target);
        continue;
      }
      const isNew = [...addedNodes].some((node) => node.nodeType === Node.ELEMENT_NODE);
      if (isNew && !document.head.contains(target)) noteNew();
      noteChange(target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement ?? document.body);
    }
  });

  function observe(root) {
    const all = { subtree: true, childList: true, characterData: true, attributes: true };
    observer.observe(root, { ...all, attributeOldValue: true });
    root.addEventListener("load", (event) => event.target.matches?.("img") && noteNew(), true);
  }

  observe(document);
  const attach = Element.prototype.attachShadow;
  Element.prototype.attachShadow = function (options) {
    const root = attach.call(this, options);
    observe(root);
    return root;
  };

  const drawing = {
    CanvasRenderingContext2D: ["drawImage", "putImageData", "fillRect", "fill", "stroke", "fillText"],
    WebGLRenderingContext: ["drawArrays", "drawElements"],
    WebGL2RenderingContext: ["drawArrays", "drawElements"],
    ImageBitmapRenderingContext: ["transferFromImageBitmap"],
  };
  for (const [context, names] of Object.entries(drawing)) {
    for (const name of names) {
      const draw = window[context].prototype[name];
      window[context].prototype[name] = function (...given) {
        const { canvas } = this;
        if (canvas.isConnected) {
          if (!drawn.has(canvas)) noteNew();
          drawn.add(canvas);
          noteChange(canvas, true);
        }
        return draw.apply(this, given);
      };
    }
  }

  new PerformanceObserver((list) => {
    for (const shift of list.getEntries()) noted.shift += shift.hadRecentInput ? 0 : shift.value;
  }).observe({ type: "layout-shift", buffered: true });

  document.addEventListener("keydown", (event) => {
    if (!KEYS.has(event.key)) return;
    control = holderOf(event.composedPath()[0]);
    noted.changes = new Map();
    noted.pressed = noted.changed = event.timeStamp;
  }, true);

  const running = () => document.querySelector(
    "[data-testid=stApp]:not([data-test-script-state=notRunning]), [data-testid=stSkeleton]",
  );

  async function until(still, longest) {
    const end = performance.now() + longest;
    while (performance.now() < end && (running() || !still())) {
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  }

  window.benchmark = {
    /** Milliseconds from the navigation until the last new thing was shown, and the layout shift. */
    async loaded(quiet, longest) {
      await until(
        () => document.querySelector("h1") && performance.now() - noted.painted > quiet, longest,
      );
      return { ms: noted.painted, shift: noted.shift };
    },
    /** After a key: milliseconds until each container of the page has changed first. */
    async repainted(least, quiet, longest) {
      await until(() => {
        const now = performance.now();
        return now - noted.pressed > least && now - noted.changed > quiet;
      }, longest);
      const found = [...noted.changes].filter(([, ms]) => ms !== undefined);
      noted.pressed = 0;
      return Object.fromEntries(found);
    },
  };
})();
