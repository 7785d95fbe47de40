"use strict";
const root = document.documentElement, theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});
const words = new Intl.Collator(undefined, { numeric: true });
const key = cell => {
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const missing = text === "" || text.toLowerCase() === "nan";
  return { text, number: Number(text), rank: missing ? 2 : Number.isNaN(Number(text)) ? 1 : 0 };
};
const compare = (a, b) => a.number === b.number ? 0 : a.rank === 0 ? a.number - b.number : words.compare(a.text, b.text);
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[table.tBodies.length - 1], given = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const order = before === "ascending" ? "descending" : before === "descending" ? null : "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const keyed = [...body.rows].map(row => [key(row.cells[column]), row]);
      keyed.sort(([a], [b]) => a.rank !== b.rank ? a.rank - b.rank : a.rank === 2 ? 0 : sign * compare(a, b));
      body.append(...(order ? keyed.map(([, row]) => row) : given));
    });
  });
}
// What is wider than the window says so: a faded edge on the side where there is more, and a line below.
for (const wide of document.querySelectorAll(".wide")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "Scroll sideways for more →";
  wide.after(hint);
  const look = () => {
    const left = wide.scrollLeft > 1, right = wide.scrollLeft + wide.clientWidth < wide.scrollWidth - 1;
    wide.classList.toggle("more-left", left);
    wide.classList.toggle("more-right", right);
    hint.hidden = !left && !right;
  };
  wide.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(wide);
  wide.closest("details")?.addEventListener("toggle", look);
  look();
}
