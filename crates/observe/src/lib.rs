//! What happened: the graph, the records, the page.
