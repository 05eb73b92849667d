// Rows that change while somebody looks. Without it, the page is loaded again by itself.
"use strict";
(() => {
  const main = document.getElementById("content");
  const address = main && main.dataset.live;
  if (!address || !window.EventSource) return;
  const rows = new Map();
  for (const row of document.querySelectorAll("tr[data-site]")) rows.set(row.dataset.site, row);
  const heard = document.createElement("p");
  heard.className = "live";
  heard.setAttribute("role", "status");
  const table = document.querySelector(".sites");
  if (table) table.parentElement.before(heard);
  const stream = new EventSource(address);
  stream.addEventListener("row", (event) => {
    const told = JSON.parse(event.data);
    const row = rows.get(told.name);
    if (!row) return;
    for (const cell of row.querySelectorAll("[data-k]")) {
      const text = told.cells[cell.dataset.k];
      if (text === undefined || cell.textContent === text) continue;
      const place = cell.firstElementChild || cell;
      place.textContent = text;
      if (cell.dataset.k === "state") place.className = "state " + told.kind;
      cell.classList.add("changed");
      setTimeout(() => cell.classList.remove("changed"), 1500);
    }
  });
  stream.addEventListener("happened", (event) => {
    const told = JSON.parse(event.data);
    heard.textContent = told.time + " " + told.name + ": " + told.what;
  });
})();
