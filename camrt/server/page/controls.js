// The fields by which a question is asked: model, method, clusters, another class.

import { hasClusters, methodOf, models } from "./asking.js";
import { element, make } from "./dom.js";

export function offerModels(listed) {
  const options = listed.map(({ name, state, methods }) => {
    const able = methods.length > 0;
    return make("option", { value: name, disabled: !able }, able ? name : `${name} (${state})`);
  });
  element("model").replaceChildren(...options);
  element("models").hidden = listed.length < 2;
  element("model").value = models[0]?.name;
}

// What can be asked of a model.
export function offer(model) {
  const known = element("method").dataset.of === model.name;
  if (known) return;
  const was = element("method").value;
  element("method").replaceChildren(...model.methods.map((name) => make("option", { value: name }, name)));
  element("method").value = model.methods.includes(was) ? was : model.methods[0];
  element("method").dataset.of = model.name;
  element("labels").replaceChildren(...model.labels.map((label) => make("option", { value: label })));
  const counts = ["auto", 5, 10, 20, 32].filter((count) => count === "auto" || count <= model.limits.clusters);
  element("counts").replaceChildren(...counts.map((value) => make("option", { value })));
  const [, height, width] = model.input;
  element("about").textContent =
    `${model.name} names ${model.classes.toLocaleString("en")} classes from ${width} × ${height} pixels. ` +
    "The heatmap tells which part of a photo made it say so.";
  describe();
}

export function describe() {
  const name = element("method").value;
  const method = methodOf(name);
  element("clustered").hidden = !hasClusters(name);
  element("clusters").placeholder = method?.parameters.clusters?.default ?? "";
  element("citation").textContent = method?.citation ?? "";
}

// What the fields ask for.
export function asked() {
  const model = models.find((one) => one.name === element("model").value);
  return { model, method: element("method").value, clusters: element("clusters").value.trim() };
}

// Take back a number of clusters that the server would refuse.
export function bound({ limits }) {
  if (Number(element("clusters").value) > limits.clusters) element("clusters").value = limits.clusters;
}

// Set the fields to a question.
export function settle({ model, method, clusters, versus }) {
  if (element("model").value !== model.name) element("model").value = model.name;
  offer(model);
  element("method").value = method;
  element("clusters").value = clusters ?? "";
  element("versus").value = versus ?? "";
  describe();
}
