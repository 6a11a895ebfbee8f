// What scrolls can be scrolled by keyboard, too.
document$.subscribe(() => {
  for (const wide of document.querySelectorAll('.md-typeset__scrollwrap, .md-typeset pre > code')) {
    wide.tabIndex = 0;
  }
});
