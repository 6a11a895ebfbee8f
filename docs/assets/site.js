// What scrolls can be scrolled by keyboard, too.
document$.subscribe(() => {
  for (const wide of document.querySelectorAll('.md-typeset__scrollwrap, .md-typeset pre > code')) {
    wide.tabIndex = 0;
  }
});
// The dialog of the search has a name for screen readers.
document.querySelector('.md-search')?.setAttribute('aria-label', 'Search');
