// Tables of benchmarks: click a column's title to sort; choose one value of the first column to filter.
document$.subscribe(() => {
  for (const block of document.querySelectorAll(".benchmark")) {
    const body = block.querySelector("tbody");
    const heads = [...block.querySelectorAll("thead th")];
    const rows = [...body.rows];
    const text = (row, column) => row.cells[column].textContent.trim();
    const number = (value) => parseFloat(value.replaceAll(",", ""));
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.setAttribute("role", "button");
      const sort = () => {
        const descending = head.ariaSort !== "descending";
        heads.forEach((other) => { other.ariaSort = "none"; });
        head.ariaSort = descending ? "descending" : "ascending";
        const compare = (a, b) => {
          const [x, y] = [text(a, column), text(b, column)];
          if (Number.isNaN(number(x)) || Number.isNaN(number(y))) return x.localeCompare(y);
          return number(x) - number(y);
        };
        body.append(...[...rows].sort((a, b) => (descending ? -1 : 1) * compare(a, b)));
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          sort();
        }
      });
    });
    if (block.dataset.filter === undefined) continue;
    const select = document.createElement("select");
    select.ariaLabel = `Show only one ${block.dataset.filter}`;
    for (const value of ["", ...new Set(rows.map((row) => text(row, 0)))]) {
      select.add(new Option(value || `every ${block.dataset.filter}`, value));
    }
    select.addEventListener("change", () => {
      for (const row of rows) row.hidden = select.value !== "" && text(row, 0) !== select.value;
    });
    block.prepend(select);
  }
});
