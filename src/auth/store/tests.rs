//! The store, on disk in a directory of its own per test.
