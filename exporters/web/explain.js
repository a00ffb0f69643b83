// Runs model.explain.onnx in the browser: photo in, class names and heatmaps out. about.json says how the photo is resized.

import { geometry, resizePixels } from "./resize.js";

const RUNTIME = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"].map((name) => new URL(name, location.href).href);
const SHOWN = [544, 1024]; // pixels of the shown picture's longer side, least and most
const CLASSES = 3;

const element = (id) => document.getElementById(id);
const status = (text, isError = false) => {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
};

let about, ort, session, shown;

// A file of this folder, as it is now and not as it was cached.
async function load(name) {
  const response = await fetch(name, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${name} is missing in this folder. Write the page again.`);
  return response;
}

async function start() {
  status("Loading the network …"); // a page opened as file:// never runs this, so that the text of index.html stays
  about = await (await load("about.json")).json();
  element("about").textContent = `The network “${about.name}” names ${about.classes} classes.`;
  element("method").textContent = `Heatmaps by ${about.method} (${about.citation}). Made by camrt ${about.version}.`;
  const model = new Uint8Array(await (await load("model.explain.onnx")).arrayBuffer());
  const fetchIt = `Fetch it there:\n${about.fetch}`;
  try {
    ort = await import(RUNTIME[0]);
  } catch {
    throw new Error(`ONNX Runtime is not in this folder. ${fetchIt}`);
  }
  if (!(await fetch(RUNTIME[1], { method: "HEAD" })).ok) throw new Error(`ONNX Runtime lacks its .wasm file. ${fetchIt}`);
  ort.env.wasm.wasmPaths = { wasm: RUNTIME[1] };
  ort.env.wasm.numThreads = 1;
  try {
    session = await ort.InferenceSession.create(model);
  } catch (error) {
    throw new Error(`model.explain.onnx cannot be opened (${error.message}). Write the page again.`);
  }
  element("file").disabled = false;
  status("Ready.");
}

function canvas(height, width) {
  const made = new OffscreenCanvas(width, height);
  const context = made.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  return [made, context];
}

// The photo as the network sees it: RGB bytes (H, W, 3). Padding is the mean colour, which is 0 to the network.
function networkPixels(photo, where) {
  const [H, W] = about.size;
  const [, context] = canvas(photo.height, photo.width);
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, photo.width, photo.height);
  context.drawImage(photo, 0, 0);
  const rgba = context.getImageData(0, 0, photo.width, photo.height).data;
  const [height, width] = where.resized;
  const resized = resizePixels(rgba, [photo.height, photo.width], where.resized, about.preprocess.interpolation);
  const pixels = new Uint8Array(H * W * 3);
  for (let y = 0; y < H; y++) {
    for (let x = 0; x < W; x++) {
      const [row, column] = [y + where.top, x + where.left];
      const inside = row >= 0 && row < height && column >= 0 && column < width;
      const at = 3 * (row * width + column);
      pixels.set(inside ? resized.subarray(at, at + 3) : about.padding, 3 * (y * W + x));
    }
  }
  return pixels;
}

async function explain(photo) {
  const where = geometry(photo.height, photo.width, about.preprocess);
  const pixels = networkPixels(photo, where);
  const [H, W] = about.size;
  const count = Math.min(CLASSES, about.classes);
  const ranks = BigInt64Array.from({ length: count }, (_, i) => BigInt(-1 - i)); // −1 is the most probable class
  const started = performance.now();
  const found = await session.run({
    image: new ort.Tensor("uint8", pixels, [1, H, W, 3]),
    target: new ort.Tensor("int64", ranks, [1, count]),
  });
  const milliseconds = performance.now() - started;
  const targets = Array.from(found.targets.data, (index, i) => ({
    index: Number(index),
    label: about.labels[Number(index)] ?? String(index),
    probability: found.probabilities.data[i],
    outcome: about.outcomes[Number(found.outcomes.data[i])],
    heatmap: found.heatmap.data.slice(i * H * W, (i + 1) * H * W),
  }));
  return { photo, where, pixels, targets, milliseconds };
}

// The photo with one target's heatmap over it, where the network looked.
function draw(chosen) {
  const { photo, where, targets } = shown;
  const [H, W] = about.size;
  const longest = Math.max(photo.width, photo.height);
  const scale = Math.min(SHOWN[1], Math.max(SHOWN[0], longest)) / longest;
  const picture = element("picture");
  picture.width = Math.round(photo.width * scale);
  picture.height = Math.round(photo.height * scale);
  const context = picture.getContext("2d");
  context.drawImage(photo, 0, 0, picture.width, picture.height);
  const [colours, inside] = canvas(H, W);
  const image = inside.createImageData(W, H);
  targets[chosen].heatmap.forEach((value, i) => {
    image.data.set(about.colormap[Math.round(255 * value)], 4 * i);
    image.data[4 * i + 3] = 255;
  });
  inside.putImageData(image, 0, 0);
  const [y, x] = [picture.height / where.resized[0], picture.width / where.resized[1]];
  context.globalAlpha = Number(element("opacity").value);
  context.imageSmoothingQuality = "high";
  context.drawImage(colours, where.left * x, where.top * y, W * x, H * y);
  context.globalAlpha = 1;
  picture.dataset.size = `${photo.width}x${photo.height}`; // tells what the picture shows
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `The photo, and where the network looked for ${targets[chosen].label}`);
  document.querySelectorAll("#classes button").forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
  shown.chosen = chosen;
}

function list() {
  const rows = shown.targets.map((target, i) => {
    const [row, button, bar] = ["li", "button", "progress"].map((name) => document.createElement(name));
    const told = target.outcome === "ok" ? "" : ` (${target.outcome.replaceAll("_", " ")})`;
    const known = Number.isFinite(target.probability);
    button.textContent = `${target.label} — ${known ? (100 * target.probability).toFixed(1) : "?"} %${told}`;
    bar.value = known ? target.probability : 0;
    bar.setAttribute("aria-label", "probability");
    button.append(bar);
    button.addEventListener("click", () => draw(i));
    row.append(button);
    return row;
  });
  element("classes").replaceChildren(...rows);
  element("cost").textContent = `${Math.round(shown.milliseconds)} ms`;
}

async function take(file) {
  if (!session || !file) return;
  status("Looking …");
  await new Promise((resume) => setTimeout(resume, 30)); // let the browser show that
  try {
    const photo = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
    shown = globalThis.explanation = await explain(photo); // for the console
    element("result").hidden = false;
    list();
    draw(0);
    status("");
  } catch (error) {
    element("result").hidden = true;
    const unreadable = error instanceof DOMException;
    status(unreadable ? `${file.name} is no image that this browser reads. Try a JPEG or PNG.` : String(error), true);
  }
}

element("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
element("opacity").addEventListener("input", () => draw(shown.chosen));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
start().catch((error) => status(error.message, true));
