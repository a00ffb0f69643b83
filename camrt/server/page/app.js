// The page of `camrt serve`: a photo goes to POST /v1/explain; its heatmaps come back in grey, and are coloured and blended here.

const NAMED = 5; // classes that are shown of a photo
const ASKED = 1024; // pixels of a heatmap's longer side, and of a compared one's
const COMPARED = 384;
const SHOWN = [768, 1600]; // pixels of the shown picture's longer side, least and most
const REMEMBERED = 48; // answers about a photo
const PASSING = [0, 408, 429, 500, 503, 504]; // statuses after which the same question may well be answered

// The colour map turbo (Mikhailov, 2019) at every fourth level, as RGB in hex; between them lines are within one level of it.
const TURBO =
  "30123b351e58392a733d358b4040a2424bb54456c74661d6466be34776ee4680f6458afc4294ff3d9efe37a8fa2fb2f428bceb22c5e21ccdd819d5cd18ddc2" +
  "19e3b91fe9af27eea432f2983ff68a4ef97d5dfc6f6dfe627dff568bff4b99fe42a4fc3caffa37b9f635c3f134cdec34d7e535dfdf37e7d739eecf3af4c73a" +
  "f8be39fbb637fdac34fea130fe962bfd8a26fb7e21f8721cf46617f05b12eb500ee5470bdf3f08d83706d02f05c82803be2102b41b01a916019e1001920b01" +
  "8507027a0403";

const OUTCOMES = {
  flat_map: ["the map is flat", "The map is the same everywhere: no part of the photo counts more than another."],
  no_positive_evidence: ["nothing speaks for it", "Nothing in the photo speaks for it, so there is no heatmap to show."],
  not_finite: ["no finite numbers", "The network or the method gave numbers that are not finite, so there is no heatmap to show."],
};
const NOTES = {
  fewer_clusters: "There were fewer distinct feature maps than clusters asked for.",
  empty_cluster_reseeded: "A cluster that had become empty was seeded anew.",
  chunk_halved: "Memory was short, so that fewer images were run at a time.",
  provider_fallback: "The provider that was asked for could not be had; another one ran.",
};
const STAGES = {
  decode: "reading the photo",
  preprocess: "resizing it",
  queue: "waiting in line",
  wait: "waiting for the device",
  forward: "the network",
  backward: "gradients",
  cluster: "clustering",
  group: "grouping",
  masked: "masked photos",
  tail: "edited features",
  merge: "merging",
  render: "drawing",
};
const WAITING = ["queue", "wait"];

const element = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

let token = sessionStorage.getItem("token") ?? "";
let models = []; // as the server lists them
let methods = {}; // by name
let early; // a photo that was there before the models were
let shown; // {question, answer, listed, known, chosen}: what is seen, its classes, all their indices, the index of the chosen one
let underWay, comparing; // AbortControllers; the first with its question
let mostTargets = NAMED + 3; // in one question, until the server says that it allows fewer
let resume = start; // what a token, or Try again, goes on with

// --- asking the server -------------------------------------------------------------------------------------------------------
class Failure extends Error {
  constructor(text, status = -1) {
    super(text);
    this.status = status;
  }
}

async function api(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      ...options,
      headers: { ...(token && { Authorization: `Bearer ${token}` }), ...options.headers },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached. Is it still running?", 0);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Failure(told.error ?? `The server answered ${response.status}.`, response.status);
}

// A question is {photo, model, method, clusters, versus, targets, longest}; a photo {name, blob, sample, kept, bitmap, answers}.
function query({ photo, model, method, clusters, versus, targets, longest = ASKED }) {
  const asked = new URLSearchParams({ model: model.name, method, image: "heatmap", longest });
  const against = indexOf(model, versus); // no class to ask for
  if (targets) targets.filter((target) => target !== against).forEach((target) => asked.append("target", target));
  else asked.set("top", Math.min(NAMED, mostTargets, model.classes));
  if (versus) asked.set("versus", versus);
  if (clusters && hasClusters(method)) asked.set("clusters", clusters);
  if (photo.sample) asked.set("sample", photo.sample);
  return asked;
}

