// Two pens with the same strokes: on a canvas, and as SVG. Places are pixels; points are x and y in
// turns.

/** A pen on a canvas; `left` moves everything to the right. */
export function canvasPen(context, left = 0) {
  const trace = (line) => {
    context.moveTo(left + line[0], line[1]);
    for (let k = 2; k < line.length; k += 2) context.lineTo(left + line[k], line[k + 1]);
  };
  return {
    dots(points, radius, { colour, alpha = 1, square = false }) {
      context.globalAlpha = alpha;
      context.fillStyle = colour;
      context.beginPath();
      for (let k = 0; k < points.length; k += 2) {
        const [x, y] = [left + points[k], points[k + 1]];
        if (square) {
          context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
        } else {
          context.moveTo(x + radius, y);
          context.arc(x, y, radius, 0, 2 * Math.PI);
        }
      }
      context.fill();
      context.globalAlpha = 1;
    },
    lines(lines, width, { colour, alpha = 1, dashed = false }) {
      context.globalAlpha = alpha;
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.setLineDash(dashed ? [3 * width, 2 * width] : []);
      context.beginPath();
      lines.forEach(trace);
      context.stroke();
      context.globalAlpha = 1;
    },
    text(words, x, y, { colour, font }) {
      context.fillStyle = colour;
      context.font = font;
      context.fillText(words, left + x, y);
    },
  };
}

const short = (x) => x.toFixed(1);

/** A pen that writes SVG elements into `parts`. */
export function svgPen(parts, left = 0) {
  return {
    dots(points, radius, { colour, alpha = 1, square = false }) {
      const all = [];
      for (let k = 0; k < points.length; k += 2) {
        const [x, y] = [left + points[k], points[k + 1]];
        const around = `a${radius},${radius} 0 1,0`;
        all.push(square
          ? `M${short(x - radius)},${short(y - radius)}h${2 * radius}v${2 * radius}h${-2 * radius}z`
          : `M${short(x - radius)},${short(y)}${around} ${2 * radius},0${around} ${-2 * radius},0`);
      }
      parts.push(`<path d="${all.join("")}" fill="${colour}" fill-opacity="${alpha}"/>`);
    },
    lines(lines, width, { colour, alpha = 1, dashed = false }) {
      const all = lines.map((line) => {
        let text = "M";
        for (let k = 0; k < line.length; k += 2) {
          text += `${k ? " " : ""}${short(left + line[k])},${short(line[k + 1])}`;
        }
        return text;
      });
      const dashes = dashed ? ` stroke-dasharray="${3 * width} ${2 * width}"` : "";
      parts.push(`<path d="${all.join("")}" fill="none" stroke="${colour}" `
        + `stroke-opacity="${alpha}" stroke-width="${width}"${dashes}/>`);
    },
    text(words, x, y, { colour, font }) {
      parts.push(`<text x="${short(left + x)}" y="${y}" fill="${colour}" `
        + `style="font: ${font.replaceAll('"', "'")}">${words}</text>`);
    },
  };
}
