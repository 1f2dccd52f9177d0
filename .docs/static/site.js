// Formulas are in the pages as they are written, and are set when a page is opened.
document.addEventListener("DOMContentLoaded", () => {
  for (const one of document.querySelectorAll(".math")) {
    const displayMode = one.tagName === "DIV";
    katex.render(one.textContent, one, { displayMode, throwOnError: false });
  }
});
// A page opened as a file may not read others, from which a server's pages take the lines around a word that was searched.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