const indexOf = ({ labels }, text) => (/^\d+$/.test(text) && !labels.includes(text) ? Number(text) : labels.indexOf(text));

async function explain(question, signal) {
  const { photo } = question;
  const asked = query(question);
  const key = String(asked);
  if (photo.answers.has(key)) return photo.answers.get(key);
  const started = performance.now();
  const answer = await (await send(photo, asked, signal)).json();
  answer.elapsed = performance.now() - started;
  if (!photo.sample) photo.kept = answer.photo;
  if (photo.answers.size >= REMEMBERED) photo.answers.clear();
  photo.answers.set(key, answer);
  return answer;
}

// The photo's bytes go once; then its name does, until the server has forgotten it.
async function send(photo, asked, signal, headers = {}) {
  const post = (body) => api(`/v1/explain?${asked}`, { method: "POST", body, signal, headers });
  if (photo.sample) return post();
  if (photo.kept) {
    asked.set("photo", photo.kept);
    try {
      return await post();
    } catch (error) {
      if (error.status !== 404) throw error;
      asked.delete("photo");
      photo.kept = null;
    }
  }
  return post(photo.blob);
}

const hasClusters = (method) => "clusters" in (methods[method]?.parameters ?? {});

// --- taking a photo ----------------------------------------------------------------------------------------------------------
async function takeFile(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) return refuse(`${file.name} is no photo; it is ${file.type}.`);
  let blob;
  try {
    blob = new Blob([await file.arrayBuffer()], { type: file.type }); // the file may change or go away
  } catch {
    return refuse(`${file.name} cannot be read.`);
  }
  take({ name: file.name || "photo", blob });
}

async function take(photo) {
  const model = models.find((one) => one.name === element("model").value);
  early = model ? null : photo;
  if (early) return;
  stop();
  shown = null;
  element("comparison").hidden = true;
  element("target").value = element("versus").value = "";
  photo.answers = new Map();
  ask({ photo, model, method: element("method").value, clusters: element("clusters").value.trim() });
  document.querySelectorAll("#samples button").forEach((one) => one.setAttribute("aria-pressed", one.value === photo.sample));
  if (await decode(photo, photo.blob)) preview(photo);
}

// The browser's own reading of a photo is shown while the server looks; some kinds, such as TIFF, only the server can read.
async function decode(photo, blob) {
  try {
    photo.bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    photo.bitmap = null;
  }
  return photo.bitmap;
}

async function ensureBitmap(photo, answer, signal) {
  const fits = () => photo.bitmap?.width === answer.width && photo.bitmap.height === answer.height;
  if (!fits()) await decode(photo, photo.blob);
  if (fits()) return;
  const plain = new URLSearchParams({ model: answer.model, target: answer.targets[0].index, image: "overlay", alpha: 0 });
  if (photo.sample) plain.set("sample", photo.sample);
  const response = await send(photo, plain, signal, { Accept: "image/png" });
  if (!(await decode(photo, await response.blob()))) throw new Failure(`${photo.name} cannot be shown by this browser.`);
}

function preview(photo) {
  if (underWay?.question.photo !== photo) return; // it has been answered, or another one is there
  document.body.classList.add("empty");
  showResult(true);
  element("caption").textContent = photo.name;
  element("outcome").hidden = true;
  element("picture").setAttribute("aria-label", `The photo ${photo.name}`);
  paintLarge(photo);
}

