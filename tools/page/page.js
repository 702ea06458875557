"use strict";
(() => {
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const facets = [...document.querySelectorAll("fieldset")].map((set) => ({
    set,
    name: set.dataset.facet,
    all: set.dataset.mode === "all",
    boxes: [...set.querySelectorAll("input")],
  }));
  /* On a narrow page the table is laid out as cards, which must not cost it its meaning. */
  const roles = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", td: "cell" };
  for (const [tag, role] of Object.entries(roles))
    for (const element of document.querySelectorAll(tag)) element.setAttribute("role", role);
  for (const head of document.querySelectorAll("table th"))
    head.setAttribute("role", head.scope === "row" ? "rowheader" : "columnheader");

  const search = document.getElementById("search");
  const presets = [...document.querySelectorAll("[data-preset]")];
  const values = new Map(rows.map((row) => [
    row, Object.fromEntries(facets.map((f) => [f.name, new Set(row.dataset[f.name].split(" "))])),
  ]));

  const ticked = (facet) => facet.boxes.filter((box) => box.checked).map((box) => box.value);

  /* Does a row fit one group of boxes? "all": every ticked one; "any": one of them. */
  const fits = (row, facet, wanted) => {
    if (!wanted.length) return true;
    const has = values.get(row)[facet.name];
    return facet.all ? wanted.every((v) => has.has(v)) : wanted.some((v) => has.has(v));
  };

  function state() {
    const parts = facets.map((f) => [f.name, ticked(f).join(",")]).filter(([, v]) => v);
    const text = search.value.trim();
    if (text) parts.push(["q", text]);
    return parts.map(([k, v]) => `${k}=${k === "q" ? encodeURIComponent(v) : v}`).join("&");
  }

  function restore(text) {
    const wanted = new Map(text.split("&").filter(Boolean).map((part) => {
      const at = part.indexOf("=");
      return [part.slice(0, at), part.slice(at + 1)];
    }));
    for (const facet of facets) {
      const boxes = (wanted.get(facet.name) || "").split(",");
      for (const box of facet.boxes) box.checked = boxes.includes(box.value);
    }
    try { search.value = decodeURIComponent(wanted.get("q") || ""); } catch { search.value = ""; }
    update();
  }

  function update() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = new Map(facets.map((f) => [f, ticked(f)]));
    const near = new Map(facets.map((f) => [f, []])); // rows that fit all other groups
    let shown = 0;
    let first = true;
    for (const row of rows) {
      const named = words.every((word) => row.dataset.text.includes(word));
      const misses = named ? facets.filter((f) => !fits(row, f, wanted.get(f))) : null;
      const visible = named && !misses.length;
      row.hidden = !visible;
      row.classList.toggle("first", visible && first);
      if (visible) { shown += 1; first = false; }
      if (!named) continue;
      if (!misses.length) for (const f of facets) near.get(f).push(row);
      else if (misses.length === 1) near.get(misses[0]).push(row);
    }
    for (const facet of facets) {
      for (const box of facet.boxes) {
        /* What would be left with this box ticked too; in an "any" group, what it adds. */
        const with_it = facet.all
          ? [...new Set([...wanted.get(facet), box.value])] : [box.value];
        const count = near.get(facet).filter((row) => fits(row, facet, with_it)).length;
        const label = box.closest("label");
        label.querySelector("output").value = count;
        label.classList.toggle("empty", !count);
      }
    }
    const now = state();
    document.getElementById("count").textContent =
      shown === rows.length ? `${shown} readers` : `${shown} of ${rows.length} readers`;
    document.getElementById("none").hidden = shown > 0;
    document.querySelector("table").hidden = shown === 0;
    document.getElementById("clear").hidden = !now;
    const number = [...wanted.values()].reduce((sum, list) => sum + list.length, 0);
    document.getElementById("ticked").textContent = number ? `${number} ticked` : "";
    for (const button of presets)
      button.setAttribute("aria-pressed", String(button.dataset.preset === now && now !== ""));
    chips(wanted);
    const hash = now ? `#${now}` : "";
    if (location.hash !== hash) history.replaceState(null, "", hash || location.pathname + location.search);
  }

  function chips(wanted) {
    const place = document.getElementById("active");
    place.replaceChildren();
    for (const [facet, list] of wanted) {
      for (const value of list) {
        const box = facet.boxes.find((b) => b.value === value);
        const chip = document.createElement("button");
        chip.type = "button";
        const legend = facet.set.querySelector("legend").textContent;
        const text = box.nextElementSibling.textContent;
        chip.textContent = `${legend}: ${text} ✕`;
        chip.setAttribute("aria-label", `Remove filter ${legend}: ${text}`);
        chip.addEventListener("click", () => { box.checked = false; update(); box.focus({ preventScroll: true }); });
        place.append(chip);
      }
    }
  }

  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
      const column = Number(button.dataset.sort);
      const key = (row) => (column ? row.cells[column].textContent : row.querySelector("summary").textContent);
      rows.sort((a, b) => turn * key(a).localeCompare(key(b), "en", { numeric: true, sensitivity: "base" }));
      body.append(...rows);
      update();
    });
  }
  for (const button of presets) button.addEventListener("click", () =>
    restore(button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.preset));
  document.getElementById("clear").addEventListener("click", () => { restore(""); search.focus(); });
  document.getElementById("facets").addEventListener("change", update);
  document.getElementById("facets").addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", update);
  window.addEventListener("hashchange", () => restore(location.hash.slice(1)));
  if (matchMedia("(max-width: 860px)").matches) document.getElementById("filters").open = false;
  restore(location.hash.slice(1));
})();
