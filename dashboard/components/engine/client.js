// The page's side of the engine.

/**
 * A worker with the engine's `script`, which loads the model at `address`; null where the browser lets
 * none compute. `hear` is given what the worker says, and { failed } where it does not run.
 */
export function openEngine({ script, address, engine }, hear) {
  const blob = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  setTimeout(() => URL.revokeObjectURL(blob), 10_000);
  let worker;
  try {
    worker = new Worker(blob);
  } catch (error) {
    hear({ failed: `This browser does not let the page compute beside itself: ${error.message}` });
    return null;
  }
  worker.addEventListener("message", ({ data }) => hear(data));
  worker.addEventListener("error", (event) => hear({ failed: `The computation failed: ${event.message}` }));
  worker.postMessage({ load: { address: new URL(address, document.baseURI).href, engine } }, []);
  return worker;
}