// --- asking about it ---------------------------------------------------------------------------------------------------------
async function ask(question, wanted) {
  underWay?.abort();
  const mine = (underWay = Object.assign(new AbortController(), { question }));
  const aborted = () => mine.signal.aborted;
  tell("working", "Looking …");
  try {
    const answer = await explain(question, mine.signal);
    if (aborted()) return;
    await ensureBitmap(question.photo, answer, mine.signal);
    if (aborted()) return;
    underWay = null;
    const listed = classesOf(answer);
    const chosen = listed.find((one) => one.index === wanted) ?? (question.added ? listed.at(-1) : listed[0]);
    const known = [...answer.targets.map((one) => one.index), ...(question.targets ?? []).filter(Number.isInteger)];
    shown = { question, answer, listed, known: [...new Set(known)], chosen: chosen.index };
    document.body.classList.remove("empty");
    showResult(true);
    await show();
    tell("done");
  } catch (error) {
    if (aborted()) return;
    underWay = null;
    const most = /^At most (\d+) classes can be asked for/.exec(error.message);
    if (most && Number(most[1]) < mostTargets) {
      mostTargets = Number(most[1]);
      const targets = question.targets && [...question.targets.slice(0, mostTargets - 1), question.targets.at(-1)];
      return ask({ ...question, targets }, wanted);
    }
    fail(error, () => ask(question, wanted), question.photo);
  }
}

// Another class joins the list, or all are set against one.
function askOther() {
  const [target, versus] = [element("target"), element("versus")].map((field) => field.value.trim());
  const { question, known, chosen } = shown;
  const index = indexOf(question.model, target);
  const isNew = target && !known.includes(index);
  const targets = isNew
    ? [...known.slice(0, Math.min(NAMED, mostTargets - 1)), index < 0 ? target : index]
    : question.targets && known.slice(0, mostTargets);
  ask({ ...question, versus, targets, added: isNew }, target ? index : chosen);
}

// The same photo, by another method or model.
function askAnew() {
  const question = underWay?.question ?? shown?.question;
  if (!question) return;
  const model = models.find((one) => one.name === element("model").value);
  const changed = { ...question, model, method: element("method").value, clusters: element("clusters").value.trim(), added: false };
  if (model !== question.model) ask({ ...changed, versus: "", targets: null });
  else if (underWay) ask({ ...changed, added: question.added }, shown?.chosen);
  else ask({ ...changed, targets: question.targets && shown.known.slice(0, mostTargets) }, shown.chosen);
}

// The classes that were explained, each once, without the one that they are set against.
function classesOf(answer) {
  const seen = new Set([answer.targets[0].versus?.index]);
  const listed = answer.targets.filter((one) => !seen.has(one.index) && seen.add(one.index));
  return listed.length ? listed : answer.targets;
}

function stop() {
  underWay?.abort();
  comparing?.abort();
  underWay = comparing = null;
}

function cancel() {
  if (!underWay) return;
  stop();
  showResult(Boolean(shown));
  if (shown) settle();
  tell(shown ? "done" : "idle", "Cancelled.");
}

// --- telling -----------------------------------------------------------------------------------------------------------------
let clock;

function tell(state, text = "") {
  document.body.dataset.state = state;
  element("status").textContent = text;
  element("seconds").textContent = "";
  clearInterval(clock);
  if (state !== "failed") element("alert").hidden = true;
  if (state !== "working") return;
  const started = Date.now();
  clock = setInterval(() => (element("seconds").textContent = ` ${Math.round((Date.now() - started) / 1000)} s`), 1000);
}

function fail(error, again, photo) {
  const unauthorised = error.status === 401;
  resume = again;
  const kept = shown && (!photo || photo === shown.question.photo);
  if (!kept) showResult(false);
  else settle();
  tell("failed");
  element("key").hidden = !unauthorised;
  element("alert").hidden = unauthorised && !token;
  const text = error.message.replace(/^the image\b/, (words) => photo?.name ?? words);
  element("alert").firstElementChild.textContent = unauthorised ? "That token is not one of this server's." : text;
  element("again").hidden = !PASSING.includes(error.status);
  if (unauthorised) element("token").focus();
  else element("alert").scrollIntoView({ block: "nearest" });
  if (!(error instanceof Failure)) console.error(error);
}

function refuse(text) {
  stop();
  fail(new Failure(text), null, shown?.question.photo);
}

