// Files that the browser saves.

/** Let the browser save what lies at an address. */
export function download(name, address) {
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
}

export function save(name, blob) {
  const address = URL.createObjectURL(blob);
  download(name, address);
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export function saveCsv(name, rows) {
  save(name, new Blob([csvOf(rows)], { type: "text/csv" }));
}

/** Rows of numbers and texts, the first one with the columns' names. */
export function csvOf(rows) {
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}

function cell(value) {
  const text = String(Number.isNaN(value) ? "" : value ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
