// The page /docs, made from /openapi.json: every operation with its parameters, its answers and a command line that asks it.

import { element, make, quoted } from "./dom.js";

const FACES = {
  "/v1": ["The plain face", "For people, scripts and the page: a photo in the body, what to ask in the address."],
  "/v2": ["The Open Inference Protocol", "What clients of Triton and KServe speak, version 2 over HTTP: tensors in, tensors out."],
};
const PHOTO = "photo.jpg";

const anchor = (verb, path) => `${verb}${path}`.toLowerCase().replace(/[^a-z0-9]+/g, "-");

let api, names, token;

// Text with `code` in backticks, and a paragraph after each empty line.
function paragraphs(text) {
  return text.split(/\n\s*\n/).map((paragraph) => make("p", {}, ...inline(paragraph)));
}

function inline(text = "") {
  return text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));
}

// --- types -------------------------------------------------------------------------------------------------------------------
function typeOf(schema = {}) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return [make("a", { href: `#${name}` }, name)];
  }
  if (schema.enum) return [schema.enum.join(" | ")];
  const choices = schema.anyOf?.filter((one) => one.type !== "null");
  if (choices) return choices.flatMap((one, i) => [...(i ? [" | "] : []), ...typeOf(one)]);
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items)];
  if (schema.type === "object" && schema.additionalProperties?.anyOf) return ["object of ", ...typeOf(schema.additionalProperties)];
  if (schema.format === "binary") return ["bytes"];
  return [[schema.type].flat().filter(Boolean).join(" | ") || "anything"];
}

function bounds(schema = {}) {
  const inner = schema.anyOf?.find((one) => one.type !== "null") ?? schema;
  const told = [];
  if (inner.minimum !== undefined && inner.maximum !== undefined) told.push(`${inner.minimum} to ${inner.maximum}`);
  else if (inner.minimum !== undefined) told.push(`at least ${inner.minimum}`);
  return told.length ? [`, ${told}`] : [];
}

function table(heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, ...first), ...rest.map((cell) => make("td", {}, ...cell))),
  );
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

// --- command lines -----------------------------------------------------------------------------------------------------------
function commands(verb, path, operation) {
  const example = { name: names.sample, model: names.model, version: "1" };
  const address = location.origin + path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(example[name] ?? name));
  const key = token && operation.responses[401] ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const bodies = operation.requestBody?.content ?? {};
  const line = (...parts) => {
    const told = ["curl" + key, ...parts].filter(Boolean);
    if (told.join(" ").length <= 88) return told.join(" ");
    const long = told.findIndex((part) => part.length > 60);
    const first = long > 0 ? long : told.length - 1;
    return [told.slice(0, first).join(" "), ...told.slice(first)].join(" \\\n  ");
  };
  if (bodies["image/*"]) {
    const body = `--data-binary @${PHOTO}`;
    return [
      line(body, quoted(`${address}?top=3`)),
      line(body, "-H 'Accept: image/png'", "-o heatmap.png", quoted(`${address}?method=grad-cam`)),
      line(body, "-H 'Accept: application/x-npy'", "-o heatmap.npy", quoted(`${address}?top=3`)),
    ];
  }
  const json = bodies["application/json"];
  const told = json?.example ?? json?.schema.example;
  if (told) return [line("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(told))}`, quoted(address))];
  if (verb === "POST") return [line("-X POST", quoted(address))];
  const binary = path.startsWith("/v1/samples/");
  return [line(binary && `-o ${quoted(`${names.sample}.png`)}`, quoted(address))];
}

// --- the parts of the page ---------------------------------------------------------------------------------------------------
function described(verb, path, operation) {
  const parts = [make("h3", {}, make("span", { className: `verb ${verb}` }, verb), make("code", {}, path))];
  parts.push(...paragraphs(operation.description ?? operation.summary ?? ""));
  if (operation.parameters?.length) {
    const rows = operation.parameters.map((one) => [
      [one.name],
      [...typeOf(one.schema), ...bounds(one.schema)],
      one.required ? ["required"] : one.schema?.default !== undefined ? [String(one.schema.default)] : [],
      one.description ? inline(one.description) : [one.in === "path" ? "in the address" : ""],
    ]);
    parts.push(make("h4", {}, "Parameters"), table(["name", "type", "default", ""], rows));
  }
  const body = operation.requestBody;
  if (body) {
    parts.push(make("h4", {}, "Body"));
    const kinds = Object.keys(body.content).flatMap((kind, i) => [i ? ", " : "", make("code", {}, kind)]);
    parts.push(
      make(
        "p",
        {},
        ...kinds,
        body.required ? "" : " (may be left out)",
        ...inline(body.description ? `. ${body.description}.` : "."),
      ),
    );
    const properties = body.content["application/json"]?.schema.properties;
    if (properties) parts.push(fields(body.content["application/json"].schema));
  }
  parts.push(make("h4", {}, "Answers"), statuses(operation.responses));
  parts.push(make("h4", {}, "From a shell"), make("pre", { tabIndex: 0 }, commands(verb, path, operation).join("\n")));
  return make("article", { id: anchor(verb, path) }, ...parts);
}

function statuses(responses) {
  const rows = Object.entries(responses)
    .sort()
    .flatMap(([status, { description, content = {} }]) => {
      const schema = content["application/json"]?.schema;
      const others = Object.keys(content).filter((kind) => kind !== "application/json");
      const words = description === "Successful Response" ? [] : inline(description);
      const told = schema && !schema.$ref?.endsWith("/Problem") ? [words.length ? ": " : "", ...typeOf(schema)] : [];
      if (others.length) told.push(told.length ? ", " : "", others.join(", "));
      return [make("dt", {}, status), make("dd", {}, ...(words.length || told.length ? [...words, ...told] : ["bytes"]))];
    });
  return make("dl", { className: "statuses" }, ...rows);
}

function fields(schema) {
  const needed = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties).map(([name, one]) => {
    const example = one.examples?.[0];
    const told =
      example === undefined
        ? []
        : [one.description ? ", for instance " : "for instance ", make("code", {}, JSON.stringify(example))];
    return [
      [name],
      [...typeOf(one), ...bounds(one), ...(nullable(one) ? [" or null"] : [])],
      [...inline(one.description), ...told],
    ];
  });
  return table(["field", "type", needed.size ? "" : "each may be left out"], rows);
}

