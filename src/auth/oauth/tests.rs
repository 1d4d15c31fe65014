//! The rules, line by line.
