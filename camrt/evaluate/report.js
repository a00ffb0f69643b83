"use strict";
// Sorting by a column, and a line of the curves that stands out while its name is pointed at. The page is whole without either.
(() => {
  const value = (row, column) => row.cells[column]?.dataset.value;

  function compare(a, b, sign) {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what has no figure comes last
    const [x, y] = [Number(a), Number(b)];
    return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en") : x - y);
  }

  function sort(table, header) {
    const headers = [...table.tHead.rows[0].cells];
    const first = header.dataset.better === "higher" ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = header.getAttribute("aria-sort") === first ? other : first;
    headers.forEach((cell) => cell.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", order);
    const column = headers.indexOf(header);
    const sign = order === "ascending" ? 1 : -1;
    for (const body of table.tBodies) {
      if (body.className === "absent") continue;
      const rows = [...body.rows].filter((row) => row.className !== "apart");
      body.append(...rows.sort((a, b) => compare(value(a, column), value(b, column), sign)));
    }
  }

  for (const table of document.querySelectorAll("#scores table")) {
    for (const header of table.tHead.rows[0].cells) {
      const title = header.querySelector(".sorts");
      const button = document.createElement("button");
      button.type = "button";
      title.replaceWith(button);
      button.append(title);
      button.addEventListener("click", () => sort(table, header));
    }
  }

  for (const entry of document.querySelectorAll(".key li")) {
    const lines = [...document.querySelectorAll(`#curves [id$="-line-${entry.dataset.line}"]`)];
    const plots = lines.map((line) => line.closest("svg"));
    const mark = (on) => {
      plots.forEach((plot) => plot.classList.toggle("dimmed", on));
      lines.forEach((line) => line.classList.toggle("lit", on));
    };
    for (const event of ["mouseenter", "focus"]) entry.addEventListener(event, () => mark(true));
    for (const event of ["mouseleave", "blur"]) entry.addEventListener(event, () => mark(false));
  }
})();