const nullable = (schema) => Boolean(schema.anyOf?.some((one) => one.type === "null"));

function objects(schemas) {
  const known = Object.entries(schemas).filter(([, schema]) => schema.properties);
  const told = known.map(([name, schema]) =>
    make("article", { id: name }, make("h3", {}, make("code", {}, name)), ...paragraphs(schema.description ?? ""), fields(schema)),
  );
  return make("section", { id: "objects" }, make("h2", {}, "Objects"), make("p", {}, "What is in the JSON of answers."), ...told);
}

// --- making it ---------------------------------------------------------------------------------------------------------------
// Names for the command lines: of a model and a sample of this server, where it tells them without a token.
async function examples() {
  const found = { model: "shapes", sample: "star_ring" };
  const given = sessionStorage.getItem("token");
  const headers = given ? { Authorization: `Bearer ${given}` } : {};
  const answers = await Promise.all(["/v1/models", "/v1/samples"].map((path) => fetch(path, { headers })));
  token = Boolean(given) || answers[0].status === 401;
  if (answers[0].ok) found.model = (await answers[0].json())[0]?.name ?? found.model;
  if (answers[1].ok) found.sample = (await answers[1].json())[0] ?? found.sample;
  return found;
}

async function start() {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error((await response.json()).error);
  [api, names] = [await response.json(), await examples()];
  const operations = Object.entries(api.paths).flatMap(([path, verbs]) =>
    Object.entries(verbs).map(([verb, operation]) => ({ verb: verb.toUpperCase(), path, operation })),
  );
  operations.sort((a, b) => (b.path === "/v1/explain") - (a.path === "/v1/explain")); // what most come for
  element("first").textContent = commands("POST", "/v1/explain", api.paths["/v1/explain"].post).slice(0, 2).join("\n");
  element("contents").append(
    ...operations.map(({ verb, path }) =>
      make(
        "li",
        {},
        make("a", { href: `#${anchor(verb, path)}` }, make("span", { className: `verb ${verb}` }, verb), make("code", {}, path)),
      ),
    ),
  );
  for (const [prefix, [title, words]] of Object.entries(FACES)) {
    const own = operations.filter(({ path }) => path.startsWith(prefix));
    if (!own.length) continue;
    const articles = own.map(({ verb, path, operation }) => described(verb, path, operation));
    document.querySelector("main").append(make("section", {}, make("h2", {}, title), make("p", {}, words), ...articles));
  }
  document.querySelector("main").append(objects(api.components.schemas));
  document.title = `camrt ${api.info.version}: the API of this server`;
  document.body.dataset.state = "done";
  if (location.hash) element(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

start().catch((error) => {
  element("alert").textContent = `The description of the API cannot be read: ${error.message}`;
  element("alert").hidden = false;
});