function showResult(visible) {
  element("result").hidden = !visible;
  document.body.classList.toggle("looking", visible);
  if (!visible) element("comparison").hidden = true;
}

const percent = (p) => (p === null ? "–" : p > 0 && p < 0.0005 ? "<\u00a00.1\u00a0%" : `${(100 * p).toFixed(1)}\u00a0%`);
const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)}\u00a0ms`;
const chosenClass = () => shown.listed.find((one) => one.index === shown.chosen);

async function show() {
  settle();
  list();
  showCost();
  await choose(shown.chosen);
}

// Set the controls to what is shown, as after a question that failed.
function settle() {
  const { model, method, clusters, versus } = shown.question;
  if (element("model").value !== model.name) element("model").value = model.name;
  offer(model);
  element("method").value = method;
  element("clusters").value = clusters ?? "";
  element("versus").value = versus ?? "";
  describe();
}

function list() {
  const { targets, prediction } = shown.answer;
  const against = [...targets, ...prediction].find((one) => one.index === targets[0].versus?.index);
  const rows = [...shown.listed, ...(against && !shown.listed.includes(against) ? [against] : [])];
  rows.sort((a, b) => b.probability - a.probability);
  const held = element("classes").contains(document.activeElement);
  element("classes").lastElementChild.replaceChildren(...rows.map((one) => rowOf(one, one === against)));
  element("target").value = "";
  if (held) radioOf(shown.chosen)?.focus();
}

function rowOf(one, isAgainst) {
  const fill = make("span");
  fill.style.width = `${100 * (one.probability ?? 0)}%`;
  const radio = make("input", { type: "radio", name: "class", value: one.index, disabled: isAgainst });
  radio.addEventListener("change", () => choose(one.index));
  const [name, p] = [make("span", { className: "name" }, one.label), make("span", { className: "p" }, percent(one.probability))];
  const row = make("label", {}, radio, name, p, make("span", { className: "bar" }, fill));
  if (isAgainst) row.append(make("small", {}, "what the others are set against"));
  else if (one.outcome !== "ok") row.append(make("small", {}, OUTCOMES[one.outcome]?.[0] ?? one.outcome));
  return row;
}

const radioOf = (index) => document.querySelector(`#classes input[value="${index}"]`);

async function choose(index) {
  const mine = shown;
  mine.chosen = index;
  radioOf(index).checked = true;
  const one = chosenClass();
  await heatOf(one);
  if (shown !== mine || mine.chosen !== index) return; // another one has been chosen meanwhile
  draw();
  const { question, answer } = shown;
  const words = [make("strong", {}, one.label)];
  if (one.versus) words.push(" rather than ", make("strong", {}, one.versus.label));
  words.push(` · ${percent(one.probability)} · ${answer.method}`);
  element("caption").replaceChildren(...words);
  element("outcome").hidden = one.outcome === "ok";
  element("outcome").textContent = one.outcome === "ok" ? "" : (OUTCOMES[one.outcome]?.[1] ?? one.outcome);
  const rather = one.versus ? ` rather than ${one.versus.label}` : "";
  const where = one.outcome === "ok" ? `, and where the network looked for ${one.label}${rather}` : "";
  element("picture").setAttribute("aria-label", `The photo ${question.photo.name}${where}`);
  Object.assign(element("picture").dataset, { shows: one.index, method: answer.method });
  element("curl").textContent = curl(question, one);
}

