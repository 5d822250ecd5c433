// Tables of benchmarks: click a column's title to sort; choose one value of the first column to filter.
document$.subscribe(() => {
  for (const block of document.querySelectorAll(".benchmark")) {
    const body = block.querySelector("tbody");
    const heads = [...block.querySelectorAll("thead th")];
    const rows = [...body.rows];
    const text = (row, column) => row.cells[column].textContent.trim();
    const number = (value) => parseFloat(value.replaceAll(",", ""));
    const isNumeric = (column) => heads[column].style.textAlign === "right";
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const descending = head.ariaSort !== "descending";
        heads.forEach((other) => { other.ariaSort = "none"; });
        head.ariaSort = descending ? "descending" : "ascending";
        const sign = descending ? -1 : 1;
        const compare = (a, b) => {
          const [x, y] = [text(a, column), text(b, column)];
          if (!x || !y) return !x - !y; // empty cells are the last in both orders
          if (!isNumeric(column)) return sign * x.localeCompare(y);
          const [first, second] = [number(x), number(y)];
          if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second);
          return sign * (first - second);
        };
        body.append(...[...rows].sort(compare));
      });
    });
    if (block.dataset.filter === undefined) continue;
    const label = document.createElement("label");
    const select = document.createElement("select");
    for (const value of ["", ...new Set(rows.map((row) => text(row, 0)))]) select.add(new Option(value || "all", value));
    select.addEventListener("change", () => {
      for (const row of rows) row.hidden = select.value !== "" && text(row, 0) !== select.value;
    });
    label.append(`${block.dataset.filter}: `, select);
    block.prepend(label);
  }
});
