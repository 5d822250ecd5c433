// Tables of benchmarks: click the title of a column to sort by it; choose a value of the first column, such as a data set,
// to see its rows only; show the standard deviations.
const LONG = 20; // tables with more rows first show one value of the first column

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
    if (heads.some((head) => head.textContent === "±")) {
      const [label, box] = [document.createElement("label"), document.createElement("input")];
      box.type = "checkbox";
      const show = () => heads.forEach((head, column) => {
        if (head.textContent !== "±") return;
        for (const cell of [head, ...rows.map((row) => row.cells[column])]) cell.hidden = !box.checked;
      });
      box.addEventListener("change", show);
      show();
      label.append(box, " standard deviations (±)");
      block.prepend(label);
    }
    if (block.dataset.filter === undefined) continue;
    const label = document.createElement("label");
    const select = document.createElement("select");
    for (const value of ["", ...new Set(rows.map((row) => text(row, 0)))]) select.add(new Option(value || "all", value));
    const filter = () => {
      for (const row of rows) row.hidden = select.value !== "" && text(row, 0) !== select.value;
      for (const cell of [heads[0], ...rows.map((row) => row.cells[0])]) cell.hidden = select.value !== "";
    };
    select.addEventListener("change", filter);
    if (rows.length > LONG) select.selectedIndex = 1;
    filter();
    label.append(`${block.dataset.filter}: `, select);
    block.prepend(label);
  }
});
