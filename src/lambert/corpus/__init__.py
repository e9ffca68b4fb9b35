"""Raw text to a token store, once per corpus: `build.build_corpus` makes it, `store.Corpus` reads it."""
