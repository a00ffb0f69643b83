// Drawing: a heatmap comes in grey, takes the colours of turbo, and lies over the part of the photo that the network saw.

// The colour map turbo (Mikhailov, 2019) at every fourth level, as RGB in hex; between them lines are within one level of it.
const TURBO =
  "30123b351e58392a733d358b4040a2424bb54456c74661d6466be34776ee4680f6458afc4294ff3d9efe37a8fa2fb2f428bceb22c5e21ccdd819d5cd18ddc2" +
  "19e3b91fe9af27eea432f2983ff68a4ef97d5dfc6f6dfe627dff568bff4b99fe42a4fc3caffa37b9f635c3f134cdec34d7e535dfdf37e7d739eecf3af4c73a" +
  "f8be39fbb637fdac34fea130fe962bfd8a26fb7e21f8721cf46617f05b12eb500ee5470bdf3f08d83706d02f05c82803be2102b41b01a916019e1001920b01" +
  "8507027a0403";

const colours = (() => {
  const knot = (i, channel) => parseInt(TURBO.substr(6 * Math.min(i, 64) + 2 * channel, 2), 16);
  const table = new Uint8ClampedArray(4 * 256).fill(255);
  for (let level = 0; level < 256; level++) {
    const [i, step] = [level >> 2, level >> 2 === 63 ? 3 : 4]; // the last knot is level 255
    for (let c = 0; c < 3; c++)
      table[4 * level + c] = Math.round(knot(i, c) + ((level % 4) / step) * (knot(i + 1, c) - knot(i, c)));
  }
  return new Uint32Array(table.buffer);
})();

// A class's heatmap in colours; there is none where there is nothing to show.
export async function heatOf(one) {
  if (one.heat !== undefined || one.outcome !== "ok") return;
  const bytes = Uint8Array.from(atob(one.picture), (c) => c.charCodeAt(0));
  const grey = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  const made = new OffscreenCanvas(grey.width, grey.height);
  const context = made.getContext("2d", { willReadFrequently: true });
  context.drawImage(grey, 0, 0);
  const image = context.getImageData(0, 0, grey.width, grey.height);
  const words = new Uint32Array(image.data.buffer);
  for (let i = 0; i < words.length; i++) words[i] = colours[image.data[4 * i]];
  context.putImageData(image, 0, 0);
  one.heat = made;
}

// The part of the photo that the network saw: left, top, right and bottom as fractions of the photo.
export function seen({ geometry: { resized, top, left, network } }) {
  const part = (start, length, of) => [Math.max(0, start / of), Math.min(1, (start + length) / of)];
  const [[upper, lower], [first, last]] = [part(top, network[0], resized[0]), part(left, network[1], resized[1])];
  return [first, upper, last, lower];
}

// Draw a photo, its longer side from `least` to `most` pixels, and a class's heatmap over the part that was seen.
export function paint(canvas, photo, [least, most], one = null, opacity = 0, window = [0, 0, 1, 1]) {
  const { width, height } = photo.bitmap;
  const longest = Math.max(width, height);
  const scale = Math.min(most, Math.max(least, longest)) / longest;
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(photo.bitmap, 0, 0, canvas.width, canvas.height);
  if (!one?.heat || !opacity) return;
  const edge = (fraction, length) => Math.ceil(fraction * length - 0.5); // pixels whose centres were seen
  const [left, right] = [edge(window[0], canvas.width), edge(window[2], canvas.width)];
  const [top, bottom] = [edge(window[1], canvas.height), edge(window[3], canvas.height)];
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  context.globalAlpha = opacity;
  context.drawImage(one.heat, 0, 0, canvas.width, canvas.height);
}

// Draw the colours from least to most.
export function paintScale(canvas) {
  const strip = new ImageData(canvas.width, 1);
  const last = canvas.width - 1;
  new Uint32Array(strip.data.buffer).forEach((_, i, words) => (words[i] = colours[Math.round((255 * i) / last)]));
  canvas.getContext("2d").putImageData(strip, 0, 0);
}
