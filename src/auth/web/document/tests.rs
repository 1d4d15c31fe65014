//! Tests of the documents that strangers name.