function showCost() {
  const { answer } = shown;
  const spent = Object.entries(answer.milliseconds).filter(([stage, ms]) => stage !== "total" && ms >= 0.05);
  const sum = spent.reduce((all, [, ms]) => all + ms, 0);
  element("total").replaceChildren(
    make("strong", {}, milliseconds(answer.milliseconds.total)),
    ` on ${answer.provider}, ${milliseconds(answer.elapsed)} from here · ${passesOf(answer)}`,
  );
  let series = 0;
  const parts = spent.map(([stage, ms]) => ({ stage, ms, colour: WAITING.includes(stage) ? "waiting" : `series-${series++ % 8}` }));
  element("bar").replaceChildren(
    ...parts.map(({ ms, colour }) => {
      const part = make("span", { className: colour });
      part.style.flexGrow = ms / sum;
      return part;
    }),
  );
  element("stages").replaceChildren(
    ...parts.map(({ stage, ms, colour }) =>
      make(
        "div",
        {},
        make("dt", {}, make("span", { className: `dot ${colour}` }), STAGES[stage] ?? stage),
        make("dd", {}, milliseconds(ms)),
      ),
    ),
  );
  element("notes").textContent = answer.notes.map((note) => NOTES[note] ?? note).join(" ");
}

function passesOf({ passes, tail_passes: tail, backward_passes: backward }) {
  const told = [`${passes}\u00a0${passes === 1 ? "pass" : "passes"}`];
  if (tail) told.push(`${tail}\u00a0tail`);
  if (backward) told.push(`${backward}\u00a0backward`);
  return told.join(" + ");
}

