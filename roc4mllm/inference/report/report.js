"use strict";
// The table: sorting by its heads, searching, and a link to a row that the search has hidden.
(() => {
  const table = document.getElementById("rows"), body = table.tBodies[0], rows = [...body.rows];
  const search = document.getElementById("search"), count = document.getElementById("count");
  const collator = new Intl.Collator(undefined, {numeric: true});
  const texts = rows.map((row) => row.textContent.toLowerCase());

  // Empty cells stay last in both directions.
  function compare(numeric, sign) {
    return ([, a], [, b]) => {
      if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
      return sign * (numeric ? parseFloat(a) - parseFloat(b) : collator.compare(a, b));
    };
  }

  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), numeric = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const other = {ascending: "descending", descending: "ascending"};
      const direction = other[before] || head.dataset.first || "ascending";
      for (const cell of head.parentElement.cells) cell.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction);
      const keyed = rows.map((row) => [row, row.cells[head.cellIndex].textContent]);
      keyed.sort(compare(numeric, direction === "ascending" ? 1 : -1));
      for (const [row] of keyed) body.append(row);  // as arguments of one call, 200 000 rows are too many
    });
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    rows.forEach((row, place) => {
      row.hidden = !words.every((word) => texts[place].includes(word));
      found += !row.hidden;
    });
    count.textContent = `${found} of ${rows.length} rows shown`;
  }
  search.addEventListener("input", filter);
  filter();

  addEventListener("hashchange", () => {
    const row = document.getElementById(location.hash.slice(1));
    if (row && row.hidden) {
      search.value = "";
      filter();
      row.scrollIntoView();
    }
  });
})();

// A picture on its own, with all that the table says about it. Without this script its link leads to the row.
(() => {
  const dialog = document.getElementById("large"), place = dialog.querySelector(".large");
  const heads = [...document.querySelectorAll("#rows thead th")].map((head) => head.textContent);
  let links = [], current = 0;

  function show(next) {
    current = (next + links.length) % links.length;
    const link = links[current], row = document.getElementById(link.hash.slice(1));
    const facts = document.createElement("dl");
    [...row.cells].forEach((cell, column) => {
      if (!cell.textContent) return;
      const name = document.createElement("dt"), value = document.createElement("dd");
      name.textContent = heads[column];
      value.append(...[...cell.childNodes].map((node) => node.cloneNode(true)));
      facts.append(name, value);
    });
    place.replaceChildren(link.querySelector("img").cloneNode(), facts);
    dialog.setAttribute("aria-label", link.querySelector("img").alt);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest(".tile a");
    if (!link || !link.querySelector("img") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    links = [...link.closest(".sheet").querySelectorAll("a")].filter((other) => other.querySelector("img"));
    show(links.indexOf(link));
    dialog.showModal();
  });
  dialog.querySelector("[data-step='-1']").addEventListener("click", () => show(current - 1));
  dialog.querySelector("[data-step='1']").addEventListener("click", () => show(current + 1));
  dialog.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (step) show(current + step);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => links[current].focus());
})();
