// Every table sorts by a click on a column's head, or Enter on it: down, up, as it was. Without this script nothing is lost.
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const heads = [...[...table.tHead.rows].at(-1).cells];
  const text = (row, column) => row.cells[column].firstChild?.textContent.trim() ?? "";
  const number = (said) => {
    const found = said.replaceAll(",", "").replace("−", "-").match(/^[+-]?\d+(\.\d+)?(?![\w.])/);
    return found ? Number(found[0]) : NaN;
  };
  heads.forEach((head, column) => {
    const empty = (row) => row.cells[column].classList.contains("missing") || text(row, column) === "–";
    const told = rows.filter((row) => !empty(row));
    const numeric = column > 0 && told.length > 0 && told.every((row) => !Number.isNaN(number(text(row, column))));
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const [first, second] = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const now = head.getAttribute("aria-sort");
      const next = now === first ? second : now === second ? null : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const order = (a, b) => {
        const last = (row) => (row.classList.contains("mean") ? 2 : empty(row) ? 1 : 0);
        if (!next || last(a) !== last(b)) return last(a) - last(b) || rows.indexOf(a) - rows.indexOf(b);
        const [one, two] = [a, b].map((row) => text(row, column));
        const up = numeric ? number(one) - number(two) : one.localeCompare(two, "en", { numeric: true });
        return (next === "ascending" ? up : -up) || rows.indexOf(a) - rows.indexOf(b);
      };
      body.append(...(next ? [...rows].sort(order) : rows));
    });
  });
}