// --- drawing -----------------------------------------------------------------------------------------------------------------
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
async function heatOf(one) {
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

// The part of the photo that the network saw, where the answer tells it: left, top, width and height as fractions of the photo.
function seen({ geometry }) {
  if (!geometry) return [0, 0, 1, 1];
  const [[height, width], [h, w]] = [geometry.resized, geometry.network];
  const [top, left] = [Math.max(0, geometry.top / height), Math.max(0, geometry.left / width)];
  return [left, top, Math.min(1, (geometry.left + w) / width) - left, Math.min(1, (geometry.top + h) / height) - top];
}

function paint(canvas, photo, one, opacity, [least, most], window = [0, 0, 1, 1]) {
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
  const [x, y, w, h] = window;
  context.beginPath();
  context.rect(
    Math.round(x * canvas.width),
    Math.round(y * canvas.height),
    Math.round(w * canvas.width),
    Math.round(h * canvas.height),
  );
  context.clip();
  context.globalAlpha = opacity;
  context.drawImage(one.heat, 0, 0, canvas.width, canvas.height);
}

function paintLarge(photo, one = null, window = undefined) {
  element("result").style.setProperty("--ratio", photo.bitmap.width / photo.bitmap.height);
  paint(element("picture"), photo, one, opacity(), SHOWN, window);
}

const opacity = () => Number(element("opacity").value);

function draw() {
  paintLarge(shown.question.photo, chosenClass(), seen(shown.answer));
}

// --- comparing methods -------------------------------------------------------------------------------------------------------
let compared = []; // {canvas, photo, one, window}, to be drawn again when the slider moves

async function compare() {
  comparing?.abort();
  const mine = (comparing = new AbortController());
  const question = { ...shown.question, targets: [shown.chosen], longest: COMPARED };
  const label = chosenClass().label + (chosenClass().versus ? ` rather than ${chosenClass().versus.label}` : "");
  const names = question.model.methods;
  const figures = names.map((name) => figureOf(name, question.photo.bitmap));
  compared = [];
  element("comparison").hidden = false;
  element("compared").textContent = `${names.length === 1 ? "One method" : `${names.length} methods`} for ${label}`;
  element("figures").replaceChildren(...figures.map((figure) => figure.item));
  mark();
  element("compared").focus({ preventScroll: true });
  element("comparison").scrollIntoView({
    block: "start",
    behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
  });
  progress(0, names.length, true);
  for (const [i, figure] of figures.entries()) {
    try {
      const answer = await explain({ ...question, method: figure.name }, mine.signal);
      await heatOf(answer.targets[0]);
      if (mine.signal.aborted) break;
      fill(figure, question.photo, answer);
    } catch (error) {
      if (mine.signal.aborted) break;
      figure.cost.textContent = error.message.split(". ")[0];
      figure.button.title = error.message;
      if (error.status !== 422) {
        progress(i, names.length, false);
        return fail(error, compare, question.photo);
      }
    }
    progress(i + 1, names.length, i + 1 < names.length);
  }
  if (comparing === mine) comparing = null;
}

function figureOf(name, { width, height }) {
  const scale = Math.min(1, COMPARED / Math.max(width, height));
  const canvas = make("canvas", { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
  const cost = make("small", {}, "…");
  const button = make("button", { type: "button", value: name }, canvas, make("b", {}, name), cost);
  button.addEventListener("click", () => {
    element("method").value = name;
    describe();
    askAnew();
  });
  return { name, canvas, cost, button, item: make("li", {}, button) };
}

function fill({ canvas, cost, button }, photo, answer) {
  const one = answer.targets[0];
  const entry = { canvas, photo, one, window: seen(answer) };
  compared.push(entry);
  paint(canvas, photo, one, opacity(), [0, COMPARED], entry.window);
  cost.replaceChildren(milliseconds(answer.milliseconds.total), make("br"), passesOf(answer));
  if (one.outcome !== "ok") cost.append(make("em", {}, OUTCOMES[one.outcome]?.[0] ?? one.outcome));
  button.classList.add("there");
}

// The method that is shown large is marked among those that are compared.
function mark() {
  document
    .querySelectorAll("#figures button")
    .forEach((one) => one.setAttribute("aria-pressed", one.value === shown?.answer.method));
}

function progress(done, of, going) {
  element("progress").value = done / of;
  element("progress").hidden = element("stop").hidden = !going;
  element("done").textContent = going ? `${done} of ${of}` : done < of ? `Stopped after ${done} of ${of}` : "";
}

function stopComparing() {
  if (!comparing) return;
  comparing.abort();
  comparing = null;
  progress(compared.length, element("figures").childElementCount, false);
}

// --- taking it home ----------------------------------------------------------------------------------------------------------
function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const stem = () => shown.question.photo.name.replace(/\.[a-z0-9]+$/i, "");

async function savePicture() {
  const { question, answer } = shown;
  const one = chosenClass();
  const canvas = new OffscreenCanvas(1, 1);
  paint(canvas, question.photo, one, opacity(), [0, Infinity], seen(answer));
  download(await canvas.convertToBlob({ type: "image/png" }), `${stem()}.${one.label}.${answer.method}.png`);
}

function saveAnswer() {
  const { photo, elapsed, ...answer } = shown.answer;
  const targets = answer.targets.map(({ picture, heat, ...one }) => one);
  const text = JSON.stringify({ image: shown.question.photo.name, ...answer, targets }, null, 2);
  download(new Blob([text], { type: "application/json" }), `${stem()}.${shown.answer.method}.json`);
}

function curl(question, one) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const asked = query({ ...question, targets: [one.index] });
  asked.delete("image");
  asked.delete("longest");
  asked.set("alpha", opacity());
  const body = question.photo.sample ? "-X POST" : `--data-binary ${quoted(`@${question.photo.name}`)}`;
  const key = token ? ' -H "Authorization: Bearer $TOKEN"' : "";
  return `curl ${body} -H 'Accept: image/png'${key} \\\n  ${quoted(`${location.origin}/v1/explain?${asked}`)} \\\n  -o heatmap.png`;
}

// --- what can be asked -------------------------------------------------------------------------------------------------------
function offer(model) {
  const known = element("method").dataset.of === model.name;
  if (known) return;
  const was = element("method").value;
  element("method").replaceChildren(...model.methods.map((name) => make("option", { value: name }, name)));
  element("method").value = model.methods.includes(was) ? was : model.methods[0];
  element("method").dataset.of = model.name;
  element("labels").replaceChildren(...model.labels.map((label) => make("option", { value: label })));
  const [, height, width] = model.input;
  element("about").textContent =
    `${model.name} names ${model.classes.toLocaleString("en")} classes from ${width} × ${height} pixels. ` +
    "The heatmap tells which part of a photo made it say so.";
  describe();
}

function describe() {
  const method = methods[element("method").value];
  element("clustered").hidden = !hasClusters(element("method").value);
  element("clusters").placeholder = method?.parameters.clusters?.default ?? "";
  element("citation").textContent = method?.citation ?? "";
  mark();
}

async function start() {
  tell("working", "Asking the server …");
  try {
    const read = async (path) => (await api(path)).json();
    const listed = await read("/v1/models"); // alone at first: where a token is needed, one refusal tells it
    const [offered, samples] = await Promise.all([read("/v1/methods"), read("/v1/samples")]);
    methods = Object.fromEntries(offered.map((method) => [method.name, method]));
    models = listed.filter((model) => model.methods.length);
    element("key").hidden = true;
    const options = listed.map((model) =>
      make(
        "option",
        { value: model.name, disabled: !model.methods.length },
        model.methods.length ? model.name : `${model.name} (${model.state})`,
      ),
    );
    element("model").replaceChildren(...options);
    element("models").hidden = listed.length < 2;
    if (!models.length) throw new Failure("No model can be asked now; the server's log says why.", 503);
    element("model").value = models[0].name;
    offer(models[0]);
    tell("idle");
    if (early) take(early);
    element("samples").querySelector("ul").replaceChildren();
    await Promise.all(samples.map(addSample));
  } catch (error) {
    fail(error, start);
  }
}

// Samples are fetched and not linked to, because a link cannot bear a token.
async function addSample(name) {
  const words = name.replaceAll("_", " ");
  const image = make("img", { alt: "", width: 96, height: 96 });
  const button = make("button", { type: "button", value: name, title: words, disabled: true }, image, make("span", {}, words));
  button.setAttribute("aria-pressed", "false");
  element("samples")
    .querySelector("ul")
    .append(make("li", {}, button));
  element("samples").hidden = false;
  const blob = await (await api(`/v1/samples/${encodeURIComponent(name)}`)).blob();
  image.src = URL.createObjectURL(blob);
  button.disabled = false;
  button.addEventListener("click", () => take({ name, blob, sample: name }));
}

// --- what people do ----------------------------------------------------------------------------------------------------------
element("file").addEventListener("change", (event) => {
  takeFile(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind !== "drop") return;
    if (event.dataTransfer.files.length) takeFile(event.dataTransfer.files[0]);
    else refuse("That is no file. Save the photo first, then drop it here.");
  });
}
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (!file) return;
  event.preventDefault();
  takeFile(file);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") underWay ? cancel() : stopComparing();
});
element("key").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = element("token").value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) return fail(new Failure("A token has letters, digits and signs only, and no spaces."), resume);
  token = given;
  sessionStorage.setItem("token", token);
  element("token").value = "";
  element("key").hidden = true;
  (models.length ? resume : start)();
});
element("other").addEventListener("submit", (event) => {
  event.preventDefault();
  if (shown) askOther();
});
for (const id of ["model", "method", "clusters"]) {
  element(id).addEventListener("change", () => {
    if (id === "model") offer(models.find((one) => one.name === element("model").value));
    if (id === "model") element("comparison").hidden = true;
    describe();
    askAnew();
  });
}
element("opacity").addEventListener("input", () => {
  if (!shown) return;
  draw();
  element("curl").textContent = curl(shown.question, chosenClass());
  for (const { canvas, photo, one, window } of compared) paint(canvas, photo, one, opacity(), [0, COMPARED], window);
});
element("again").addEventListener("click", () => resume());
element("dismiss").addEventListener("click", () => tell(shown ? "done" : "idle"));
element("cancel").addEventListener("click", cancel);
element("compare").addEventListener("click", compare);
element("stop").addEventListener("click", stopComparing);
element("save").addEventListener("click", savePicture);
element("keep").addEventListener("click", saveAnswer);

const scale = element("scale").getContext("2d");
const strip = scale.createImageData(128, 1);
for (let i = 0; i < 128; i++) new Uint32Array(strip.data.buffer)[i] = colours[2 * i + (i > 63)];
scale.putImageData(strip, 0, 0);
start();
