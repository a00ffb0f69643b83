// Resizes photos as camrt does with OpenCV: by area where a photo shrinks, else linear or cubic, with half-pixel centres.

// Halves go to the even neighbour, as in Python.
export function round(value) {
  const near = Math.round(value);
  return near - value === 0.5 && near % 2 !== 0 ? near - 1 : near;
}

// Where the network's window lies on the photo, as camrt.image.geometry computes it.
export function geometry(height, width, { size: [H, W], resize }) {
  let resized;
  if (resize === "letterbox") {
    const ratio = Math.min(H / height, W / width);
    resized = [Math.max(1, round(height * ratio)), Math.max(1, round(width * ratio))];
  } else if (typeof resize === "number") {
    const longer = Math.max(resize, round((Math.max(height, width) * resize) / Math.min(height, width)));
    resized = height >= width ? [longer, resize] : [resize, longer];
  } else {
    resized = [resize[1], resize[0]];
  }
  return { resized, top: round((resized[0] - H) / 2), left: round((resized[1] - W) / 2) };
}

// Pixels (height, width, 3) of RGBA bytes, resized: RGB bytes.
export function resizePixels(rgba, [height, width], [toHeight, toWidth], interpolation) {
  const shrinks = toHeight <= height && toWidth <= width;
  const kind = interpolation === "area" && !shrinks ? "linear" : interpolation;
  const columns = taps(width, toWidth, kind);
  const rows = taps(height, toHeight, kind);
  const narrow = new Float32Array(height * toWidth * 3);
  for (let y = 0, at = 0; y < height; y++) {
    for (const [first, weights] of columns) {
      for (let c = 0; c < 3; c++, at++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * rgba[4 * (y * width + clamp(first + k, width)) + c];
        narrow[at] = sum;
      }
    }
  }
  const finish = kind === "linear" ? fixedPoint : height === 2 * toHeight && width === 2 * toWidth ? halved : rounded;
  const resized = new Uint8ClampedArray(toHeight * toWidth * 3);
  const line = toWidth * 3;
  rows.forEach(([first, weights], y) => {
    const values = new Array(weights.length);
    for (let x = 0; x < line; x++) {
      for (let k = 0; k < weights.length; k++) values[k] = narrow[clamp(first + k, height) * line + x];
      resized[y * line + x] = finish(values, weights);
    }
  });
  return resized;
}

const weighted = (values, weights) => values.reduce((sum, value, k) => sum + weights[k] * value, 0);
const rounded = (values, weights) => round(weighted(values, weights));
const halved = (values, weights) => Math.floor(weighted(values, weights) + 0.5); // halves go up where a photo is halved

// Linear weights are whole numbers of 1/2048, and what is below 1/4 is cut off on the way.
function fixedPoint([above, below], [first, second]) {
  return (((first * (above >> 4)) >> 16) + ((second * (below >> 4)) >> 16) + 2) >> 2;
}

const clamp = (index, length) => Math.min(Math.max(index, 0), length - 1);

// For each of `to` samples of `from` values: the first value it takes, and the weights of that and the following ones.
function taps(from, to, kind) {
  const scale = from / to;
  return Array.from({ length: to }, (_, i) => {
    if (kind === "area") {
      const [start, end] = [i * scale, (i + 1) * scale];
      const first = Math.floor(start);
      const count = Math.max(1, Math.ceil(end - 1e-9) - first);
      const covered = (k) => Math.max(0, Math.min(end, first + k + 1) - Math.max(start, first + k)) / scale;
      return [first, Array.from({ length: count }, (_, k) => Math.fround(covered(k)))];
    }
    const position = (i + 0.5) * scale - 0.5;
    const first = Math.floor(position);
    const t = position - first;
    return kind === "cubic" ? [first - 1, cubic(t)] : [first, [round((1 - t) * 2048), round(t * 2048)]];
  });
}

// Keys' kernel with a = -0.75, which is OpenCV's.
function cubic(t) {
  const a = -0.75;
  const near = (d) => ((a + 2) * d - (a + 3)) * d * d + 1;
  const far = (d) => ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return [far(1 + t), near(t), near(1 - t), far(2 - t)];
}
